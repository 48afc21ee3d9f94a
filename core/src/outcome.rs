//! What becomes of a delivery, and what is known of its attempts.

use std::fmt;

/// What a program decides about a delivery.
///
/// | outcome | means | AMQP 0-9-1 | counts as an attempt |
/// |---|---|---|---|
/// | `Ack` | done | `basic.ack` | – |
/// | `Requeue` | tried and failed, again soon | `basic.reject(requeue)` | yes |
/// | `Release` | not tried | `basic.nack(requeue)` | no, where the broker can tell |
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
    /// Tried and failed: back to its place in the queue, marked as redelivered.
    Requeue,
    /// Not tried (a shutdown, no room): back to its place in the queue.
    Release,
    /// Never again: to the queue's dead-letter exchange, or removed where there is none.
    Reject,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ack => "ack",
            Self::Requeue => "requeue",
            Self::Release => "release",
            Self::Reject => "reject",
        })
    }
}

/// How often a message was tried, this time included, and how well that is known.
///
/// As an extractor it is an argument of a handler.
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
}

impl Attempt {
    /// The first attempt, or a later one, by the redelivered flag alone.
    pub fn from_flag(redelivered: bool) -> Self {
        Self { number: 1 + u32::from(redelivered), counted: Counted::ByFlag }
    }
}
