//! Opens the socket, and then a connection of fe2o3-amqp over it.

use std::sync::Arc;

use enoki_amqp::Options;
use fe2o3_amqp::{
    Connection,
    connection::{ConnectionHandle, OpenError},
    types::{
        definitions::Fields,
        primitives::{Symbol, Value},
    },
};

use super::{
    socket_state::{SocketState, Stage},
    stream::ClientStream,
};
use crate::{
    limits::{FRAME_MAX, LAST_CHANNEL},
    options::{container_id, hostname, idle_timeout, login},
    proto::frame::DATA_HEAD,
};

/// Opens the socket, and then a connection of fe2o3-amqp over it.
///
/// The caller limits the time. To give up it calls [`SocketState::cut`]: dropping this future does not stop
/// the tasks that fe2o3-amqp started.
pub(crate) async fn open(
    options: &Options,
    socket: &Arc<SocketState>,
) -> Result<ConnectionHandle<()>, OpenError> {
    let stream = options.connector.connect(|| socket.reached(Stage::Silent)).await?;
    let stream = ClientStream::new(stream, options, socket);
    let endpoint = &options.endpoint;
    let hostname = hostname(endpoint);
    let mut properties = Fields::new();
    for (name, value) in [("product", "enoki"), ("version", env!("CARGO_PKG_VERSION"))] {
        properties.insert(Symbol::from(name), Value::String(value.to_owned()));
    }
    Connection::builder()
        .container_id(container_id(endpoint))
        .hostname(Some(hostname.as_str()))
        .sasl_profile(login(endpoint))
        .max_frame_size((FRAME_MAX + DATA_HEAD) as u32)
        .channel_max(LAST_CHANNEL)
        .idle_time_out(idle_timeout(endpoint))
        .properties(properties)
        .open_with_stream(stream)
        .await
}
