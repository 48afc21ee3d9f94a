//! A session: one incarnation of the connections to the broker, and everything that is opened on them.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use enoki_amqp::Options;
use enoki_core::{
    Error, Peer, Result,
    transport::{Change, Found, Receiver, ReceiverOptions, Sender, SenderOptions, Session},
};
use futures_util::future::join_all;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    connection::{Ended, set_ended},
    connections::Connections,
    error::Cause,
    receiver::Amqp10Receiver,
    sender::Amqp10Sender,
    topology,
};

/// A session on AMQP 1.0.
pub(crate) struct Amqp10Session {
    connections: Connections,
}

impl Amqp10Session {
    /// Opens a session, within the deadline.
    pub(crate) async fn open(options: Arc<Options>, deadline: Instant) -> Result<Self> {
        Ok(Self { connections: Connections::open(options, deadline).await? })
    }
}

impl fmt::Debug for Amqp10Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp10Session")
            .field("broker", &self.connections.options().subject())
            .field("peer", self.connections.peer())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Session for Amqp10Session {
    fn peer(&self) -> &Peer {
        self.connections.peer()
    }

    async fn apply(&self, change: &Change) -> Result<Found> {
        topology::apply(&self.connections, change).await
    }

    async fn sender(&self, options: SenderOptions) -> Result<Box<dyn Sender>> {
        Ok(Box::new(Amqp10Sender::open(&self.connections, options).await?))
    }

    async fn receiver(&self, options: ReceiverOptions) -> Result<Box<dyn Receiver>> {
        Ok(Box::new(Amqp10Receiver::open(&self.connections, options).await?))
    }

    fn blocked(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.connections.blocked()
    }

    async fn ended(&self) -> Error {
        let mut end_state = self.connections.end_state().subscribe();
        let ended = match end_state.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            Err(_) => None,
        };
        ended
            .unwrap_or_else(|| Ended::Failed(Cause::Lost("the connection ended".to_owned())))
            .error("keep the connection to", self.connections.options().subject())
    }

    async fn close(&self, deadline: Instant) {
        set_ended(self.connections.end_state(), Ended::Closed(deadline));
        let connections = self.connections.all();
        let closing = connections.iter().map(|connection| connection.socket().ended());
        let _ = timeout_at(deadline, join_all(closing)).await;
        connections.iter().for_each(|connection| connection.socket().cut());
    }
}
