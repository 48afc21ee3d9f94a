//! Opens the socket, and then a lapin connection over it.
//!
//! lapin can open sockets itself. Then it does not tell which broker answered, and it keeps its thread and its
//! connection when the call is given up while a broker is silent or blocks. It also writes frames on channels that have
//! closed, cannot read all messages that a broker may send (see `proto/guard.rs`), and publishes slowly. So
//! [`lapin::Connection::connector`] is given a [`ClientStream`], whose type comes from the runtime,
//! [`SilentTokio`].

use std::sync::Arc;

use async_rs::Runtime;
use enoki_amqp::Options;
use enoki_core::transport::spawn;
use lapin::AsyncTcpStream;
use tracing::{instrument::WithSubscriber, subscriber::NoSubscriber};

use super::{
    connection_io::ConnectionIo,
    runtime::{self, SilentTokio},
    stream::ClientStream,
    task,
};
use crate::options::{properties, uri};

/// Opens the socket, and then a lapin connection over it.
///
/// In this order, because lapin starts two tasks before it asks for its socket, and ends neither if it gets none:
/// each connect that a broker refuses would leave them behind.
///
/// The caller limits the time. To give up it calls [`ConnectionIo::cut`]: dropping this future does not stop lapin.
pub(crate) async fn open(
    options: &Options,
    io: &Arc<ConnectionIo>,
) -> lapin::Result<lapin::Connection> {
    let socket = options.connector.connect(|| io.socket().opened()).await?;
    let running = task::run(socket, io.clone()).with_subscriber(NoSubscriber::default());
    spawn("read and write a connection", running, drop);
    let tokio = Runtime::new(SilentTokio::current());
    let io = io.clone();
    // lapin may call it again when the connection has ended; the stream then fails.
    let connect = async move |_, _| {
        runtime::silence_this_thread();
        Ok(AsyncTcpStream::Plain(ClientStream::new(io.clone())))
    };
    lapin::Connection::connector(
        uri(&options.endpoint),
        tokio,
        connect,
        properties(&options.endpoint),
    )
    .await
}
