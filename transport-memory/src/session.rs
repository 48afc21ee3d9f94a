//! One connection to the broker, from its beginning to its end.

use std::sync::Arc;

use async_trait::async_trait;
use enoki_core::{
    Error, Peer, Result,
    transport::{Change, Found, Receiver, ReceiverOptions, Sender, SenderOptions, Session},
};
use tokio::{sync::Notify, time::Instant};

use crate::{
    broker::{Broker, SessionKey},
    connection::Connection,
    error::{self, Ending},
    receiver::MemoryReceiver,
    sender::MemorySender,
    topology,
};

/// Ends when it is closed, when the last handle to it is dropped, or when
/// [`MemoryTransport::drop_connections`](crate::MemoryTransport::drop_connections) says so.
#[derive(Debug)]
pub(crate) struct MemorySession {
    broker: Arc<Broker>,
    key: SessionKey,
    connection: Arc<Connection>,
    peer: Peer,
}

impl MemorySession {
    pub(crate) fn open(broker: Arc<Broker>) -> Self {
        let connection = Arc::new(Connection::default());
        let key = broker.with(|state, _| state.open_session(Arc::clone(&connection)));
        let version = broker.version();
        let peer = Peer::new(
            "enoki memory broker",
            format!("{}, as {version}", env!("CARGO_PKG_VERSION")),
            version.behaviour().capabilities(),
        );
        Self { broker, key, connection, peer }
    }

    fn check(&self, operation: &'static str) -> Result<()> {
        self.connection.check(operation)
    }

    fn end(&self) {
        let ended =
            self.broker.with(|state, now| state.end_sessions(&[self.key], Ending::Closed, now));
        ended.iter().for_each(|connection| connection.announce());
    }
}

#[async_trait]
impl Session for MemorySession {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    async fn apply(&self, change: &Change) -> Result<Found> {
        // Whether the session lives is asked under the lock that ends it.
        self.broker.with(|state, now| {
            self.check("change the topology")?;
            topology::apply(state, self.key, change, now)
        })
    }

    async fn sender(&self, options: SenderOptions) -> Result<Box<dyn Sender>> {
        self.check("open a sender")?;
        let (broker, connection) = (Arc::clone(&self.broker), Arc::clone(&self.connection));
        Ok(Box::new(MemorySender::new(broker, connection, options.window)))
    }

    async fn receiver(&self, options: ReceiverOptions) -> Result<Box<dyn Receiver>> {
        options.refuse_arguments(&self.peer)?;
        // Consumers have no names here: no operator looks at them.
        let ReceiverOptions { queue, prefetch, .. } = options;
        let waker = Arc::new(Notify::new());
        let consumer = self.broker.with(|state, now| {
            self.check("consume")?;
            state.consume(self.key, &queue, prefetch.get().into(), Arc::clone(&waker), now)
        })?;
        let broker = Arc::clone(&self.broker);
        Ok(Box::new(MemoryReceiver::new(broker, consumer, queue, waker)))
    }

    async fn ended(&self) -> Error {
        error::ended("stay connected", self.connection.ended().await)
    }

    async fn close(&self, _deadline: Instant) {
        self.end();
    }
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        self.end();
    }
}
