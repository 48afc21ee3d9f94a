//! What the arguments of a queue ask for.

use std::time::Duration;

use enoki_core::{
    DeadLetter, Error, Overflow, QueueKind, QueueSpec, Result, ShortStr, Table, Value,
};

use crate::error;

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
    pub(crate) max_priority: u8,
    pub(crate) single_active_consumer: bool,
    pub(crate) delivery_limit: Option<u32>,
}

impl Policy {
    pub(crate) fn of(spec: &QueueSpec) -> Result<Self> {
        let arguments = spec.wire_arguments();
        let read = Arguments { spec, arguments: &arguments };
        if spec.kind == QueueKind::Replicated
            && (spec.exclusive || spec.auto_delete || !spec.durable)
        {
            return Err(read.refuse(
                "a replicated queue is durable, and neither exclusive nor auto-delete".into(),
            ));
        }
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
            overflow: read.overflow()?,
            dead_letter: read.dead_letter()?,
            max_priority: match read.count("x-max-priority")? {
                None => 0,
                Some(level) => u8::try_from(level).map_err(|_| {
                    read.refuse(format!("x-max-priority is {level}; it must be at most 255"))
                })?,
            },
            single_active_consumer: read.truth("x-single-active-consumer")?,
            delivery_limit: read.delivery_limit()?,
        })
    }
}

struct Arguments<'a> {
    spec: &'a QueueSpec,
    arguments: &'a Table,
}

impl Arguments<'_> {
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
            Some(value) => [Overflow::DropHead, Overflow::RejectPublish]
                .into_iter()
                .find(|overflow| value.as_str() == Some(overflow.as_str()))
                .ok_or_else(|| self.wrong(name, value, "drop-head or reject-publish")),
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
