//! The limits that the arguments of a queue ask for.

use std::time::Duration;

use enoki_core::{
    DeadLetter, Error, Overflow, QueueKind, QueueOption, QueueSpec, Result, ShortStr, Table, Value,
};

use super::ready::Order;
use crate::{error, version::Behaviour};

/// The limits of a queue, read from its arguments as the wire would carry them: an argument that a
/// program names itself counts like the field that stands for it.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) message_ttl: Option<Duration>,
    pub(crate) expires: Option<Duration>,
    pub(crate) max_length: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) overflow: Overflow,
    pub(crate) dead_letter: Option<DeadLetter>,
    pub(crate) order: Order,
    /// Whether attempts are counted.
    pub(crate) counts: bool,
    /// Whether what is released counts as one.
    pub(crate) counts_released: bool,
    pub(crate) single_active_consumer: bool,
    pub(crate) delivery_limit: Option<u32>,
}

impl Policy {
    pub(crate) fn of(spec: &QueueSpec, behaviour: &Behaviour) -> Result<Self> {
        let arguments = spec.wire_arguments();
        let read = Arguments { spec, arguments: &arguments };
        let replicated = read.is_replicated()?;
        let counts = replicated || behaviour.counts_on_classic_queues;
        for option in spec.options() {
            // Without a `_`: an option that is added to core is kept somewhere in this crate, or refused.
            match option {
                QueueOption::Transient | QueueOption::Exclusive | QueueOption::AutoDelete => {
                    if replicated {
                        return Err(read.refuse(
                            "a replicated queue is durable, and neither exclusive nor auto-delete"
                                .into(),
                        ));
                    }
                }
                // Read from the arguments below.
                QueueOption::Replicated
                | QueueOption::MessageTtl(_)
                | QueueOption::Expires(_)
                | QueueOption::MaxLength(_)
                | QueueOption::MaxBytes(_)
                | QueueOption::Overflow(_)
                | QueueOption::DeadLetter(_)
                | QueueOption::MaxPriority(_)
                | QueueOption::SingleActiveConsumer
                | QueueOption::DeliveryLimit(_)
                | QueueOption::Argument(..) => {}
            }
        }
        read.only_if(!replicated, &["x-max-priority", "x-queue-mode"], "a replicated queue")?;
        read.only_if(replicated, REPLICATED_ONLY, "a queue that is not replicated")?;
        read.only_if(counts, &["x-delivery-limit"], "a queue that counts no attempts")?;
        Ok(Self {
            message_ttl: read.millis("x-message-ttl")?,
            expires: match read.millis("x-expires")? {
                Some(Duration::ZERO) => {
                    return Err(read.refuse("x-expires is 0; it must be positive".into()));
                }
                expires => expires,
            },
            max_length: read.count("x-max-length")?,
            max_bytes: read.count("x-max-length-bytes")?,
            overflow: match read.overflow()? {
                // A replicated queue of RabbitMQ takes it, and drops the oldest all the same.
                Overflow::RejectPublishDeadLetter if replicated => Overflow::DropHead,
                overflow => overflow,
            },
            dead_letter: read.dead_letter()?,
            order: if replicated {
                Order::Returned(behaviour.priorities)
            } else {
                Order::Places { levels: read.max_priority()? }
            },
            counts,
            counts_released: behaviour.counts_released,
            single_active_consumer: read.truth("x-single-active-consumer")?,
            delivery_limit: read.delivery_limit()?,
        })
    }
}

/// Arguments that RabbitMQ refuses on classic queues.
const REPLICATED_ONLY: &[&str] =
    &["x-dead-letter-strategy", "x-quorum-initial-group-size", "x-quorum-target-group-size"];

struct Arguments<'a> {
    spec: &'a QueueSpec,
    arguments: &'a Table,
}

impl Arguments<'_> {
    fn is_replicated(&self) -> Result<bool> {
        let name = "x-queue-type";
        match self.arguments.get(name) {
            None => Ok(self.spec.kind == QueueKind::Replicated),
            Some(Value::String(kind)) if kind == "classic" => Ok(false),
            Some(Value::String(kind)) if kind == "quorum" => Ok(true),
            Some(value) => Err(self.wrong(name, value, "classic or quorum")),
        }
    }

    /// Refuses arguments that such a queue does not know.
    fn only_if(&self, known: bool, names: &[&str], kind: &str) -> Result<()> {
        match names.iter().find(|name| self.arguments.contains(name)) {
            Some(name) if !known => Err(self.refuse(format!("{kind} does not know {name}"))),
            _ => Ok(()),
        }
    }

    fn max_priority(&self) -> Result<u8> {
        let level = self.count("x-max-priority")?.unwrap_or(0);
        u8::try_from(level)
            .map_err(|_| self.refuse(format!("x-max-priority is {level}; it must be at most 255")))
    }

    fn count(&self, name: &str) -> Result<Option<u64>> {
        match self.arguments.get(name) {
            None => Ok(None),
            Some(value) => match value.as_int().map(u64::try_from) {
                Some(Ok(number)) => Ok(Some(number)),
                _ => Err(self.wrong(name, value, "a number from 0")),
            },
        }
    }

    fn millis(&self, name: &str) -> Result<Option<Duration>> {
        Ok(self.count(name)?.map(Duration::from_millis))
    }

    fn truth(&self, name: &str) -> Result<bool> {
        match self.arguments.get(name) {
            None => Ok(false),
            Some(Value::Bool(truth)) => Ok(*truth),
            Some(value) => Err(self.wrong(name, value, "true or false")),
        }
    }

    fn name(&self, name: &str) -> Result<Option<ShortStr>> {
        match self.arguments.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => ShortStr::new(text.as_str()).map(Some),
            Some(value) => Err(self.wrong(name, value, "a text")),
        }
    }

    fn overflow(&self) -> Result<Overflow> {
        let name = "x-overflow";
        match self.arguments.get(name) {
            None => Ok(Overflow::DropHead),
            Some(value) => Overflow::ALL
                .iter()
                .copied()
                .find(|overflow| value.as_str() == Some(overflow.as_str()))
                .ok_or_else(|| {
                    self.wrong(name, value, "drop-head, reject-publish or reject-publish-dlx")
                }),
        }
    }

    fn dead_letter(&self) -> Result<Option<DeadLetter>> {
        let routing_key = self.name("x-dead-letter-routing-key")?;
        match self.name("x-dead-letter-exchange")? {
            Some(exchange) => Ok(Some(DeadLetter { exchange, routing_key })),
            None if routing_key.is_none() => Ok(None),
            None => Err(self.refuse(
                "x-dead-letter-routing-key is there and x-dead-letter-exchange is not".into(),
            )),
        }
    }

    /// As on RabbitMQ 4, a negative one is none; and one that no message reaches.
    fn delivery_limit(&self) -> Result<Option<u32>> {
        let name = "x-delivery-limit";
        match self.arguments.get(name) {
            None => Ok(None),
            Some(Value::Int(limit)) => Ok(u32::try_from(*limit).ok()),
            Some(value) => Err(self.wrong(name, value, "a number")),
        }
    }

    fn wrong(&self, name: &str, value: &Value, expected: &str) -> Error {
        self.refuse(format!("{name} is {value:?}; it must be {expected}"))
    }

    fn refuse(&self, reason: String) -> Error {
        error::bad_argument("declare", self.spec.subject(), reason)
    }
}
