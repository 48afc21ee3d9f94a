//! The runtime that lapin is given: tokio, with [`ClientStream`]s for sockets, and without logs.

use std::{cell::RefCell, io, net::SocketAddr, time::Duration};

use async_rs::{Tokio, traits::*, util::Task};
use futures_io::{AsyncRead, AsyncWrite};
use tracing::{
    instrument::WithSubscriber,
    subscriber::{DefaultGuard, NoSubscriber, set_default, with_default},
};

use super::stream::ClientStream;

/// Tokio, except that its sockets are [`ClientStream`]s, and its tasks log nothing.
#[derive(Clone, Debug)]
pub(super) struct SilentTokio {
    tokio: Tokio,
}

impl SilentTokio {
    /// For the runtime of the caller.
    pub(super) fn current() -> Self {
        Self { tokio: Tokio::current() }
    }
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
    type TcpStream = ClientStream;
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

    // An `async fn` would borrow `self`, which the trait does not allow.
    #[expect(clippy::manual_async_fn)]
    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        // lapin never calls it: `open` gives it a stream.
        async { Err(io::ErrorKind::Unsupported.into()) }
    }
}

/// Keeps the log lines of lapin's own thread out of the program's log. lapin logs each returned message with its body
/// (as a warning), and each frame, among them the one with the password (as a trace). The errors that it logs reach
/// this crate as errors, too.
pub(super) fn silence_this_thread() {
    thread_local! {
        static SILENCE: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
    }
    SILENCE.with(|silence| {
        silence.borrow_mut().get_or_insert_with(|| set_default(NoSubscriber::default()));
    });
}
