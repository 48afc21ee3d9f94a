//! One connection to the broker, as the core uses it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use enoki_amqp::Options;
use enoki_core::{
    Error, Peer, Result,
    transport::{Change, Found, Receiver, ReceiverOptions, Sender, SenderOptions, Session},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    connection::{Connection, Ended},
    peer,
    receiver::Amqp091Receiver,
    sender::Amqp091Sender,
    topology,
};

/// One connection to the broker.
pub(crate) struct Amqp091Session {
    connection: Connection,
    peer: Peer,
}

impl Amqp091Session {
    /// Opens a session, within the deadline.
    pub(crate) async fn open(options: Arc<Options>, deadline: Instant) -> Result<Self> {
        let connection = Connection::open(options, deadline).await?;
        Ok(Self { peer: peer::peer(connection.peer_properties()), connection })
    }
}

impl fmt::Debug for Amqp091Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp091Session")
            .field("connection", &self.connection)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Session for Amqp091Session {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    async fn apply(&self, change: &Change) -> Result<Found> {
        topology::apply(&self.connection, change).await
    }

    async fn sender(&self, options: SenderOptions) -> Result<Box<dyn Sender>> {
        Ok(Box::new(Amqp091Sender::open(&self.connection, options).await?))
    }

    async fn receiver(&self, options: ReceiverOptions) -> Result<Box<dyn Receiver>> {
        Ok(Box::new(Amqp091Receiver::open(&self.connection, options).await?))
    }

    fn blocked(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.connection.blocked()
    }

    async fn ended(&self) -> Error {
        let ended = Ended::wait(&mut self.connection.ended()).await;
        ended.error("keep the connection to", self.connection.options().subject())
    }

    async fn close(&self, deadline: Instant) {
        self.connection.close(deadline).await;
    }
}
