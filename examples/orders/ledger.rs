//! What is written down of each order: its publishing, its deliveries with their settlements, and
//! its end.

use std::{fmt, future::Future, time::Duration};

use enoki::{Outcome, consume::Envelope, message::Table};
use tokio::{sync::watch, time::timeout};

/// What happened, in the order of each message's own story. Clones write into the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(watch::Sender<Vec<Entry>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The id of the message.
    pub(crate) order: String,
    pub(crate) event: Event,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// It was published, and this came of it.
    Published(String),
    /// It was delivered, and this became of the delivery.
    Settled { attempt: u32, redelivered: bool, outcome: Outcome },
    /// It came to the lost orders, for this reason and from this queue.
    Lost { reason: String, queue: String },
    /// It was waited for in vain.
    Missing,
}

impl Ledger {
    pub(crate) fn write(&self, order: &str, event: Event) {
        let entry = Entry { order: order.to_owned(), event };
        self.0.send_modify(|entries| entries.push(entry));
    }

    /// Writes down how a delivery is about to be settled, and returns that.
    pub(crate) fn settle(&self, delivery: &Envelope, outcome: Outcome) -> Outcome {
        let attempt = delivery.attempt.number;
        let settled = Event::Settled { attempt, redelivered: delivery.redelivered, outcome };
        self.write(id(delivery), settled);
        outcome
    }

    /// Writes down what a dead letter says of itself: brokers say in its headers where it came
    /// from, and why.
    pub(crate) fn lose(&self, letter: &Envelope) {
        let text = |headers: &Table, name| {
            headers.get(name).and_then(|value| value.as_str()).unwrap_or("?").to_owned()
        };
        let headers = &letter.message.headers;
        let reason = text(headers, "x-first-death-reason");
        let queue = text(headers, "x-first-death-queue");
        self.write(id(letter), Event::Lost { reason, queue });
    }

    /// Waits until this order was acknowledged.
    pub(crate) async fn acknowledged(&self, order: &str) {
        let acknowledged = |entry: &Entry| {
            let ack = matches!(entry.event, Event::Settled { outcome: Outcome::Ack, .. });
            ack && entry.order == order
        };
        let mut entries = self.0.subscribe();
        self.expect(order, entries.wait_for(|entries| entries.iter().any(acknowledged))).await;
    }

    /// Waits for something to happen to an order, or writes down that it did not.
    pub(crate) async fn expect<T>(&self, order: &str, event: impl Future<Output = T>) -> Option<T> {
        let happened = timeout(PATIENCE, event).await.ok();
        if happened.is_none() {
            self.write(order, Event::Missing);
        }
        happened
    }

    /// What became of one order.
    #[cfg(test)]
    pub(crate) fn of(&self, order: &str) -> Vec<Event> {
        let entries = self.0.borrow();
        entries
            .iter()
            .filter(|entry| entry.order == order)
            .map(|entry| entry.event.clone())
            .collect()
    }
}

/// How long anything may take; on a broker that works, a moment.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who publishes an order names it by the id of its message.
fn id(delivery: &Envelope) -> &str {
    delivery.message.properties.message_id.as_deref().unwrap_or("?")
}

/// One line for each event, those of an order together, and how it was published first: whether the
/// publisher or the kitchen hears of an order first is nobody's business.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.borrow();
        let mut orders: Vec<&str> = Vec::new();
        for Entry { order, .. } in &*entries {
            if !orders.contains(&order.as_str()) {
                orders.push(order);
            }
        }
        for order in orders {
            let of_it =
                || entries.iter().filter(|entry| entry.order == order).map(|entry| &entry.event);
            let (published, then): (Vec<_>, Vec<_>) =
                of_it().partition(|event| matches!(event, Event::Published(_)));
            for event in published.into_iter().chain(then) {
                writeln!(f, "{order:<10} {event}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published(how) => write!(f, "published    {how}"),
            Self::Settled { attempt, redelivered, outcome } => {
                let again = if *redelivered { "redelivered" } else { "new" };
                write!(f, "attempt {attempt}    {again:<12} {outcome}")
            }
            Self::Missing => f.write_str("missing"),
            Self::Lost { reason, queue } => write!(f, "lost         {reason} from {queue}"),
        }
    }
}
