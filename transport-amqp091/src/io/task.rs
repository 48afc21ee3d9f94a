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

use super::connection_io::{Line, Over, READ_AHEAD, Traffic, WRITE_AHEAD};

/// Reads and writes until lapin lets go of the line, the line is cut, or the socket ends.
pub(crate) async fn run(socket: impl AsyncRead + AsyncWrite + Unpin, line: Arc<Line>) {
    let mut task = Task { socket, line, unflushed: false, shown: Instant::now(), turn: 0 };
    poll_fn(|cx| task.poll(cx)).await;
    // lapin is gone, and what it wrote last may say goodbye.
    let _ = timeout(LAST_WRITES, poll_fn(|cx| task.poll_close(cx))).await;
}

struct Task<S> {
    socket: S,
    line: Arc<Line>,
    /// Whether the socket may hold back what was written.
    unflushed: bool,
    /// When lapin was last shown that the broker lives.
    shown: Instant,
    /// Which outlet is asked first.
    turn: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Task<S> {
    /// Ready when the socket is of no use any more, or nobody needs it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Whatever changes from here on wakes again.
        self.line.task.register(cx.waker());
        loop {
            if let Err(error) = self.line.check() {
                self.over(Over::Failed(Some(error)));
            }
            let read = self.poll_read(cx);
            let written = self.poll_write(cx);
            let traffic = self.line.lock();
            if traffic.released || traffic.over.is_some() {
                return Poll::Ready(());
            }
            drop(traffic);
            if read.is_pending() && written.is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut traffic = self.line.lock();
        let Traffic { guard, reader, over, .. } = &mut *traffic;
        if over.is_some() || guard.has_failed() || guard.ready() >= READ_AHEAD {
            return Poll::Pending;
        }
        let mut room = ReadBuf::new(guard.room());
        let result = std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, &mut room));
        let count = room.filled().len();
        let ended = match result {
            Ok(()) if count == 0 => Some(Over::HungUp),
            Ok(()) => None,
            Err(error) => Some(Over::Failed(Some(error))),
        };
        if let Some(ended) = ended {
            drop(traffic);
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
        if let (None, Some(greeting)) = (self.line.greeting.get(), guard.greeting()) {
            let _ = self.line.greeting.set(greeting.clone());
        }
        if guard.answered() {
            self.line.answered.store(true, Ordering::Release);
        }
        let lapin = match guard.ready() > 0 || guard.has_failed() {
            true => reader.take(),
            false => None,
        };
        drop(traffic);
        lapin.into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let line = self.line.clone();
        let mut traffic = line.lock();
        if traffic.over.is_some() {
            return Poll::Pending;
        }
        self.fill(&mut traffic);
        let lapin = match traffic.lapin.len() < WRITE_AHEAD {
            true => traffic.writer.take(),
            false => None,
        };
        let written = self.poll_socket(cx, traffic);
        lapin.into_iter().for_each(Waker::wake);
        written
    }

    /// Writes what there is.
    fn poll_socket(
        &mut self,
        cx: &mut Context<'_>,
        mut traffic: MutexGuard<'_, Traffic>,
    ) -> Poll<()> {
        if traffic.output.is_empty() {
            return self.poll_flush(cx);
        }
        let mut slices = [IoSlice::new(&[]); PIECES];
        let count = traffic.output.slices(&mut slices);
        let socket = Pin::new(&mut self.socket);
        let result = match slices.get(..count).unwrap_or_default() {
            [only] => socket.poll_write(cx, only),
            several => socket.poll_write_vectored(cx, several),
        };
        match result {
            Poll::Ready(Ok(count)) => {
                traffic.output.gone(count);
                self.unflushed = true;
            }
            Poll::Ready(Err(error)) => {
                drop(traffic);
                // What the broker said before it hung up may say why.
                while self.poll_read(cx).is_ready() {}
                self.over(Over::Failed(Some(error)));
            }
            Poll::Pending => return self.poll_flush(cx),
        }
        Poll::Ready(())
    }

    /// Takes what lapin wrote, and then messages from the outlets in turn, as many as are written at a time.
    fn fill(&mut self, traffic: &mut Traffic) {
        let Traffic { guard, lapin, output, released, .. } = traffic;
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
        let (frame_max, outlets) = (self.line.frame_max(), guard.outlets());
        let mut without = 0;
        while output.len() < most && without < outlets.len() {
            let Some(outlet) = outlets.get(self.turn) else {
                self.turn = 0;
                continue;
            };
            let before = output.len();
            while output.len() < before + SHARE
                && let Some(message) = outlet.next()
            {
                output.message(outlet.channel(), &message.head, &message.body, frame_max);
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
        self.line.task.register(cx.waker());
        self.line.check()?;
        while self.poll_write(cx).is_ready() {}
        let traffic = self.line.lock();
        if traffic.over.is_some() {
            return Poll::Ready(Ok(()));
        }
        if !traffic.output.is_empty() {
            return Poll::Pending;
        }
        drop(traffic);
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl<S> Task<S> {
    /// The socket is of no use any more, and for a reason: the first is the reason.
    fn over(&self, how: Over) {
        let mut traffic = self.line.lock();
        traffic.over.get_or_insert(how);
        traffic.guard.outlets().iter().for_each(|outlet| {
            outlet.stop();
            outlet.tell();
        });
        let lapin = [traffic.reader.take(), traffic.writer.take()];
        drop(traffic);
        lapin.into_iter().flatten().for_each(Waker::wake);
    }
}

impl<S> Drop for Task<S> {
    /// Also when the runtime ends: lapin waits on a thread of its own.
    fn drop(&mut self) {
        self.over(Over::Failed(None));
    }
}

/// How much an outlet may write before the next one has its turn, and a message of any size.
const SHARE: usize = 16 * 1024;

/// How many pieces are written at a time.
const PIECES: usize = 32;

/// How often lapin is shown that the broker lives, at the most. It gives up after two seconds, where
/// heartbeats come every second.
const SHOW_LIFE: Duration = Duration::from_millis(250);

/// How long the last writes of a connection may take.
const LAST_WRITES: Duration = Duration::from_secs(1);
