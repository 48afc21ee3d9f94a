//! The way from fe2o3-amqp to the socket: frames are gathered, changed, and written together.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use enoki_amqp::Stream;
use tokio::io::AsyncWrite;

use crate::{
    limits::CHUNK,
    proto::{fault::Fault, frame, login, outbound::Outbound},
};

/// Gathers what fe2o3-amqp writes, and writes it to the socket.
///
/// A byte is in `begun`, then in `gathered`, then in the socket. Between two calls `begun` holds less than
/// one frame, and `gathered` holds whole frames, of which the first may have been written in part.
#[derive(Debug, Default)]
pub(super) struct WriteHalf {
    /// The beginning of a frame whose rest fe2o3-amqp has not written yet.
    begun: Vec<u8>,
    /// Whole frames for the broker. At most [`FULL`] and one write of fe2o3-amqp's.
    gathered: Vec<u8>,
    /// Whether the socket may hold bytes that it has not sent: TLS has a buffer of its own.
    unflushed: bool,
    /// Whether fe2o3-amqp has asked for something to read, and written nothing since. It is then about to
    /// wait.
    is_idle: bool,
    outbound: Outbound,
}

impl WriteHalf {
    /// Takes bytes from fe2o3-amqp, and gathers the frames that are whole. Once the login by certificate is
    /// chosen, `is_logging_in` becomes false.
    pub(super) fn gather(&mut self, bytes: &[u8], is_logging_in: &mut bool) -> Result<(), Fault> {
        self.is_idle = false;
        self.begun.extend_from_slice(bytes);
        let mut from = 0;
        loop {
            let rest = self.begun.get(from..).unwrap_or_default();
            // fe2o3-amqp knows the broker's limit for frames, and keeps to it.
            let Some(length) = frame::length(rest, usize::MAX)? else { break };
            let Some(whole) = rest.get(..length) else { break };
            if *is_logging_in && login::is_choice(whole) {
                self.gathered.extend_from_slice(login::EXTERNAL);
                *is_logging_in = false;
            } else {
                self.outbound.pass(whole, &mut self.gathered);
            }
            from += length;
        }
        self.begun.drain(..from);
        Ok(())
    }

    /// Where a frame of this side's own goes.
    pub(super) fn gathered(&mut self) -> &mut Vec<u8> {
        &mut self.gathered
    }

    /// Makes room before fe2o3-amqp writes more. Pending means that the broker reads too slowly.
    pub(super) fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Stream,
    ) -> Poll<io::Result<()>> {
        if self.gathered.len() < CHUNK {
            return Poll::Ready(Ok(()));
        }
        match self.poll_write_out(cx, socket) {
            Poll::Pending if self.gathered.len() < FULL => Poll::Ready(Ok(())),
            other => other,
        }
    }

    /// Writes what has gathered if fe2o3-amqp is about to wait: called when it asks for something to read. It
    /// may have more to write a moment later, so its task is woken once more first.
    pub(super) fn poll_before_wait(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Stream,
    ) -> io::Result<()> {
        if self.gathered.is_empty() && !self.unflushed {
            return Ok(());
        }
        if self.is_idle || self.unflushed || self.gathered.len() >= CHUNK {
            if let Poll::Ready(Err(error)) = self.poll_write_out(cx, socket) {
                return Err(error);
            }
        } else {
            self.is_idle = true;
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Writes what has gathered. Ready means that nothing is left, in the socket neither.
    pub(super) fn poll_write_out(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Stream,
    ) -> Poll<io::Result<()>> {
        let mut written = 0;
        let outcome = loop {
            let rest = self.gathered.get(written..).unwrap_or_default();
            if rest.is_empty() {
                let flushed = Pin::new(&mut *socket).poll_flush(cx);
                self.unflushed = flushed.is_pending();
                break flushed;
            }
            match Pin::new(&mut *socket).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.gathered.drain(..written);
        outcome
    }
}

/// How many bytes may wait for a broker that reads more slowly than this side writes.
const FULL: usize = 512 * 1024;
