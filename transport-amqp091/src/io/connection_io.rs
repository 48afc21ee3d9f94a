//! One connection below lapin: what its ends share. One task has the socket; lapin reads and writes
//! beside it, and so do the senders.
//!
//! ```text
//!   session, senders ── publish_channels ──┐
//!                                 ├── ConnectionIo ── task ── socket
//!   lapin ───── Socket ───────────┘
//! ```

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::output::Output;
use crate::{
    proto::{
        guard::{FRAME_MAX, Guard},
        outbound::{Outbound, OutboundEvent},
        peer_properties::PeerProperties,
    },
    publishing::channel::PublishChannel,
};

/// What both ends of a socket's life share: the task that has it, lapin, the session and its senders.
pub(crate) struct ConnectionIo {
    pub(super) opened: AtomicBool,
    pub(super) greeting: OnceLock<PeerProperties>,
    /// Whether anything came after the greeting.
    pub(super) answered: AtomicBool,
    pub(super) cut: AtomicBool,
    /// How large the frames may be that are written.
    pub(super) frame_max: AtomicU32,
    pub(super) state: Mutex<IoState>,
    /// The task that has the socket.
    pub(super) task: AtomicWaker,
    pub(super) ended: AtomicBool,
    pub(super) ending: Notify,
}

/// What came, and what is to be written.
pub(super) struct IoState {
    pub(super) guard: Guard,
    pub(super) outbound: Outbound,
    /// Whole frames that lapin wrote. They go before the next message, so lapin waits for nothing but the
    /// socket, however busy the senders are.
    pub(super) lapin: BytesMut,
    pub(super) output: Output,
    /// lapin, when it waits for something to read.
    pub(super) reader: Option<Waker>,
    /// lapin, when it waits for room to write.
    pub(super) writer: Option<Waker>,
    /// Whether lapin has let go.
    pub(super) released: bool,
    /// How the socket ended.
    pub(super) over: Option<SocketEnd>,
}

/// How a socket ended.
pub(super) enum SocketEnd {
    /// The broker hung up.
    ClosedByBroker,
    /// It failed, for this reason; whoever asks first gets it.
    Failed(Option<io::Error>),
}

impl SocketEnd {
    fn error(&mut self) -> io::Error {
        let error = match self {
            Self::ClosedByBroker => None,
            Self::Failed(error) => error.take(),
        };
        error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
    }
}

impl ConnectionIo {
    pub(crate) fn new(max_body: usize) -> Self {
        Self {
            opened: AtomicBool::new(false),
            greeting: OnceLock::new(),
            answered: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            frame_max: AtomicU32::new(FRAME_MAX),
            state: Mutex::new(IoState {
                guard: Guard::new(max_body),
                outbound: Outbound::default(),
                lapin: BytesMut::new(),
                output: Output::default(),
                reader: None,
                writer: None,
                released: false,
                over: None,
            }),
            task: AtomicWaker::new(),
            ended: AtomicBool::new(false),
            ending: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, IoState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a socket.
    pub(crate) fn opened(&self) {
        self.opened.store(true, Ordering::Release);
    }

    /// Ends the connection at once: lapin sees its socket fail.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.task.wake();
        let mut state = self.lock();
        let lapin = [state.reader.take(), state.writer.take()];
        drop(state);
        lapin.into_iter().flatten().for_each(Waker::wake);
    }

    /// Waits until lapin has let go of the socket, for whatever reason, a panic among them.
    pub(crate) async fn ended(&self) {
        let ending = self.ending.notified();
        tokio::pin!(ending);
        // Asked for before the look at the flag, so that no end falls in between.
        ending.as_mut().enable();
        if !self.ended.load(Ordering::Acquire) {
            ending.await;
        }
    }

    /// Who the broker said it is.
    pub(crate) fn greeting(&self) -> PeerProperties {
        self.greeting.get().cloned().unwrap_or_default()
    }

    /// How far the broker went along.
    pub(crate) fn stage(&self) -> Stage {
        if !self.opened.load(Ordering::Acquire) {
            Stage::Unreachable
        } else if self.greeting.get().is_none() {
            Stage::Silent
        } else if !self.answered.load(Ordering::Acquire) {
            Stage::Greeted
        } else {
            Stage::Answered
        }
    }

    pub(super) fn check(&self) -> io::Result<()> {
        if self.cut.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the connection was given up on this side",
            ));
        }
        Ok(())
    }
}

/// The senders' side.
impl ConnectionIo {
    /// Takes over a channel that lapin has opened and put into confirm mode.
    pub(crate) fn attach(&self, channel: u16) -> Arc<PublishChannel> {
        let publish_channel = Arc::new(PublishChannel::new(channel));
        let mut state = self.lock();
        state.guard.attach(publish_channel.clone());
        if state.over.is_some() || state.released {
            publish_channel.stop();
        }
        publish_channel
    }

    /// There is something to write.
    pub(crate) fn wake(&self) {
        self.task.wake();
    }

    /// How large the frames may be that are written.
    pub(crate) fn frame_max(&self) -> usize {
        self.frame_max.load(Ordering::Relaxed) as usize
    }
}

/// lapin's side.
impl ConnectionIo {
    /// Reads what the guard lets through.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let mut state = self.lock();
        let full = state.guard.ready() >= READ_AHEAD;
        let count = state.guard.take(buf)?;
        if count > 0 || buf.is_empty() {
            if full {
                self.task.wake();
            }
            return Poll::Ready(Ok(count));
        }
        match &mut state.over {
            Some(SocketEnd::ClosedByBroker) => Poll::Ready(Ok(0)),
            Some(over) => Poll::Ready(Err(over.error())),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Takes what lapin writes, all of it or nothing.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let mut state = self.lock();
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let unread = state.guard.ready() > 0;
        match &mut state.over {
            // It is lost, as it would be in a socket. What is left to read may say why.
            Some(SocketEnd::ClosedByBroker) => return Poll::Ready(Ok(length)),
            Some(_) if unread => return Poll::Ready(Ok(length)),
            Some(over) => return Poll::Ready(Err(over.error())),
            None => {}
        }
        if state.lapin.len() >= WRITE_AHEAD {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let IoState { guard, outbound, lapin, .. } = &mut *state;
        let mut said = |said| match said {
            OutboundEvent::FrameMax(0) => {}
            OutboundEvent::FrameMax(max) => {
                self.frame_max.store(max.min(FRAME_MAX), Ordering::Relaxed)
            }
            OutboundEvent::Close(channel) => {
                if let Some(publish_channel) = guard.publish_channel(channel) {
                    publish_channel.stop();
                    publish_channel.tell();
                }
            }
            OutboundEvent::CloseOk(channel) => guard.detach(channel),
            OutboundEvent::Cancel(channel) => guard.cancels(channel),
        };
        for piece in pieces {
            outbound.take(piece, |frame| lapin.extend_from_slice(frame), &mut said);
        }
        self.task.wake();
        Poll::Ready(Ok(length))
    }

    /// lapin lets go of the socket. What it wrote is still on its way.
    pub(crate) fn release(&self) {
        self.lock().released = true;
        self.task.wake();
        self.ended.store(true, Ordering::Release);
        self.ending.notify_waiters();
    }
}

impl fmt::Debug for ConnectionIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionIo").field("stage", &self.stage()).finish_non_exhaustive()
    }
}

/// How far a broker went along before a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No socket.
    Unreachable,
    /// A socket, and no greeting.
    Silent,
    /// A greeting, and no answer to the login.
    Greeted,
    /// An answer to the login.
    Answered,
}

/// How much is read before lapin has taken it.
pub(super) const READ_AHEAD: usize = 64 * 1024;

/// How much is taken from lapin, and as much from senders, before the socket has.
pub(super) const WRITE_AHEAD: usize = 128 * 1024;
