//! A dead-lettered message, and the history in its headers (`x-death`), as RabbitMQ writes it.

use enoki_core::{DeadLetter, Message, ShortStr, Table, Timestamp, Value};

/// A message that was rejected, has expired or was dropped, on its way to where its queue sends it.
#[derive(Debug)]
pub(crate) struct DeadMessage {
    pub(crate) message: std::sync::Arc<Message>,
    /// Where it had been published to.
    pub(crate) exchange: ShortStr,
    pub(crate) routing_key: ShortStr,
    /// The queue in which it died, and why.
    pub(crate) queue: ShortStr,
    pub(crate) reason: Reason,
    /// Where it goes now.
    pub(crate) target: DeadLetter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Rejected,
    Expired,
    MaxLength,
    DeliveryLimit,
}

impl Reason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

impl DeadMessage {
    pub(crate) fn routing_key(&self) -> &ShortStr {
        self.target.routing_key.as_ref().unwrap_or(&self.routing_key)
    }

    /// The message with its history in the headers, this death first.
    pub(crate) fn message(&self, time: Timestamp) -> Message {
        let mut message = (*self.message).clone();
        let mut deaths = match message.headers.remove(DEATHS) {
            Some(Value::List(deaths)) => deaths,
            _ => Vec::new(),
        };
        let same = deaths.iter().position(|death| {
            field(death, "queue") == Some(&self.queue)
                && field(death, "reason") == Some(self.reason.as_str())
        });
        let mut death = match same.map(|at| deaths.remove(at)) {
            Some(Value::Table(death)) => death,
            _ => self.death(&message, time),
        };
        let count = death.get("count").and_then(Value::as_int).unwrap_or(0);
        death.set(ShortStr::from_static("count"), count.saturating_add(1));
        deaths.insert(0, Value::Table(death));
        message.headers.set(ShortStr::from_static(DEATHS), deaths);

        let last = [
            ("x-first-death-queue", "x-last-death-queue", self.queue.as_str()),
            ("x-first-death-reason", "x-last-death-reason", self.reason.as_str()),
            ("x-first-death-exchange", "x-last-death-exchange", self.exchange.as_str()),
        ];
        let is_first = !message.headers.contains("x-first-death-queue");
        for (first_name, last_name, value) in last {
            if is_first {
                message.headers.set(ShortStr::from_static(first_name), value);
            }
            message.headers.set(ShortStr::from_static(last_name), value);
        }
        // It would expire again where it goes, which is to be kept.
        message.properties.expiration = None;
        message
    }

    /// Whether the message would go round without end if it went to this queue: it died there before,
    /// and no consumer has rejected it since.
    pub(crate) fn would_cycle(&self, queue: &str) -> bool {
        if self.reason == Reason::Rejected {
            return false;
        }
        // The death that this is about belongs to the history, too.
        if self.queue == *queue {
            return true;
        }
        let deaths = self.message.headers.get(DEATHS).and_then(Value::as_list).unwrap_or_default();
        for death in deaths {
            if field(death, "reason") == Some(Reason::Rejected.as_str()) {
                return false;
            }
            if field(death, "queue") == Some(queue) {
                return true;
            }
        }
        false
    }

    fn death(&self, message: &Message, time: Timestamp) -> Table {
        let keys = vec![Value::from(self.routing_key.clone())];
        let mut death: Table = [
            ("queue", Value::from(self.queue.clone())),
            ("reason", self.reason.as_str().into()),
            ("exchange", self.exchange.clone().into()),
            ("routing-keys", keys.into()),
            ("time", time.into()),
        ]
        .into_iter()
        .map(|(name, value)| (ShortStr::from_static(name), value))
        .collect();
        if let Some(expiration) = message.properties.expiration_millis() {
            death.set(ShortStr::from_static("original-expiration"), expiration.to_string());
        }
        death
    }
}

fn field<'a>(death: &'a Value, name: &str) -> Option<&'a str> {
    death.as_table()?.get(name)?.as_str()
}

const DEATHS: &str = "x-death";
