//! One connection to the broker, from its beginning to its end.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use enoki_core::{
    Error, Peer, Result,
    transport::{Change, Found, Receiver, ReceiverOptions, Sender, SenderOptions, Session},
};
use tokio::{sync::Notify, time::Instant};

use crate::{
    broker::{Broker, SessionKey},
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
    signal: Arc<Signal>,
    peer: Peer,
}

impl MemorySession {
    pub(crate) fn open(broker: Arc<Broker>) -> Self {
        let signal = Arc::new(Signal::default());
        let key = broker.with(|state, _| state.open_session(Arc::clone(&signal)));
        let version = broker.version();
        let peer = Peer::new(
            "enoki memory broker",
            format!("{}, as {version}", env!("CARGO_PKG_VERSION")),
            version.behaviour().capabilities(),
        );
        Self { broker, key, signal, peer }
    }

    fn check(&self, operation: &'static str) -> Result<()> {
        self.signal.check(operation)
    }

    fn end(&self) {
        let ended =
            self.broker.with(|state, now| state.end_sessions(&[self.key], Ending::Closed, now));
        ended.iter().for_each(|signal| signal.announce());
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
        let (broker, signal) = (Arc::clone(&self.broker), Arc::clone(&self.signal));
        Ok(Box::new(MemorySender::new(broker, signal, options.window)))
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
        error::ended("stay connected", self.signal.ended().await)
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

/// Tells everybody who has to know that a session has ended, and how.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    ending: OnceLock<Ending>,
    announced: Notify,
}

impl Signal {
    /// Ends it; the first ending counts.
    pub(crate) fn end(&self, ending: Ending) {
        // An ending that is set already stays.
        let _ = self.ending.set(ending);
    }

    /// Wakes those who wait for the end.
    pub(crate) fn announce(&self) {
        self.announced.notify_waiters();
    }

    pub(crate) fn check(&self, operation: &'static str) -> Result<()> {
        match self.ending.get() {
            None => Ok(()),
            Some(ending) => Err(error::ended(operation, *ending)),
        }
    }

    pub(crate) async fn ended(&self) -> Ending {
        loop {
            // Listening begins here, before looking, so that no end falls in between.
            let announced = self.announced.notified();
            if let Some(ending) = self.ending.get() {
                return *ending;
            }
            announced.await;
        }
    }
}
