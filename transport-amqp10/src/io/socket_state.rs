//! What both ends of a socket's life share: the stream that fe2o3-amqp's task owns, and the session above.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering},
    },
    task::Waker,
};

use enoki_amqp::PeerProperties;
use enoki_core::Error;
use futures_util::task::AtomicWaker;
use tokio::{sync::Notify, time::Instant};

use super::{blocked::BlockedConnections, link_progress::LinkRegistry};

/// The state of one socket, from before it is opened until after it is closed.
///
/// The stream writes it and the session reads it, with one exception: the session sets `cut`, and the stream
/// obeys. Everything else goes one way and never back: a stage only rises, what is set once stays, and what
/// has ended does not begin again.
#[derive(Default)]
pub(crate) struct SocketState {
    /// The highest [`Stage`] that was reached.
    stage: AtomicU8,
    /// Set before the stage becomes [`Stage::Opened`].
    peer_properties: OnceLock<PeerProperties>,
    /// The last channel that the broker leaves to fe2o3-amqp. Set before the stage becomes [`Stage::Opened`].
    last_channel: AtomicU16,
    /// Why this side gave the connection up: the broker sent bytes that cannot be read, or did not answer. At
    /// most one of `fault` and `refusal` explains an end.
    fault: OnceLock<String>,
    /// The broker refused the certificate or the kind of login.
    refusal: OnceLock<Error>,
    /// The links whose progress a receiver watches.
    pub(crate) links: LinkRegistry,
    /// When an AMQP session of this connection last ended.
    last_session_end: Mutex<Option<Instant>>,
    /// One for all connections of a session of the interface.
    blocked: Arc<BlockedConnections>,
    /// The session gave the connection up. The stream fails from then on; `waker` wakes its task to see it.
    cut: AtomicBool,
    waker: AtomicWaker,
    /// fe2o3-amqp has dropped the stream. `ending` tells those who wait for it.
    ended: AtomicBool,
    ending: Notify,
}

impl SocketState {
    /// The state of a socket that is not open yet.
    pub(crate) fn new(blocked: &Arc<BlockedConnections>) -> Self {
        Self { blocked: blocked.clone(), ..Self::default() }
    }

    /// Ends the connection at once: fe2o3-amqp sees its socket fail.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Waits until fe2o3-amqp has dropped the stream.
    pub(crate) async fn ended(&self) {
        let ending = self.ending.notified();
        tokio::pin!(ending);
        // Registered before the flag is read, so that no end falls in between.
        ending.as_mut().enable();
        if !self.ended.load(Ordering::Acquire) {
            ending.await;
        }
    }

    /// How the broker described itself; nothing before it did.
    pub(crate) fn peer_properties(&self) -> PeerProperties {
        self.peer_properties.get().cloned().unwrap_or_default()
    }

    /// The last channel that an AMQP session of fe2o3-amqp may have, once the connection is open.
    pub(crate) fn last_channel(&self) -> u16 {
        self.last_channel.load(Ordering::Acquire)
    }

    /// Why this side gave the connection up, if it did.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// Why the broker refused the certificate or the kind of login, if it did.
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.refusal.get().cloned()
    }

    /// When an AMQP session of this connection last ended.
    pub(crate) fn last_session_end(&self) -> Option<Instant> {
        *self.last_session_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the connection got.
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Unreachable,
            1 => Stage::Silent,
            2 => Stage::Answered,
            3 => Stage::LoggedIn,
            _ => Stage::Opened,
        }
    }

    pub(super) fn reached(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }

    /// The broker opened the connection.
    pub(super) fn opened(&self, peer_properties: PeerProperties, last_channel: u16) {
        self.last_channel.store(last_channel, Ordering::Release);
        let _ = self.peer_properties.set(peer_properties);
        self.reached(Stage::Opened);
    }

    pub(super) fn session_ended(&self) {
        let mut last = self.last_session_end.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Instant::now());
    }

    /// The broker takes no messages on this connection, or takes them again. Called only when that changes.
    pub(super) fn blocked(&self, is_blocked: bool) {
        self.blocked.changed(is_blocked);
    }

    /// Notes why this side gives the connection up. The first reason stays, and is returned.
    pub(super) fn give_up(&self, fault: impl FnOnce() -> String) -> &str {
        self.fault.get_or_init(fault)
    }

    /// Notes why the broker refused this side. The first reason stays.
    pub(super) fn refused(&self, refusal: Error) {
        let _ = self.refusal.set(refusal);
    }

    /// Fails once the connection was cut; until then a cut wakes this waker.
    pub(super) fn check_cut(&self, waker: &Waker) -> io::Result<()> {
        self.waker.register(waker);
        if self.is_cut() {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the connection was given up on this side",
            ));
        }
        Ok(())
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// fe2o3-amqp has dropped the stream.
    pub(super) fn stream_dropped(&self) {
        self.ended.store(true, Ordering::Release);
        self.ending.notify_waiters();
    }
}

impl fmt::Debug for SocketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketState").field("stage", &self.stage()).finish_non_exhaustive()
    }
}

/// How far a connection got before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There was no socket.
    Unreachable = 0,
    /// There was a socket, and no byte came.
    Silent = 1,
    /// Bytes came.
    Answered = 2,
    /// The broker accepted the login.
    LoggedIn = 3,
    /// The broker opened the connection, and said who it is.
    Opened = 4,
}

/// Cuts a socket when it is dropped, unless it was told to keep the socket: the future that wanted the
/// connection is gone, or has failed.
#[derive(Debug)]
pub(crate) struct CutOnDrop(Option<Arc<SocketState>>);

impl CutOnDrop {
    pub(crate) fn new(socket: &Arc<SocketState>) -> Self {
        Self(Some(socket.clone()))
    }

    /// There is a connection: the socket is not cut.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            socket.cut();
        }
    }
}
