//! The socket that fe2o3-amqp is given: our own stream, with the real socket below it.
//!
//! Why there is a stream of our own: docs/design/17-amqp10.md and docs/design/12-guard.md. On the way it
//!
//! - ends the connection at a frame that fe2o3-amqp could fail at: `proto/guard.rs`;
//! - wraps incoming messages and unwraps outgoing ones, so that fe2o3-amqp never reads one:
//!   `proto/inbound.rs`, `proto/outbound.rs`;
//! - turns an anonymous login into one by certificate: `proto/login.rs`;
//! - notes who the broker is, and how far it is with the deliveries of a link: `socket_state.rs`,
//!   `link_progress.rs`;
//! - asks a quiet broker for an answer: `liveness.rs`;
//! - writes many frames by one system call: `write_half.rs`.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use enoki_amqp::{Options, Stream, tls_error};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{
    liveness::Liveness,
    read_half::ReadHalf,
    socket_state::{SocketState, Stage},
    write_half::WriteHalf,
};
use crate::{error::CONNECT, options::max_message};

/// The socket as fe2o3-amqp sees it.
///
/// Reading and writing are apart but for one thing: **`poll_read` also writes.** fe2o3-amqp flushes after
/// each frame, so a flush does not mean that it has nothing more to write, and writing at each flush would
/// cost a system call for each message. The last thing that its task does before it waits is to ask for
/// something to read. So `poll_write` gathers, `poll_flush` does nothing, and `poll_read` writes, before it
/// reads. The questions of `liveness` are written there, too, since its timer wakes the same task.
pub(super) struct ClientStream {
    socket: Stream,
    read: ReadHalf,
    write: WriteHalf,
    /// Whether the login is by certificate, and fe2o3-amqp has not chosen it yet. Both halves change frames
    /// while this is so.
    is_logging_in: bool,
    /// Both halves tell it what passes.
    liveness: Liveness,
    /// Wakes fe2o3-amqp's task when `liveness` is due. It is never set later than that; earlier does no harm.
    liveness_timer: Option<Pin<Box<Sleep>>>,
    /// Set once fe2o3-amqp shuts the stream down, and the broker does not take the rest at once.
    closing: Option<Pin<Box<Sleep>>>,
    state: Arc<SocketState>,
}

impl ClientStream {
    pub(super) fn new(socket: Stream, options: &Options, state: &Arc<SocketState>) -> Self {
        Self {
            socket,
            read: ReadHalf::new(max_message(options)),
            write: WriteHalf::default(),
            is_logging_in: options.user().is_none(),
            liveness: Liveness::new(Duration::from_secs(options.endpoint.heartbeat.into())),
            liveness_timer: None,
            closing: None,
            state: state.clone(),
        }
    }

    /// Asks the broker for an answer when that is due. Fails if it did not give the last one.
    fn poll_liveness(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Some(next) = self.liveness.next() {
            let timer = self.liveness_timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
            // A timer that is set too early is left as it is, since resetting it for each frame would cost
            // more.
            if next < timer.deadline() {
                timer.as_mut().reset(next);
            }
            if timer.as_mut().poll(cx).is_pending() {
                break;
            }
            if self.liveness.poll(Instant::now(), self.write.gathered()).is_err() {
                let fault = self.state.give_up(|| UNRESPONSIVE.to_owned());
                return Err(io::Error::new(io::ErrorKind::TimedOut, fault));
            }
            if let Some(next) = self.liveness.next() {
                timer.as_mut().reset(next);
            }
        }
        Ok(())
    }
}

impl AsyncRead for ClientStream {
    /// Reads, after it has written what gathered: [`ClientStream`] says why.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.state.check_cut(cx.waker())?;
        this.poll_liveness(cx)?;
        this.write.poll_before_wait(cx, &mut this.socket)?;
        loop {
            if this.read.hand_out(buf) {
                return Poll::Ready(Ok(()));
            }
            let count = match this.read.poll_fill(cx, &mut this.socket) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => {
                    if let Some(refusal) = tls_error(&error, CONNECT) {
                        this.state.refused(refusal);
                    }
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => return Poll::Pending,
            };
            this.state.reached(Stage::Answered);
            let received =
                this.read.receive(count, this.is_logging_in, &mut this.liveness, &this.state);
            if let Err(fault) = received {
                let fault = this
                    .state
                    .give_up(|| format!("the broker sent bytes that cannot be read: {fault}"));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
            }
        }
    }
}

impl AsyncWrite for ClientStream {
    /// Gathers; `poll_read` writes to the socket, and this does if too much has gathered.
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.state.check_cut(cx.waker())?;
        std::task::ready!(this.write.poll_room(cx, &mut this.socket))?;
        this.liveness.wrote(buf.len());
        this.write
            .gather(buf, &mut this.is_logging_in)
            .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault.into_owned()))?;
        Poll::Ready(Ok(buf.len()))
    }

    /// Does nothing: `poll_read` writes what has gathered.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Writes the rest, unless the connection was cut, and waits at most [`CLOSE_TIMEOUT`] for a broker that
    /// does not read it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.state.is_cut()
            && let Poll::Pending = this.write.poll_write_out(cx, &mut this.socket)
        {
            let closing = this.closing.get_or_insert_with(|| Box::pin(sleep(CLOSE_TIMEOUT)));
            if closing.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        self.state.stream_dropped();
    }
}

const UNRESPONSIVE: &str =
    "the broker sends heartbeats and did not answer: it does not receive what this side sends";

/// How long a broker that reads nothing may delay the end of a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
