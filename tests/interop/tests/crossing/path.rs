//! One way through a broker: all rows are published by one client and consumed by another, once,
//! and each row's test looks at what came of its messages.

use std::{fmt::Debug, sync::OnceLock, time::Duration};

use enoki::{
    message::{Message, ShortStr, Table, Value},
    topology::QueueSpec,
    transport::{Change, cross_protocol::Id},
};
use enoki_interop::{Broker, Checked};
use tokio::time::timeout;

use super::{
    client::{Client, Protocol},
    ours,
    rows::{Row, Verdict, rows},
};

pub(crate) struct Path {
    broker: Broker,
    from: Client,
    to: Client,
    arrived: OnceLock<Result<Vec<Message>, String>>,
}

impl Path {
    pub(crate) fn new(broker: Broker, from: Client, to: Client) -> Self {
        Self { broker, from, to, arrived: OnceLock::new() }
    }

    /// What is wrong with this row's messages, at its end.
    pub(crate) fn check(&self, row: usize) -> Result<(), String> {
        let fault = |what: String| format!("from {} to {}: {what}", self.from, self.to);
        let arrived = self
            .arrived
            .get_or_init(|| self.cross())
            .as_ref()
            .map_err(|error| fault(error.clone()))?;
        let rows = rows();
        let before = rows.iter().take(row).map(|row| self.messages(row).count()).sum();
        let row = rows.get(row).ok_or("there is no such row")?;
        for (sent, arrived) in self.messages(row).zip(arrived.iter().skip(before)) {
            let expected = self.comparable(self.expected(row, sent));
            let arrived = self.comparable(arrived.clone());
            if expected != arrived {
                return Err(fault(difference(&expected, &arrived)));
            }
        }
        Ok(())
    }

    fn cross(&self) -> Result<Vec<Message>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let crossing = async { timeout(Duration::from_secs(120), self.crossing()).await };
        let arrived = runtime.block_on(crossing).map_err(|_| "it took too long".to_owned())?;
        arrived.map_err(|error| error.to_string())
    }

    async fn crossing(&self) -> Checked<Vec<Message>> {
        let url = |client: Client| self.broker.url(client.protocol().scheme()).ok_or("no broker");
        let rows = rows();
        let messages: Vec<_> = rows.iter().flat_map(|row| self.messages(row)).cloned().collect();
        let name = format!("enoki-crossing {}, {} {}", self.from, self.to, std::process::id());
        let queue = QueueSpec::new(name)?;
        let session = ours::open(&url(Client::Ours(Protocol::Amqp091))?).await?;
        session.apply(&Change::DeclareQueue(queue.clone())).await?;
        let crossed = async {
            self.from.publish(&url(self.from)?, &queue.name, &messages).await?;
            self.to.consume(&url(self.to)?, &queue.name, messages.len()).await
        };
        let crossed = crossed.await;
        session.apply(&Change::DeleteQueue(queue.name.clone())).await?;
        crossed
    }

    /// The row's messages, as far as the clients can write and read them.
    fn messages<'r>(&self, row: &'r Row) -> impl Iterator<Item = &'r Message> {
        let proton = Client::Foreign(Protocol::Amqp10);
        let (writes, reads) = (self.from == proton, self.to == proton);
        row.messages.iter().filter(move |Message { properties, .. }| {
            // Proton leaves out what is its default: a priority of 4, and that a message is not
            // durable, which RabbitMQ 4.0 then takes for durable.
            let its_default = properties.priority == Some(4) || !properties.persistent;
            // It does not tell a priority of 4 from none.
            !(writes && its_default || reads && properties.priority == Some(4))
        })
    }

    /// What has to come of it.
    fn expected(&self, row: &Row, sent: &Message) -> Message {
        let mut expected = sent.clone();
        if row.verdict(self.from.protocol(), self.to.protocol()) == Verdict::Text {
            let id = expected.properties.message_id.take().unwrap_or_default();
            expected.properties.message_id =
                ShortStr::new(id.trim_start_matches("AMQP_ULONG:")).ok();
        }
        if self.from.protocol() == Protocol::Amqp10
            && self.to == Client::Foreign(Protocol::Amqp091)
            && let Some(id) = &expected.properties.message_id
            && let Id::Bytes(bytes) = Id::of(id)
        {
            let bytes = Value::Bytes(bytes.into_owned().into());
            expected.headers.set(ShortStr::from_static("x-message-id"), bytes);
            expected.properties.message_id = None;
        }
        if let (Client::Ours(from), Client::Ours(to)) = (self.from, self.to) {
            if row.verdict(from, to) == Verdict::Lost {
                expected.headers = Table::new();
            }
            return expected;
        }
        let id = expected.headers.remove("x-message-id");
        expected.headers = self.as_others_see(expected.headers);
        if let Some(id) = id {
            expected.headers.set(ShortStr::from_static("x-message-id"), id);
        }
        expected
    }

    /// What comes of headers where only one end is ours: as `docs/crossing.md` says for others.
    fn as_others_see(&self, headers: Table) -> Table {
        let mut headers = headers;
        if self.from == Client::Foreign(Protocol::Amqp091) {
            // It writes bytes as long strings.
            headers = each(headers, bytes_to_text);
        }
        match (self.from.protocol(), self.to.protocol()) {
            (Protocol::Amqp091, Protocol::Amqp10) => {
                let kept = headers.into_iter().filter(|(name, value)| !is_annotated(name, value));
                headers = each(kept.collect(), text_to_bytes);
                if matches!(self.to, Client::Ours(_)) {
                    headers = each(headers, long_bytes_to_text);
                }
            }
            (Protocol::Amqp10, Protocol::Amqp091) => {
                headers = each(headers, bytes_to_text);
                if matches!(self.to, Client::Foreign(_)) {
                    headers = headers.into_iter().map(prefixed).collect();
                }
            }
            _ => {}
        }
        headers
    }

    /// The message without what one of the clients cannot say, or says besides.
    fn comparable(&self, mut message: Message) -> Message {
        if matches!(self.to, Client::Foreign(_)) {
            message.headers.remove("x-enoki-bytes");
        }
        if self.from == Client::Foreign(Protocol::Amqp10) {
            // It writes one wherever there is a group.
            message.headers.remove("x-amqp-1.0-group-sequence");
        }
        if [self.from, self.to].contains(&Client::Foreign(Protocol::Amqp10)) {
            // Proton does not tell empty ones from none.
            let properties = &mut message.properties;
            for text in [
                &mut properties.content_type,
                &mut properties.content_encoding,
                &mut properties.app_id,
            ] {
                text.take_if(|text| text.is_empty());
            }
            properties.timestamp.take_if(|time| time.unix_seconds() == 0);
        }
        message
    }
}

/// In words, what differs first.
fn difference(expected: &Message, arrived: &Message) -> String {
    let short = |part: &dyn Debug| format!("{part:?}").chars().take(800).collect::<String>();
    let say = |what, expected, arrived| {
        format!("{what}:\n  expected {}\n  and this came {}", short(expected), short(arrived))
    };
    if expected.body != arrived.body {
        return say("another body", &expected.body, &arrived.body);
    }
    if expected.properties != arrived.properties {
        return say("other properties", &expected.properties, &arrived.properties);
    }
    say("other headers", &expected.headers, &arrived.headers)
}

/// Whether it travels on AMQP 1.0 under a name that is not its own.
fn is_annotated(name: &str, value: &Value) -> bool {
    !name.starts_with("x-") && matches!(value, Value::List(_) | Value::Table(_))
}

/// A header as a client finds it who does not know what the name's beginning means.
fn prefixed((name, value): (ShortStr, Value)) -> (ShortStr, Value) {
    if !is_annotated(&name, &value) {
        return (name, value);
    }
    (ShortStr::new(format!("x-enoki-header-{name}")).unwrap_or_default(), value)
}

/// Changes every value that is neither a list nor a table.
fn each(headers: Table, change: fn(Value) -> Value) -> Table {
    headers.into_iter().map(|(name, value)| (name, each_in(value, change))).collect()
}

fn each_in(value: Value, change: fn(Value) -> Value) -> Value {
    match value {
        Value::List(values) => {
            Value::List(values.into_iter().map(|value| each_in(value, change)).collect())
        }
        Value::Table(table) => Value::Table(each(table, change)),
        simple => change(simple),
    }
}

fn bytes_to_text(value: Value) -> Value {
    match value {
        Value::Bytes(bytes) => match String::from_utf8(bytes.to_vec()) {
            Ok(text) => Value::String(text),
            Err(_) => Value::Bytes(bytes),
        },
        other => other,
    }
}

fn long_bytes_to_text(value: Value) -> Value {
    match value {
        Value::Bytes(bytes) if bytes.len() > 4096 => bytes_to_text(Value::Bytes(bytes)),
        other => other,
    }
}

fn text_to_bytes(value: Value) -> Value {
    match value {
        Value::String(text) if text.len() > 4096 || text.contains('\0') => {
            Value::Bytes(text.into())
        }
        other => other,
    }
}
