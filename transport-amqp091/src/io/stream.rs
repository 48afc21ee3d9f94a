//! The socket below lapin: opened here, and lapin gets an end of the [`ConnectionIo`] in its place.
//!
//! lapin opens sockets itself and then neither says who answered, nor lets go of a broker that
//! stays silent or blocks: its thread and its connection live on behind a call that was given up.
//! It writes frames on channels that have closed, there is much that it cannot read
//! ([`Guard`](crate::proto::guard::Guard)), and publishing through it is slow.
//! [`lapin::Connection::connector`] takes a socket of ours instead, as long as its type is the one
//! that the runtime names, hence [`SilentTokio`].

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_rs::{Runtime, Tokio, traits::*, util::Task};
use enoki_core::transport::spawn;
use futures_io::{AsyncRead, AsyncWrite};
use lapin::AsyncTcpStream;
use tracing::{
    instrument::WithSubscriber,
    subscriber::{DefaultGuard, NoSubscriber, set_default, with_default},
};

use super::{connection_io::ConnectionIo, task};
use crate::options::Options;

/// Opens the socket, and then a lapin connection over it.
///
/// In this order, because lapin starts two tasks before it asks for its socket, and ends none of them if
/// it gets none: each connect that a broker refuses would leave them behind.
///
/// The caller bounds both: what was begun ends with [`ConnectionIo::cut`], since dropping this future does not stop
/// lapin.
pub(crate) async fn open(
    options: &Options,
    io: &Arc<ConnectionIo>,
) -> lapin::Result<lapin::Connection> {
    let socket = options.connector.connect(|| io.opened()).await?;
    let running = task::run(socket, io.clone()).with_subscriber(NoSubscriber::default());
    spawn("read and write a connection", running, drop);
    let runtime = Runtime::new(SilentTokio { tokio: Tokio::current() });
    let io = io.clone();
    // Where lapin calls it again, the connection has ended, and says so.
    let connect = async move |_, _| {
        silence_this_thread();
        Ok(AsyncTcpStream::Plain(Socket(io.clone())))
    };
    lapin::Connection::connector(options.uri(), runtime, connect, options.properties()).await
}

/// Keeps what lapin logs on its own thread out of the program's log: every returned message with its
/// body (as a warning), and every frame, that with the password among them (as a trace). What it
/// logs there as errors comes to this crate as errors. Its tasks are silenced, too ([`SilentTokio`]).
fn silence_this_thread() {
    thread_local! {
        static SILENCE: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
    }
    SILENCE.with(|silence| {
        silence.borrow_mut().get_or_insert_with(|| set_default(NoSubscriber::default()));
    });
}

/// The socket as lapin sees it: its end of the connection.
pub(crate) struct Socket(Arc<ConnectionIo>);

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, bufs)
    }

    /// The connection's task writes whatever there is.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The connection's task closes the socket once it is released.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Tokio, except that its sockets are [`Socket`]s, and its tasks log nothing.
#[derive(Clone, Debug)]
pub(crate) struct SilentTokio {
    tokio: Tokio,
}

impl RuntimeKit for SilentTokio {}

impl Executor for SilentTokio {
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

impl Reactor for SilentTokio {
    type TcpStream = Socket;
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
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        // lapin never calls it: sockets come from `open`, which knows the connection.
        async { Err(io::ErrorKind::Unsupported.into()) }
    }
}
