//! The socket below lapin: opened here, watched a little, and cut when a deadline says so.
//!
//! lapin opens sockets itself and then neither says who answered, nor lets go of a broker that
//! stays silent or blocks: its thread and its connection live on behind a call that was given up.
//! It writes frames on channels that have closed ([`Outbound`]), and there is much that it cannot read
//! ([`Guard`]).
//! [`lapin::Connection::connector`] takes a socket of ours instead, as long as its type is the one
//! that the runtime names, hence [`Kit`].

use std::{
    cell::RefCell,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use async_rs::{Runtime, Tokio, traits::*, util::Task};
use enoki_socket::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::task::AtomicWaker;
use lapin::AsyncTcpStream;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout_at},
};

use tracing::{
    instrument::WithSubscriber,
    subscriber::{DefaultGuard, NoSubscriber, set_default, with_default},
};

use crate::{
    greeting::Greeting,
    guard::Guard,
    options::Options,
    outbound::{Outbound, Run},
};

/// Opens the socket within the deadline, and a lapin connection over it.
///
/// The caller bounds the handshake: by [`Line::cut`], since dropping this future stops nothing.
pub(crate) async fn open(
    options: &Options,
    line: &Arc<Line>,
    deadline: Instant,
) -> lapin::Result<lapin::Connection> {
    let runtime = Runtime::new(Kit { tokio: Tokio::current() });
    let (connector, max_body, line) = (options.connector.clone(), options.max_body, line.clone());
    let connect = async move |_, _| {
        silence_this_thread();
        let opening = connector.connect(|| line.opened.store(true, Ordering::Release));
        let opened = timeout_at(deadline, opening).await;
        let io = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(AsyncTcpStream::Plain(Watched::new(io, Guard::new(max_body), line.clone())))
    };
    lapin::Connection::connector(options.uri(), runtime, connect, options.properties()).await
}

/// Keeps what lapin logs on its own thread out of the program's log: every returned message with its
/// body (as a warning), and every frame, that with the password among them (as a trace). What it
/// logs there as errors comes to this crate as errors. Its tasks are silenced, too ([`Kit`]).
fn silence_this_thread() {
    thread_local! {
        static SILENCE: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
    }
    SILENCE.with(|silence| {
        silence.borrow_mut().get_or_insert_with(|| set_default(NoSubscriber::default()));
    });
}

/// What both ends of a socket's life share: lapin's thread, which has it, and the session.
#[derive(Default)]
pub(crate) struct Line {
    opened: AtomicBool,
    greeting: OnceLock<Greeting>,
    /// Whether anything came after the greeting.
    answered: AtomicBool,
    cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
    ended: AtomicBool,
    ending: Notify,
}

impl Line {
    /// Ends the connection at once: lapin sees its socket fail.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.reader.wake();
        self.writer.wake();
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
    pub(crate) fn greeting(&self) -> Greeting {
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

    fn check(&self) -> io::Result<()> {
        if self.cut.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the connection was given up on this side",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("stage", &self.stage()).finish_non_exhaustive()
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

/// The socket as lapin sees it.
pub(crate) struct Watched {
    io: Stream,
    line: Arc<Line>,
    guard: Guard,
    outbound: Outbound,
}

impl Watched {
    fn new(io: Stream, guard: Guard, line: Arc<Line>) -> Self {
        Self { io, line, guard, outbound: Outbound::default() }
    }

    /// Tells the session how far the broker went along.
    fn tell(&self) {
        if let (None, Some(greeting)) = (self.line.greeting.get(), self.guard.greeting()) {
            let _ = self.line.greeting.set(greeting.clone());
        }
        if self.guard.answered() {
            self.line.answered.store(true, Ordering::Release);
        }
    }
}

impl Watched {
    /// Writes what is left of these after [`Outbound`] has judged it.
    fn write(&mut self, cx: &mut Context<'_>, bytes: [&[u8]; 2]) -> Poll<io::Result<usize>> {
        self.line.writer.register(cx.waker());
        self.line.check()?;
        let written = match self.outbound.next(bytes) {
            Run::Drop(count) => count,
            Run::Pass(count) => {
                let [first, second] = bytes;
                let first = first.get(..count.min(first.len())).unwrap_or_default();
                let second = second.get(..count - first.len()).unwrap_or_default();
                let io = Pin::new(&mut self.io);
                ready!(match (first, second) {
                    (first, []) => io.poll_write(cx, first),
                    (first, second) => io.poll_write_vectored(
                        cx,
                        &[io::IoSlice::new(first), io::IoSlice::new(second)]
                    ),
                })?
            }
        };
        self.outbound.gone(written);
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.line.reader.register(cx.waker());
        loop {
            this.line.check()?;
            let count = this.guard.take(buf)?;
            if count > 0 || buf.is_empty() {
                return Poll::Ready(Ok(count));
            }
            let mut room = ReadBuf::new(this.guard.room());
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut room))?;
            match room.filled().len() {
                0 => return Poll::Ready(Ok(0)),
                count => this.guard.came(count),
            }
            this.tell();
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, [buf, &[]])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pieces = bufs.iter().map(|piece| &**piece).filter(|piece| !piece.is_empty());
        let pieces = [pieces.next().unwrap_or_default(), pieces.next().unwrap_or_default()];
        self.write(cx, pieces)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.line.ended.store(true, Ordering::Release);
        self.line.ending.notify_waiters();
    }
}

/// Tokio, except that its sockets are [`Watched`], and its tasks log nothing.
#[derive(Clone, Debug)]
pub(crate) struct Kit {
    tokio: Tokio,
}

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, f: F) -> T {
        self.tokio.block_on(f)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        f: F,
    ) -> Task<Self::Task<T>> {
        self.tokio.spawn(f.with_subscriber(NoSubscriber::default()))
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        f: F,
    ) -> Task<Self::Task<T>> {
        self.tokio.spawn_blocking(|| with_default(NoSubscriber::default(), f))
    }
}

impl Reactor for Kit {
    type TcpStream = Watched;
    type Sleep = <Tokio as Reactor>::Sleep;

    #[cfg(unix)]
    fn register<H>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static>
    where
        H: io::Read + io::Write + std::os::fd::AsFd + std::os::fd::AsRawFd + Send + 'static,
    {
        self.tokio.register(socket)
    }

    #[cfg(windows)]
    fn register<H>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static>
    where
        H: io::Read
            + io::Write
            + std::os::windows::io::AsSocket
            + std::os::windows::io::AsRawSocket
            + Send
            + 'static,
    {
        self.tokio.register(socket)
    }

    fn sleep(&self, dur: Duration) -> Self::Sleep {
        self.tokio.sleep(dur)
    }

    fn interval(
        &self,
        dur: Duration,
    ) -> impl futures_util::Stream<Item = std::time::Instant> + Send + 'static {
        self.tokio.interval(dur)
    }

    // An `async fn` would borrow the kit, and this may not.
    #[expect(clippy::manual_async_fn)]
    fn tcp_connect_addr(
        &self,
        addr: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        // lapin never calls it: sockets come from `open`, which knows the line.
        async move {
            let socket = TcpStream::connect(addr).await?;
            Ok(Watched::new(socket.into(), Guard::new(usize::MAX), Arc::default()))
        }
    }
}
