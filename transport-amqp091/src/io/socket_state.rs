//! How far a connection has come, whether this side has cut it, and whether lapin has let go of it.

use std::{
    fmt, io,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use enoki_amqp::PeerProperties;
use tokio::sync::Notify;

/// What the session and the task know of a socket. Each flag is set once and never cleared.
#[derive(Default)]
pub(crate) struct SocketState {
    /// There is a socket. Set before `peer_properties`.
    opened: AtomicBool,
    /// What the broker said of itself in its first frame. Set before `answered`.
    peer_properties: OnceLock<PeerProperties>,
    /// The broker has sent something after its first frame.
    answered: AtomicBool,
    /// This side ended the connection. lapin sees that its socket failed.
    cut: AtomicBool,
    /// lapin has let go of the socket. [`Self::ended`] waits for it on `ending`.
    ended: AtomicBool,
    ending: Notify,
}

impl SocketState {
    /// There is a socket.
    pub(super) fn opened(&self) {
        self.opened.store(true, Ordering::Release);
    }

    /// The broker has sent its first frame.
    pub(super) fn greeted(&self, properties: &PeerProperties) {
        if self.peer_properties.get().is_none() {
            let _ = self.peer_properties.set(properties.clone());
        }
    }

    /// The broker has sent something after its first frame.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Release);
    }

    /// How far the broker has come.
    pub(crate) fn stage(&self) -> Stage {
        if !self.opened.load(Ordering::Acquire) {
            Stage::Unreachable
        } else if self.peer_properties.get().is_none() {
            Stage::Silent
        } else if !self.answered.load(Ordering::Acquire) {
            Stage::Greeted
        } else {
            Stage::Answered
        }
    }

    /// The product and version that the broker named, if it has.
    pub(crate) fn peer_properties(&self) -> PeerProperties {
        self.peer_properties.get().cloned().unwrap_or_default()
    }

    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }

    /// Fails once the connection was cut.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.cut.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the connection was given up on this side",
            ));
        }
        Ok(())
    }

    /// lapin has let go of the socket.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.ending.notify_waiters();
    }

    /// Waits until lapin has let go of the socket, for any reason, a panic among them. Cancel safe. Once it has
    /// returned, further calls return at once.
    pub(crate) async fn ended(&self) {
        let ending = self.ending.notified();
        tokio::pin!(ending);
        // Registered before the flag is read, so that no end falls in between.
        ending.as_mut().enable();
        if !self.ended.load(Ordering::Acquire) {
            ending.await;
        }
    }
}

impl fmt::Debug for SocketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketState").field("stage", &self.stage()).finish_non_exhaustive()
    }
}

/// How far the broker had come when a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There was no socket.
    Unreachable,
    /// There was a socket, and no frame came.
    Silent,
    /// `connection.start` came, and no answer to the login.
    Greeted,
    /// An answer to the login came.
    Answered,
}
