//! The task that has the socket: the only one that reads and writes it.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, MutexGuard, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};

use super::connection_io::{ConnectionIo, IoState, READ_AHEAD, SocketEnd, WRITE_AHEAD};

/// Reads and writes until lapin lets go of the connection, the connection is cut, or the socket ends.
pub(crate) async fn run(socket: impl AsyncRead + AsyncWrite + Unpin, io: Arc<ConnectionIo>) {
    let mut task = Task { socket, io, unflushed: false, shown: Instant::now(), turn: 0 };
    poll_fn(|cx| task.poll(cx)).await;
    // lapin is gone, and what it wrote last may say goodbye.
    let _ = timeout(LAST_WRITES, poll_fn(|cx| task.poll_close(cx))).await;
}

struct Task<S> {
    socket: S,
    io: Arc<ConnectionIo>,
    /// Whether the socket may hold back what was written.
    unflushed: bool,
    /// When lapin was last shown that the broker lives.
    shown: Instant,
    /// Which publish_channel is asked first.
    turn: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Task<S> {
    /// Ready when the socket is of no use any more, or nobody needs it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Whatever changes from here on wakes again.
        self.io.task.register(cx.waker());
        loop {
            if let Err(error) = self.io.check() {
                self.over(SocketEnd::Failed(Some(error)));
            }
            let read = self.poll_read(cx);
            let written = self.poll_write(cx);
            let state = self.io.lock();
            if state.released || state.over.is_some() {
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
        let IoState { guard, reader, over, .. } = &mut *state;
        if over.is_some() || guard.has_failed() || guard.ready() >= READ_AHEAD {
            return Poll::Pending;
        }
        let mut room = ReadBuf::new(guard.room());
        let result = std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, &mut room));
        let count = room.filled().len();
        let ended = match result {
            Ok(()) if count == 0 => Some(SocketEnd::ClosedByBroker),
            Ok(()) => None,
            Err(error) => Some(SocketEnd::Failed(Some(error))),
        };
        if let Some(ended) = ended {
            drop(state);
            self.over(ended);
            return Poll::Ready(());
        }
        guard.came(count);
        if guard.ready() > 0 {
            self.shown = Instant::now();
        } else if guard.withheld() && self.shown.elapsed() >= SHOW_LIFE {
            guard.show_life();
            self.shown = Instant::now();
        }
        if let (None, Some(greeting)) = (self.io.greeting.get(), guard.greeting()) {
            let _ = self.io.greeting.set(greeting.clone());
        }
        if guard.answered() {
            self.io.answered.store(true, Ordering::Release);
        }
        let lapin = match guard.ready() > 0 || guard.has_failed() {
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
        if state.over.is_some() {
            return Poll::Pending;
        }
        self.fill(&mut state);
        let lapin = match state.lapin.len() < WRITE_AHEAD {
            true => state.writer.take(),
            false => None,
        };
        let written = self.poll_socket(cx, state);
        lapin.into_iter().for_each(Waker::wake);
        written
    }

    /// Writes what there is.
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
                state.output.gone(count);
                self.unflushed = true;
            }
            Poll::Ready(Err(error)) => {
                drop(state);
                // What the broker said before it hung up may say why.
                while self.poll_read(cx).is_ready() {}
                self.over(SocketEnd::Failed(Some(error)));
            }
            Poll::Pending => return self.poll_flush(cx),
        }
        Poll::Ready(())
    }

    /// Takes what lapin wrote, and then messages from the publish_channels in turn, as many as are written at a time.
    fn fill(&mut self, state: &mut IoState) {
        let IoState { guard, lapin, output, released, .. } = state;
        if output.len() >= WRITE_AHEAD {
            return;
        }
        // What lapin has to say is not at the senders' expense either.
        let most = WRITE_AHEAD + lapin.len();
        output.put(lapin);
        lapin.clear();
        if guard.blocked() || *released {
            return;
        }
        let (frame_max, publish_channels) = (self.io.frame_max(), guard.publish_channels());
        let mut without = 0;
        while output.len() < most && without < publish_channels.len() {
            let Some(publish_channel) = publish_channels.get(self.turn) else {
                self.turn = 0;
                continue;
            };
            let before = output.len();
            while output.len() < before + SHARE
                && let Some(message) = publish_channel.next()
            {
                output.message(publish_channel.channel(), &message.head, &message.body, frame_max);
            }
            without = if output.len() > before { 0 } else { without + 1 };
            self.turn += 1;
        }
    }

    /// Never ready for more: a flush makes no room.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unflushed && Pin::new(&mut self.socket).poll_flush(cx).is_ready() {
            self.unflushed = false;
        }
        Poll::Pending
    }

    /// Writes the rest, and closes the socket.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.task.register(cx.waker());
        self.io.check()?;
        while self.poll_write(cx).is_ready() {}
        let state = self.io.lock();
        if state.over.is_some() {
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
    /// The socket is of no use any more, and for a reason: the first is the reason.
    fn over(&self, how: SocketEnd) {
        let mut state = self.io.lock();
        state.over.get_or_insert(how);
        state.guard.publish_channels().iter().for_each(|publish_channel| {
            publish_channel.stop();
            publish_channel.tell();
        });
        let lapin = [state.reader.take(), state.writer.take()];
        drop(state);
        lapin.into_iter().flatten().for_each(Waker::wake);
    }
}

impl<S> Drop for Task<S> {
    /// Also when the runtime ends: lapin waits on a thread of its own.
    fn drop(&mut self) {
        self.over(SocketEnd::Failed(None));
    }
}

/// How much an publish_channel may write before the next one has its turn, and a message of any size.
const SHARE: usize = 16 * 1024;

/// How many pieces are written at a time.
const PIECES: usize = 32;

/// How often lapin is shown that the broker lives, at the most. It gives up after two seconds, where
/// heartbeats come every second.
const SHOW_LIFE: Duration = Duration::from_millis(250);

/// How long the last writes of a connection may take.
const LAST_WRITES: Duration = Duration::from_secs(1);
