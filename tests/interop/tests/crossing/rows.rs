//! The rows of the table: what can be in a message, and what comes of it on the other protocol.

use std::time::Duration;

use enoki::message::{Message, ShortStr, Table, Timestamp, Value};

use super::client::Protocol;

/// What comes of it on the other protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Equal,
    /// The broker drops the header.
    Lost,
    /// The type of an id is lost: what arrives is its text.
    Text,
}

pub(crate) struct Row {
    /// As in the table.
    pub(crate) name: &'static str,
    pub(crate) messages: Vec<Message>,
    pub(crate) from_091_to_10: Verdict,
    pub(crate) from_10_to_091: Verdict,
}

pub(crate) fn rows() -> Vec<Row> {
    [properties(), headers(), headers_of_brokers_kind()].into_iter().flatten().collect()
}

/// Ids of other types, as text.
pub(crate) const NUMBER: &str = "AMQP_ULONG:99";
pub(crate) const BYTES: &str = "AMQP_BINARY:FF00FE";

fn properties() -> Vec<Row> {
    let ids = || {
        [
            "01a2-ü",
            "42",
            "123e4567-e89b-12d3-a456-426614174000",
            // RabbitMQ makes a UUID of it, and back.
            "urn:uuid:123e4567-e89b-12d3-a456-426614174000",
            "urn:uuid:",
        ]
    };
    let texts = || ["order", "ü\u{1f344}", ""];
    let media = || ["application/json", "gzip", ""];
    vec![
        Row::of(
            "body",
            [
                Message::new(vec![0, 255, 10, 13]),
                Message::new(""),
                Message::new(vec![b'x'; 1_000_000]),
            ],
        ),
        Row::with("content_type", media(), |message, text| {
            message.properties.content_type = short(text)
        }),
        Row::with("content_encoding", media(), |message, text| {
            message.properties.content_encoding = short(text)
        }),
        Row::with("message_id", ids(), |message, text| message.properties.message_id = short(text)),
        Row::with("correlation_id", ids(), |message, text| {
            message.properties.correlation_id = short(text)
        }),
        Row {
            from_10_to_091: Verdict::Text,
            ..Row::with("id_number", [NUMBER], |message, text| {
                message.properties.message_id = short(text);
            })
        },
        Row::with("id_bytes", [BYTES, "AMQP_BINARY:6162"], |message, text| {
            message.properties.message_id = short(text);
        }),
        Row::with("reply_to", ["answers", "re ply/to", "ü%2F"], |message, text| {
            message.properties.reply_to = short(text);
        }),
        Row::with("kind", texts(), |message, text| message.properties.kind = short(text)),
        Row::with("app_id", texts(), |message, text| message.properties.app_id = short(text)),
        Row::with("user_id", ["guest"], |message, text| message.properties.user_id = short(text)),
        Row::with("timestamp", [0, 1_600_000_000, 253_402_300_799], |message, seconds| {
            message.properties.timestamp = Some(Timestamp::from_unix_seconds(seconds));
        }),
        Row::with("expiration", [3_600_000, u32::MAX], |message, millis| {
            message.properties.expiration = Some(Duration::from_millis(millis.into()));
        }),
        Row::with("priority", [0, 4, 7, 255], |message, priority| {
            message.properties.priority = Some(priority)
        }),
        Row::with("persistent", [true, false], |message, truth| {
            message.properties.persistent = truth;
        }),
    ]
}

/// Headers with names that mean nothing to a broker.
fn headers() -> Vec<Row> {
    let header = |row, values: Vec<Value>| {
        Row::with(row, values, |message, value| set(message, "region", value))
    };
    let mut list = header("header_list", lists());
    let mut table = header("header_table", tables());
    list.from_091_to_10 = Verdict::Lost;
    table.from_091_to_10 = Verdict::Lost;
    vec![
        header("header_null", vec![Value::Null]),
        header("header_bool", vec![true.into(), false.into()]),
        header("header_int", [0, -7, i64::MIN, i64::MAX, 1 << 31, 1 << 32].map(Value::Int).into()),
        header("header_float", [0.0, 1.5, f64::MIN, f64::MIN_POSITIVE].map(Value::Float).into()),
        header("header_timestamp", [0, 1_700_000_000].map(time).into()),
        header("header_string", strings()),
        header("header_bytes", bytes()),
        list,
        table,
        Row::with(
            "header_name",
            ["ünïcode", "a b", "X-Case", "nameko.call_id_stack", "x"],
            |message, name| {
                set(message, name, "value");
            },
        ),
    ]
}

/// Headers with names that begin with `x-`, which travel in another place.
fn headers_of_brokers_kind() -> Vec<Row> {
    let header = |row, values: Vec<Value>| {
        Row::with(row, values, |message, value| set(message, "x-own", value))
    };
    let simple = vec![Value::Null, true.into(), Value::Int(-7), 1.5.into(), time(9)];
    vec![
        header("x_header_simple", [simple, strings(), bytes()].concat()),
        header("x_header_list", lists()),
        header("x_header_table", tables()),
    ]
}

fn strings() -> Vec<Value> {
    // RabbitMQ takes a text of AMQP 0-9-1 that is longer than 4096 bytes for bytes.
    vec!["".into(), "ü\u{1f344}".into(), "x".repeat(4096).into(), "ü".repeat(4096).into()]
}

fn bytes() -> Vec<Value> {
    let bytes: [&'static [u8]; 4] = [&[], &[1, 0xff], b"these are text", &[0, 0, 0, 5]];
    let long = std::iter::repeat_n(0xff_u8, 5000).collect::<Vec<_>>();
    bytes
        .map(|bytes| Value::Bytes(bytes.into()))
        .into_iter()
        .chain([Value::Bytes(long.into())])
        .collect()
}

fn lists() -> Vec<Value> {
    let all = [
        vec![Value::Null, true.into(), Value::Int(1), 1.5.into(), time(9)],
        strings(),
        bytes(),
        vec![Value::List(vec![]), Table::new().into(), inner()],
    ];
    vec![
        Value::List(vec![]),
        Value::List(vec!["a.b.1".into(), "a.b.2".into()]),
        Value::List(all.concat()),
    ]
}

fn tables() -> Vec<Value> {
    let mut table = Table::new();
    for (name, value) in ["null", "list", "text", "bytes", "table"].into_iter().zip([
        Value::Null,
        Value::List(bytes()),
        "x".into(),
        Value::Bytes("abc".into()),
        inner(),
    ]) {
        table.set(ShortStr::from_static(name), value);
    }
    vec![Table::new().into(), table.into()]
}

fn inner() -> Value {
    let mut table = Table::new();
    table.set(ShortStr::from_static("k"), Value::List(vec![Value::Bytes("v".into()), "v".into()]));
    table.into()
}

fn time(seconds: i64) -> Value {
    Timestamp::from_unix_seconds(seconds).into()
}

fn short(text: &'static str) -> Option<ShortStr> {
    Some(ShortStr::from_static(text))
}

fn set(message: &mut Message, name: &'static str, value: impl Into<Value>) {
    message.headers.set(ShortStr::from_static(name), value);
}

impl Row {
    pub(crate) fn verdict(&self, from: Protocol, to: Protocol) -> Verdict {
        match (from, to) {
            (Protocol::Amqp091, Protocol::Amqp10) => self.from_091_to_10,
            (Protocol::Amqp10, Protocol::Amqp091) => self.from_10_to_091,
            _ => Verdict::Equal,
        }
    }

    fn of(name: &'static str, messages: impl IntoIterator<Item = Message>) -> Self {
        let mut messages: Vec<_> = messages.into_iter().collect();
        for message in &mut messages {
            // A publisher gives an id to each.
            message.properties.message_id.get_or_insert(ShortStr::from_static(name));
        }
        Self { name, messages, from_091_to_10: Verdict::Equal, from_10_to_091: Verdict::Equal }
    }

    /// A message for each of these.
    fn with<T>(
        name: &'static str,
        contents: impl IntoIterator<Item = T>,
        set: impl Fn(&mut Message, T),
    ) -> Self {
        let messages = contents.into_iter().map(|content| {
            let mut message = Message::new("body");
            set(&mut message, content);
            message
        });
        Self::of(name, messages)
    }
}
