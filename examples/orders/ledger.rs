//! Records each order: how it was published, its deliveries with their settlements, and its end.

use std::{fmt, future::Future, time::Duration};

use enoki::{Outcome, consume::Envelope, message::Table};
use tokio::{sync::watch, time::timeout};

/// All events; those of one message are in their order. Clones write into the same ledger.
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
    /// It was published, with this result.
    Published(String),
    /// It was delivered, and the handler settled the delivery like this.
    Settled { attempt: u32, redelivered: bool, outcome: Outcome },
    /// It came to the lost orders, for this reason and from this queue.
    Lost { reason: String, queue: String },
    /// It did not arrive in time.
    Missing,
}

impl Ledger {
    pub(crate) fn write(&self, order: &str, event: Event) {
        let entry = Entry { order: order.to_owned(), event };
        self.0.send_modify(|entries| entries.push(entry));
    }

    /// Writes down how the handler is about to settle a delivery, and returns the outcome.
    pub(crate) fn settle(&self, delivery: &Envelope, outcome: Outcome) -> Outcome {
        let attempt = delivery.attempt.number;
        let settled = Event::Settled { attempt, redelivered: delivery.redelivered, outcome };
        self.write(id(delivery), settled);
        outcome
    }

    /// Writes down where a dead letter came from, and why: brokers say both in its headers.
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

    /// The events of one order.
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

/// The longest wait for one event. A broker that works takes a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The publisher names an order by its message id.
fn id(delivery: &Envelope) -> &str {
    delivery.message.properties.message_id.as_deref().unwrap_or("?")
}

/// One line for each event. The lines of an order are together, its publishing first: whether the
/// confirm or the delivery arrives first is not fixed.
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
