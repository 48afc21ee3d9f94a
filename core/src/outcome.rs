//! What becomes of a delivery, and what is known of its attempts.

use std::{fmt, time::Duration};

/// What a program decides about a delivery.
///
/// | outcome | means | AMQP 0-9-1 | counts as an attempt |
/// |---|---|---|---|
/// | `Ack` | done | `basic.ack` | – |
/// | `Requeue` | tried and failed, again soon | `basic.reject(requeue)` | yes |
/// | `Release` | not tried | `basic.nack(requeue)` | no, where the broker can tell |
/// | `RetryAfter` | tried and failed, again later | held, then `basic.reject(requeue)` | yes |
/// | `Reject` | never again: dead-lettered, else removed | `basic.reject` | – |
///
/// A handler may return one, with or without a `Result`:
///
/// ```
/// use enoki_core::{Body, Failure, Handler, Outcome};
///
/// async fn bill(Body(cents): Body<u32>) -> Result<Outcome, Failure> {
///     Ok(if cents == 0 { Outcome::Reject } else { Outcome::Ack })
/// }
///
/// fn is_handler<A>(_: impl Handler<u32, (), A>) {}
/// is_handler(bill);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Done: the queue forgets the message.
    Ack,
    /// Tried and failed: back to its place in the queue, marked as redelivered. In a replicated queue
    /// its place is behind what came back before it, and before what was never delivered.
    Requeue,
    /// Tried and failed: back to the queue after this time, marked as redelivered; where in the queue
    /// is the broker's choice.
    ///
    /// Where the broker can, the message waits there ([`Capability::DelayedRequeue`],
    /// [`Capability::ReplicatedDelayedRequeue`]): other deliveries take its place meanwhile, and the
    /// consumer may stop. Anywhere else this program holds the delivery, unsettled, and requeues it
    /// when the time has come. Nothing is lost and it counts as an attempt all the same, but
    ///
    /// - it counts towards the prefetch as long as it is held;
    /// - it comes back sooner when the consumer stops or its connection ends;
    /// - a broker that does not wait so long for a settlement ends the consumer. RabbitMQ waits for
    ///   half an hour, unless told otherwise.
    ///
    /// No time is `Requeue`; more than [`Outcome::LONGEST_DELAY`] is that.
    ///
    /// [`Capability::DelayedRequeue`]: crate::Capability::DelayedRequeue
    /// [`Capability::ReplicatedDelayedRequeue`]: crate::Capability::ReplicatedDelayedRequeue
    RetryAfter(Duration),
    /// Not tried (a shutdown, no room): back to its place in the queue, as with `Requeue`.
    Release,
    /// Never again: to the queue's dead-letter exchange, or removed where there is none.
    Reject,
}

impl Outcome {
    /// The longest delay of [`Outcome::RetryAfter`]: 30 days.
    ///
    /// RabbitMQ 4.3 counts to 49.7 days, and one message beyond that ends its whole queue.
    pub const LONGEST_DELAY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// The same outcome with a delay that brokers can keep: none is `Requeue`, and none is longer than
    /// [`LONGEST_DELAY`](Self::LONGEST_DELAY).
    pub(crate) fn normalized(self) -> Self {
        match self {
            Self::RetryAfter(Duration::ZERO) => Self::Requeue,
            Self::RetryAfter(delay) => Self::RetryAfter(delay.min(Self::LONGEST_DELAY)),
            other => other,
        }
    }

    /// What the broker has to do with the delivery.
    ///
    /// Transports know dispositions and no outcomes, so an outcome that is added here is settled by every
    /// transport.
    pub fn disposition(self) -> Disposition {
        match self.normalized() {
            Self::Ack => Disposition::Accept,
            Self::Requeue => Disposition::Return { counted: true, after: None },
            Self::RetryAfter(delay) => Disposition::Return { counted: true, after: Some(delay) },
            Self::Release => Disposition::Return { counted: false, after: None },
            Self::Reject => Disposition::Reject,
        }
    }
}

/// What a broker does with a delivery: each [`Outcome`] comes to one of these.
///
/// For transports, which match on it without a `_`. It is exhaustive on purpose: when a disposition is
/// added, a transport that does not say it does not compile.
///
/// ```
/// use enoki_core::{Disposition, Outcome};
///
/// let released = Outcome::Release.disposition();
/// assert_eq!(released, Disposition::Return { counted: false, after: None });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The queue forgets the message.
    Accept,
    /// The message goes back to the queue.
    Return {
        /// Whether this delivery counts as an attempt, where the broker can tell.
        counted: bool,
        /// How long the broker keeps the message before it delivers it again. Only a receiver that
        /// [delays](crate::transport::Receiver::delays) gets a time here; it is at most
        /// [`Outcome::LONGEST_DELAY`].
        after: Option<Duration>,
    },
    /// The message goes to the queue's dead-letter exchange, or is removed where there is none.
    Reject,
}

impl From<Outcome> for Disposition {
    fn from(outcome: Outcome) -> Self {
        outcome.disposition()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ack => f.write_str("ack"),
            Self::Requeue => f.write_str("requeue"),
            Self::RetryAfter(delay) => write!(f, "retry after {delay:?}"),
            Self::Release => f.write_str("release"),
            Self::Reject => f.write_str("reject"),
        }
    }
}

/// How often a message was tried, this time included, and how well that is known.
///
/// As an extractor it is an argument of a handler. Exhaustive: transports and tests of handlers make one of
/// its fields.
///
/// ```
/// use enoki_core::{Attempt, Counted};
///
/// let again = Attempt::from_flag(true);
/// assert_eq!((again.number, again.counted), (2, Counted::ByFlag));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Which attempt this is, from 1.
    pub number: u32,
    /// Where the number comes from.
    pub counted: Counted,
}

/// Where the number of an [`Attempt`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Counted {
    /// The broker counts deliveries, or failures, of each message.
    ByBroker,
    /// The broker only marks what was delivered before: 2 means two or more.
    ByFlag,
    /// The toolkit counts failures of each message, in a header of the copy that it publishes for the next
    /// attempt: see [`OnError::retry`](crate::OnError::retry).
    ByToolkit,
}

impl Attempt {
    /// The first attempt, or a later one, by the redelivered flag alone.
    pub fn from_flag(redelivered: bool) -> Self {
        Self { number: 1 + u32::from(redelivered), counted: Counted::ByFlag }
    }
}
