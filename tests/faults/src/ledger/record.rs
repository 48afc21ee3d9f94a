//! What is written down of each message and each fault.

use std::time::Duration;

use tokio::time::Instant;

use super::Number;

/// What should become of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expect {
    /// It gets to its queue, and stays there until it is handled.
    #[default]
    Handled,
    /// It gets to its queue, and may go with it: it is transient, or the queue will be deleted.
    Perishable,
    /// No queue is bound for it.
    Unroutable,
    /// The queue has no room for it.
    Refused,
}

/// What the publisher was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is stored.
    Confirmed,
    /// It is stored nowhere: no queue is bound for it.
    Unroutable,
    /// It is stored nowhere: the broker, or the toolkit, refused it.
    Refused,
    /// It is stored nowhere: it never left this process.
    NotSent,
    /// It may or may not be stored.
    Indeterminate,
}

impl Answer {
    /// What the outcome of a publish says.
    pub fn of<T>(outcome: &enoki::Result<T>) -> Self {
        let Err(error) = outcome else { return Self::Confirmed };
        match error.kind() {
            enoki::ErrorKind::Unroutable => Self::Unroutable,
            enoki::ErrorKind::Indeterminate => Self::Indeterminate,
            enoki::ErrorKind::Connection | enoki::ErrorKind::Timeout | enoki::ErrorKind::Closed => {
                Self::NotSent
            }
            _ => Self::Refused,
        }
    }

    pub(super) fn is_stored_nowhere(self) -> bool {
        matches!(self, Self::Unroutable | Self::Refused | Self::NotSent)
    }
}

/// What a delivery says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Whether it is marked as one that may have been delivered before.
    pub redelivered: bool,
    /// Which attempt it is.
    pub attempt: u32,
}

/// How a delivery was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Done.
    Acked,
    /// Back to the queue.
    Returned,
    /// Never again.
    Rejected,
    /// Not at all: the session that delivered it was over, or the handler was ended.
    Lost,
}

#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) expect: Expect,
    pub(super) path: Option<usize>,
    pub(super) attempted: u64,
    pub(super) answered: Option<(u64, Answer)>,
    pub(super) deliveries: Vec<Delivered>,
    /// When it first came, and after which later message of its path, if that was so.
    pub(super) came_late: Option<(u64, Number)>,
    pub(super) dead_lettered: u64,
}

#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) at: u64,
    pub(super) arrival: Arrival,
    pub(super) settled: Option<Settled>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Settled {
    pub(super) at: u64,
    pub(super) time: Instant,
    pub(super) how: How,
}

impl Record {
    pub(super) fn is_confirmed(&self) -> bool {
        matches!(self.answered, Some((_, Answer::Confirmed)))
    }

    pub(super) fn is_missing(&self) -> bool {
        self.is_confirmed()
            && self.expect == Expect::Handled
            && self.deliveries.is_empty()
            && self.dead_lettered == 0
    }
}

/// A path that keeps its order.
#[derive(Debug, Default)]
pub(super) struct OrderedPath {
    last: Option<Number>,
}

impl OrderedPath {
    /// The later message that came before this first delivery, if there is one.
    pub(super) fn overtaken_by(&mut self, number: Number) -> Option<Number> {
        let later = self.last.filter(|last| *last > number);
        self.last = self.last.max(Some(number));
        later
    }
}

#[derive(Debug)]
pub(super) struct Fault {
    pub(super) name: String,
    pub(super) at_message: Number,
    pub(super) began: u64,
    /// What a broker has forgotten that was killed.
    pub(super) forgot: Option<Forgot>,
    pub(super) healed: Option<u64>,
    pub(super) outstanding: u64,
    pub(super) in_flight: u64,
    /// How many connections were lost to it: for publishing, for consuming.
    pub(super) lost: (u64, u64),
    /// The most that was outstanding between its beginning and its end.
    pub(super) peak_outstanding: u64,
}

impl Fault {
    /// Whether it may have hit something that went on from one event to the other.
    pub(super) fn meets(&self, from: u64, to: u64) -> bool {
        self.began <= to && self.healed.is_none_or(|healed| from <= healed)
    }

    /// Whether a broker was killed, but so long after the acknowledgement that it had written it down.
    pub(super) fn is_too_late_for(&self, delivered: &Delivered) -> bool {
        let is_older = |(forgot, settled): (&Forgot, &Settled)| {
            let age = forgot.time.saturating_duration_since(settled.time);
            settled.how == How::Acked && settled.at <= forgot.at && age > forgot.within
        };
        self.forgot.as_ref().zip(delivered.settled.as_ref()).is_some_and(is_older)
    }

    /// How long before the broker's death a delivery was acknowledged, if it is one whose acknowledgement the broker
    /// may have forgotten.
    pub(super) fn may_have_forgotten(&self, delivered: &Delivered) -> Option<Duration> {
        let (forgot, settled) = (self.forgot.as_ref()?, delivered.settled.as_ref()?);
        let age = forgot.time.saturating_duration_since(settled.time);
        let is_concerned =
            settled.how == How::Acked && settled.at <= forgot.at && age <= forgot.within;
        is_concerned.then_some(age)
    }
}

/// Acknowledgements that a broker had taken and not yet written down when it was killed.
#[derive(Debug)]
pub(super) struct Forgot {
    /// When it was dead.
    pub(super) at: u64,
    pub(super) time: Instant,
    /// How long before that the first of them may have been taken.
    pub(super) within: Duration,
}
