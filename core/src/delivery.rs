//! A delivery, which has to be settled, and can be only once.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{mpsc, watch};

use crate::{
    error::{Error, ErrorKind, Result},
    health::ConsumerHealth,
    message::Message,
    message::codec::Codecs,
    message::payload::Payload,
    outcome::{Attempt, Outcome},
    printable::printable,
    short_str::ShortStr,
    transport::{Delivered, Settle},
};

/// A message that the broker handed to this program, until it is settled.
///
/// Settling consumes it, so settling twice does not compile. Dropped, it is requeued. As an extractor it is an
/// argument of a handler, which then settles it itself.
///
/// ```
/// use enoki::{Outcome, WorkQueue, consume::{Delivery, Settled}};
///
/// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// let broker = enoki::connect("memory://delivery").await?;
/// let mut deliveries = broker.subscribe(&BILLING, 1).await?;
/// broker.publisher(&BILLING.route()).await?.publish(&"order 1".to_owned()).await?;
///
/// let first: Option<Delivery> = deliveries.next().await?;
/// drop(first); // not settled: it comes back
/// let again = deliveries.next().await?.expect("a delivery");
/// assert!(again.redelivered());
/// assert_eq!(again.settle(Outcome::Ack), Settled::Queued);
/// # Ok(())
/// # }
/// ```
///
/// A handler has one delivery, so this does not build:
///
/// ```compile_fail,E0080
/// use enoki::{Broker, Service, WorkQueue, consume::Delivery};
///
/// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
///
/// async fn bill(delivery: Delivery, the_same: Delivery) {}
///
/// fn service(broker: Broker) -> Service {
///     Service::new("billing", broker).consume(&BILLING, bill)
/// }
/// # fn main() { let _ = service as fn(Broker) -> Service; }
/// ```
#[must_use = "an unsettled delivery is requeued"]
pub struct Delivery {
    envelope: Envelope,
    undecodable: Option<Arc<str>>,
    codecs: Codecs,
    token: Option<Token>,
}

/// A delivery to look at: the message, and how it came here. As an extractor it is an argument of a
/// handler.
///
/// ```
/// use enoki_core::{Envelope, Handler};
///
/// async fn log(envelope: Envelope) {
///     println!("{} by {}", envelope.message.body.len(), envelope.routing_key);
/// }
///
/// fn is_handler<A>(_: impl Handler<String, (), A>) {}
/// is_handler(log);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Envelope {
    /// The message with its headers and properties.
    pub message: Arc<Message>,
    /// The exchange it was published to; empty for the default exchange.
    pub exchange: ShortStr,
    /// The routing key it was published with.
    pub routing_key: ShortStr,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Which attempt this is.
    pub attempt: Attempt,
}

/// What came of settling a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// On its way to the broker.
    Queued,
    /// The session that delivered it is over, so the broker delivers it again.
    Stale,
}

/// What a program, or the crate for it, decided about one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) tag: u64,
    pub(crate) outcome: Outcome,
}

impl From<Decided> for Settle {
    fn from(Decided { tag, outcome }: Decided) -> Self {
        Self::new(tag, outcome)
    }
}

/// The right to settle one delivery, on the incarnation that delivered it: the channel leads to that
/// receiver and no other, so a stale token cannot settle another receiver's delivery of the same
/// tag.
#[derive(Debug)]
struct Token {
    tag: u64,
    settler: Arc<Settler>,
}

/// The way back to the receiver of a delivery.
#[derive(Debug)]
pub(crate) struct Settler {
    receiver: mpsc::Sender<Decided>,
    health: Arc<watch::Sender<ConsumerHealth>>,
    /// Whether no handler may begin on its deliveries any more.
    revoked: AtomicBool,
}

impl Settler {
    pub(crate) fn new(
        receiver: mpsc::Sender<Decided>,
        health: Arc<watch::Sender<ConsumerHealth>>,
    ) -> Self {
        Self { receiver, health, revoked: AtomicBool::new(false) }
    }

    /// From now on no handler begins on its deliveries. So those that are given back were all behind
    /// those that handlers have begun on: none is overtaken.
    pub(crate) fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }

    /// A way to no receiver.
    pub(crate) fn alone(receiver: mpsc::Sender<Decided>) -> Arc<Self> {
        Arc::new(Self::new(receiver, Arc::new(watch::Sender::new(ConsumerHealth::NEW))))
    }
}

impl Delivery {
    pub(crate) fn new(delivered: Delivered, codecs: Codecs, settler: Arc<Settler>) -> Self {
        let Delivered { tag, message, exchange, routing_key, redelivered, attempt, undecodable } =
            delivered;
        Self {
            envelope: Envelope { message, exchange, routing_key, redelivered, attempt },
            undecodable: undecodable.map(|reason| printable(&*reason).into()),
            codecs,
            token: Some(Token { tag, settler }),
        }
    }

    /// Settles it. Does not wait for the wire; settlements that belong together go together.
    pub fn settle(mut self, outcome: Outcome) -> Settled {
        self.token.take().map_or(Settled::Stale, |token| token.settle(outcome))
    }

    /// Whether it is to go back instead of being handled.
    pub(crate) fn is_revoked(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.settler.revoked.load(Ordering::SeqCst))
    }

    /// Sends it back, unless the broker has it back already. No handler has begun on it, so that is
    /// not counted as stale.
    pub(crate) fn release(mut self) {
        if let Some(Token { tag, settler }) = self.token.take() {
            let _ = settler.receiver.try_send(Decided { tag, outcome: Outcome::Release });
        }
    }

    /// Reads the body as this type, by its content type.
    pub fn decode<M: Payload>(&self) -> Result<M> {
        self.decode_with(&self.codecs)
    }

    pub(crate) fn decode_with<M: Payload>(&self, codecs: &Codecs) -> Result<M> {
        if let Some(reason) = &self.undecodable {
            return Err(
                Error::new(ErrorKind::Codec, "decode a message").because(reason.to_string())
            );
        }
        M::decode(&*codecs.unpack(&self.envelope.message)?, codecs)
    }

    /// The message and how it came here.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    pub(crate) fn envelope_mut(&mut self) -> &mut Envelope {
        &mut self.envelope
    }

    /// The message with its headers and properties.
    pub fn message(&self) -> &Message {
        &self.envelope.message
    }

    /// Which attempt this is.
    pub fn attempt(&self) -> Attempt {
        self.envelope.attempt
    }

    /// Whether it may have been delivered before.
    pub fn redelivered(&self) -> bool {
        self.envelope.redelivered
    }

    /// A copy to look at; the right to settle stays here.
    pub(crate) fn without_token(&self) -> Self {
        Self {
            envelope: self.envelope.clone(),
            undecodable: self.undecodable.clone(),
            codecs: self.codecs.clone(),
            token: None,
        }
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Why it cannot be read, if so.
    pub(crate) fn undecodable(&self) -> Option<&Arc<str>> {
        self.undecodable.as_ref()
    }
}

impl Token {
    fn settle(self, outcome: Outcome) -> Settled {
        let outcome = outcome.normalized();
        // The channel has room for every unsettled delivery, so it is never full, only gone.
        match self.settler.receiver.try_send(Decided { tag: self.tag, outcome }) {
            Ok(()) => Settled::Queued,
            Err(_) => {
                self.settler.health.send_modify(|consumer| consumer.stale += 1);
                tracing::debug!(tag = self.tag, %outcome, "stale: the session that delivered it is over");
                Settled::Stale
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            token.settle(Outcome::Requeue);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("envelope", &self.envelope).finish_non_exhaustive()
    }
}
