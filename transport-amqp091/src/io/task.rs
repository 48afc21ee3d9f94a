//! The task that owns the socket: the only one that reads and writes it.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};

use super::{
    connection_io::{ConnectionIo, IoState, READ_AHEAD, SocketEnd, WRITE_AHEAD},
    liveness::Liveness,
};
use crate::proto::frame::HEARTBEAT_FRAME;

/// Reads and writes until lapin lets go of the connection, the connection is cut, or the socket ends.
pub(crate) async fn run(socket: impl AsyncRead + AsyncWrite + Unpin, io: Arc<ConnectionIo>) {
    let mut task = Task { socket, io, unflushed: false, liveness: Liveness::new() };
    poll_fn(|cx| task.poll(cx)).await;
    // lapin has let go, and its last bytes may be `connection.close`.
    let _ = timeout(LAST_WRITES, poll_fn(|cx| task.poll_close(cx))).await;
}

struct Task<S> {
    socket: S,
    io: Arc<ConnectionIo>,
    /// Whether the socket may hold back bytes that were written to it.
    unflushed: bool,
    liveness: Liveness,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Task<S> {
    /// Ready when the socket has ended, or lapin has let go of it.
    ///
    /// Pending only if both reading and writing are: each then waits for the socket, or for a change in
    /// `ConnectionIo`, which wakes this task.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // First, so that each change from here on wakes again.
        self.io.register(cx.waker());
        loop {
            if let Err(error) = self.io.socket().check() {
                self.end(SocketEnd::Failed(Some(error)));
            }
            let read = self.poll_read(cx);
            let written = self.poll_write(cx);
            let state = self.io.lock();
            if state.released || state.end.is_some() {
                return Poll::Ready(());
            }
            drop(state);
            if read.is_pending() && written.is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.io.lock();
        let IoState { inbound, publishing, reader, end, .. } = &mut *state;
        if end.is_some() || inbound.has_failed() || inbound.ready() >= READ_AHEAD {
            return Poll::Pending;
        }
        let mut room = ReadBuf::new(inbound.room());
        let result = std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, &mut room));
        let count = room.filled().len();
        let ended = match result {
            Ok(()) if count == 0 => Some(SocketEnd::ClosedByBroker),
            Ok(()) => None,
            Err(error) => Some(SocketEnd::Failed(Some(error))),
        };
        if let Some(ended) = ended {
            drop(state);
            self.end(ended);
            return Poll::Ready(());
        }
        inbound.filled(count);
        let (mut events, mut left_out) = (false, false);
        while let Some(event) = inbound.next_event() {
            events = true;
            left_out |= event.is_left_out();
            publishing.apply(event);
        }
        if events {
            publishing.wake_senders();
        }
        if self.liveness.received(left_out, inbound.ready() > 0) {
            inbound.insert(&HEARTBEAT_FRAME);
        }
        if let Some(properties) = inbound.peer_properties() {
            self.io.socket().greeted(properties);
        }
        if inbound.answered() {
            self.io.socket().answered();
        }
        let lapin = match inbound.ready() > 0 || inbound.has_failed() {
            true => reader.take(),
            false => None,
        };
        drop(state);
        lapin.into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let io = self.io.clone();
        let mut state = io.lock();
        if state.end.is_some() {
            return Poll::Pending;
        }
        self.fill(&mut state);
        let lapin = match state.from_lapin.len() < WRITE_AHEAD {
            true => state.writer.take(),
            false => None,
        };
        let written = self.poll_socket(cx, state);
        lapin.into_iter().for_each(Waker::wake);
        written
    }

    /// Takes the bytes of lapin, and then messages from the publishing channels in turn, as many as are written at
    /// a time.
    fn fill(&self, state: &mut IoState) {
        let IoState { from_lapin, publishing, output, released, .. } = state;
        let Some(room) = WRITE_AHEAD.checked_sub(output.len()).filter(|room| *room > 0) else {
            return;
        };
        // The bytes of lapin take no room from the senders.
        output.append(from_lapin);
        from_lapin.clear();
        if *released {
            return;
        }
        let frame_max = self.io.frame_max();
        publishing.take_turns(room, |channel, message| {
            output.append_message(channel, &message.head, &message.body, frame_max)
        });
    }

    /// Writes the output, as much as the socket takes.
    fn poll_socket(
        &mut self,
        cx: &mut Context<'_>,
        mut state: MutexGuard<'_, IoState>,
    ) -> Poll<()> {
        if state.output.is_empty() {
            return self.poll_flush(cx);
        }
        let mut slices = [IoSlice::new(&[]); PIECES];
        let count = state.output.slices(&mut slices);
        let socket = Pin::new(&mut self.socket);
        let result = match slices.get(..count).unwrap_or_default() {
            [only] => socket.poll_write(cx, only),
            several => socket.poll_write_vectored(cx, several),
        };
        match result {
            Poll::Ready(Ok(count)) => {
                state.output.written(count);
                self.unflushed = true;
            }
            Poll::Ready(Err(error)) => {
                drop(state);
                // The last frames of the broker may say why it closed the connection.
                while self.poll_read(cx).is_ready() {}
                self.end(SocketEnd::Failed(Some(error)));
            }
            Poll::Pending => return self.poll_flush(cx),
        }
        Poll::Ready(())
    }

    /// Always pending: a flush makes no room for more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unflushed && Pin::new(&mut self.socket).poll_flush(cx).is_ready() {
            self.unflushed = false;
        }
        Poll::Pending
    }

    /// Writes the rest, and closes the socket.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.register(cx.waker());
        self.io.socket().check()?;
        while self.poll_write(cx).is_ready() {}
        let state = self.io.lock();
        if state.end.is_some() {
            return Poll::Ready(Ok(()));
        }
        if !state.output.is_empty() {
            return Poll::Pending;
        }
        drop(state);
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl<S> Task<S> {
    /// The socket has ended; the first end is the one that counts. Tells the senders and lapin.
    fn end(&self, end: SocketEnd) {
        let mut state = self.io.lock();
        state.end.get_or_insert(end);
        state.publishing.close_all();
        let lapin = [state.reader.take(), state.writer.take()];
        drop(state);
        lapin.into_iter().flatten().for_each(Waker::wake);
    }
}

impl<S> Drop for Task<S> {
    /// Also when the runtime ends: lapin waits on a thread of its own.
    fn drop(&mut self) {
        self.end(SocketEnd::Failed(None));
    }
}

/// How many pieces are written by one system call, at most.
const PIECES: usize = 32;

/// How long the last writes of a connection may take.
const LAST_WRITES: Duration = Duration::from_secs(1);
