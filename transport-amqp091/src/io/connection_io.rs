//! What the task, lapin, the session and its senders share of one connection.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use futures_util::task::AtomicWaker;

use super::{output::Output, socket_state::SocketState};
use crate::{
    limits::FRAME_MAX,
    proto::{
        fault::FrameFault,
        inbound::Inbound,
        outbound::{Outbound, OutboundEvent},
    },
    publishing::{channel::PublishChannel, channels::PublishChannels},
};

/// One connection below lapin. The task is the only one that reads and writes the socket; lapin and the senders
/// leave their bytes here, and wake it.
pub(crate) struct ConnectionIo {
    socket: SocketState,
    /// The largest frame that may be written, in bytes; at most [`FRAME_MAX`].
    frame_max: AtomicU32,
    state: Mutex<IoState>,
    /// The task. Each change of `state` for it wakes it, and so does a cut.
    task: AtomicWaker,
}

/// The bytes that came, and the bytes to be written. Never locked across an await, nor while a sender's channel is locked.
pub(super) struct IoState {
    /// From the broker to lapin. The task stops reading while it holds [`READ_AHEAD`] bytes for lapin.
    pub(super) inbound: Inbound,
    /// From lapin to `from_lapin`.
    pub(super) outbound: Outbound,
    /// Whole frames of lapin's. They are written before the next message, so lapin waits for nothing but the socket,
    /// however busy the senders are. lapin's writes wait while it has [`WRITE_AHEAD`] bytes.
    pub(super) from_lapin: BytesMut,
    pub(super) publishing: PublishChannels,
    /// Whole frames and messages that the socket has not taken. Only the task adds to it, and not while it has
    /// [`WRITE_AHEAD`] bytes.
    pub(super) output: Output,
    /// lapin, while it waits for something to read. Woken when there is something, and by the end.
    pub(super) reader: Option<Waker>,
    /// lapin, while it waits for room in `from_lapin`. Woken when there is room, and by the end.
    pub(super) writer: Option<Waker>,
    /// Whether lapin has let go. Then only its last bytes are written, and no message.
    pub(super) released: bool,
    /// How the socket ended; the first end is the one that counts. Then nothing is read or written any more, and all
    /// publishing channels are closed.
    pub(super) end: Option<SocketEnd>,
}

/// How a socket ended.
pub(super) enum SocketEnd {
    /// The broker closed it.
    ClosedByBroker,
    /// It failed. The first call that asks for the error gets it; later calls get a general one.
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
            socket: SocketState::default(),
            frame_max: AtomicU32::new(FRAME_MAX),
            state: Mutex::new(IoState {
                inbound: Inbound::new(max_body),
                outbound: Outbound::default(),
                from_lapin: BytesMut::new(),
                publishing: PublishChannels::default(),
                output: Output::default(),
                reader: None,
                writer: None,
                released: false,
                end: None,
            }),
            task: AtomicWaker::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, IoState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the connection has come.
    pub(crate) fn socket(&self) -> &SocketState {
        &self.socket
    }

    /// Ends the connection at once: lapin sees that its socket failed.
    pub(crate) fn cut(&self) {
        self.socket.cut();
        self.task.wake();
        let mut state = self.lock();
        let lapin = [state.reader.take(), state.writer.take()];
        drop(state);
        lapin.into_iter().flatten().for_each(Waker::wake);
    }

    /// Wakes the task whenever something changes here.
    pub(super) fn register(&self, task: &Waker) {
        self.task.register(task);
    }
}

/// The senders' side.
impl ConnectionIo {
    /// Takes over a channel that lapin has opened and put into confirm mode.
    pub(crate) fn attach(&self, channel: u16) -> Arc<PublishChannel> {
        let channel = Arc::new(PublishChannel::new(channel));
        let mut state = self.lock();
        state.publishing.attach(channel.clone());
        if state.end.is_some() || state.released {
            channel.close();
        }
        channel
    }

    /// A channel has a message to write.
    pub(crate) fn wake(&self) {
        self.task.wake();
    }

    /// The largest frame that may be written, in bytes.
    pub(crate) fn frame_max(&self) -> usize {
        self.frame_max.load(Ordering::Relaxed) as usize
    }
}

/// lapin's side.
impl ConnectionIo {
    /// Reads bytes that the guard let pass.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.socket.check()?;
        let mut state = self.lock();
        let full = state.inbound.ready() >= READ_AHEAD;
        let count = state.inbound.take(buf).map_err(to_io_error)?;
        if count > 0 || buf.is_empty() {
            if full {
                self.task.wake();
            }
            return Poll::Ready(Ok(count));
        }
        match &mut state.end {
            Some(SocketEnd::ClosedByBroker) => Poll::Ready(Ok(0)),
            Some(end) => Poll::Ready(Err(end.error())),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Takes the bytes that lapin writes, all of them or none.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket.check()?;
        let mut state = self.lock();
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let unread = state.inbound.ready() > 0;
        match &mut state.end {
            // The bytes are lost, as they would be in a socket. Those that lapin has not read may say why.
            Some(SocketEnd::ClosedByBroker) => return Poll::Ready(Ok(length)),
            Some(_) if unread => return Poll::Ready(Ok(length)),
            Some(end) => return Poll::Ready(Err(end.error())),
            None => {}
        }
        if state.from_lapin.len() >= WRITE_AHEAD {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let IoState { inbound, outbound, from_lapin, publishing, .. } = &mut *state;
        let mut apply = |event| match event {
            OutboundEvent::FrameMax(0) => {}
            OutboundEvent::FrameMax(max) => {
                self.frame_max.store(max.min(FRAME_MAX), Ordering::Relaxed);
            }
            OutboundEvent::Close(channel) => publishing.close(channel),
            OutboundEvent::CloseOk(channel) => {
                publishing.detach(channel);
                inbound.channel_closed(channel);
            }
            OutboundEvent::Cancel(channel) => inbound.expect_cancel_ok(channel),
        };
        for piece in pieces {
            outbound.take(piece, |frame| from_lapin.extend_from_slice(frame), &mut apply);
        }
        self.task.wake();
        Poll::Ready(Ok(length))
    }

    /// lapin lets go of the socket. The bytes that it wrote are still written.
    pub(crate) fn release(&self) {
        self.lock().released = true;
        self.task.wake();
        self.socket.end();
    }
}

impl fmt::Debug for ConnectionIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionIo").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// The fault of a frame as lapin gets it; [`frame_fault`] finds it again.
fn to_io_error(fault: FrameFault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

/// The fault of a frame in an error of the socket, if that ended the connection.
pub(crate) fn frame_fault(error: &io::Error) -> Option<&FrameFault> {
    error.get_ref()?.downcast_ref()
}

/// How many bytes are read before lapin has taken them.
pub(super) const READ_AHEAD: usize = 64 * 1024;

/// How many bytes are taken from lapin, and as many from senders, before the socket has taken them.
pub(super) const WRITE_AHEAD: usize = 128 * 1024;
