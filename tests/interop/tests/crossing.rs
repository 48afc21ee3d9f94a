//! One message across protocols: what is published on one arrives on the other, equal, except for what
//! the documentation of `enoki::amqp10` says.

use std::{collections::VecDeque, process::ExitCode, sync::Arc, time::Duration};

use enoki::{
    BrokerUrl, Message, Outcome, Properties, Purpose, QueueSpec, ShortStr, Table, Timestamp,
    Transport, Value,
    transport::{Change, Delivered, Outgoing, PublishOutcome, Session, Settle},
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::time::{Instant, timeout};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for from in [Protocol::Amqp091, Protocol::Amqp10] {
        for to in [Protocol::Amqp091, Protocol::Amqp10] {
            let name = format!("crossing::from_{}_to_{}", from.scheme(), to.scheme());
            trials.push(Trial::ignorable_test(name, move || cross(from, to)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Amqp091,
    Amqp10,
}

impl Protocol {
    fn scheme(self) -> &'static str {
        match self {
            Self::Amqp091 => "amqp091",
            Self::Amqp10 => "amqp10",
        }
    }
}

type Checked<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn cross(from: Protocol, to: Protocol) -> Result<Completion, Failed> {
    let Ok(url) = std::env::var(VARIABLE) else {
        if std::env::var_os("ENOKI_REQUIRE_BROKERS").is_some_and(|required| required == "1") {
            return Err(format!("{VARIABLE} is not set, and brokers are required").into());
        }
        return Ok(Completion::ignored_with(format!("needs {VARIABLE}")));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::from(error.to_string()))?;
    runtime
        .block_on(async { timeout(Duration::from_secs(30), crossing(&url, from, to)).await })
        .map_err(|_| Failed::from("it took too long"))?
        .map_err(|error| Failed::from(error.to_string()))?;
    Ok(Completion::Completed)
}

async fn crossing(url: &str, from: Protocol, to: Protocol) -> Checked {
    let publishing = open(url, from).await?;
    let consuming = open(url, to).await?;
    let label = format!("enoki-crossing.{from:?}.{to:?}.{}", std::process::id());
    let queue = QueueSpec::new(label)?;
    consuming.apply(&Change::DeclareQueue(queue.clone())).await?;
    for message in messages()? {
        publish(&*publishing, &queue, &message).await?;
        let arrived = take(&*consuming, &queue).await?;
        let expected = expected(message, from, to);
        if arrived.message.body != expected.body {
            return Err(format!("another body: {:?}", arrived.message.body).into());
        }
        if *arrived.message != expected {
            return Err(format!("expected {expected:#?}, and {:#?} came", arrived.message).into());
        }
        if !arrived.exchange.is_empty() || arrived.routing_key != queue.name {
            return Err(
                format!("it came by {:?} {:?}", arrived.exchange, arrived.routing_key).into()
            );
        }
    }
    consuming.apply(&Change::DeleteQueue(queue.name)).await?;
    Ok(())
}

/// What arrives, where that is not what was sent.
fn expected(mut message: Message, from: Protocol, to: Protocol) -> Message {
    let nested: Vec<_> = message
        .headers
        .iter()
        .filter(|(name, value)| {
            !name.starts_with("x-") && matches!(value, Value::List(_) | Value::Table(_))
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    match (from, to) {
        (Protocol::Amqp091, Protocol::Amqp10) => {
            for (name, _) in nested {
                message.headers.remove(&name);
            }
        }
        (Protocol::Amqp10, Protocol::Amqp091) => {
            for (name, value) in nested {
                message.headers.remove(&name);
                let name = ShortStr::new(format!("x-enoki-header-{name}"));
                message.headers.set(name.unwrap_or_default(), value);
            }
            if message.headers.contains("bytes-that-are-text") {
                message.headers.set(name("bytes-that-are-text"), "abc");
            }
        }
        _ => {}
    }
    message
}

fn name(text: &'static str) -> ShortStr {
    ShortStr::from_static(text)
}

fn messages() -> Checked<Vec<Message>> {
    let inner: Table =
        [(name("k"), Value::from("v")), (name("n"), Value::Int(5))].into_iter().collect();
    let mixed = vec![
        Value::Int(1),
        "x".into(),
        inner.clone().into(),
        Value::Null,
        Value::List(vec![]),
        Timestamp::from_unix_seconds(9).into(),
    ];
    let mut full = Message::new(vec![0, 255, 10, 13]);
    for (name, value) in [
        ("null", Value::Null),
        ("true", true.into()),
        ("least", Value::Int(i64::MIN)),
        ("greatest", Value::Int(i64::MAX)),
        ("small", Value::Int(-7)),
        ("float", 1.5.into()),
        ("time", Timestamp::from_unix_seconds(1_700_000_000).into()),
        ("text", "ü\u{1f344}".into()),
        ("empty", "".into()),
        ("bytes", Value::Bytes(vec![1, 0xff].into())),
        ("bytes-that-are-text", Value::Bytes("abc".into())),
        ("ünïcode", Value::Int(1)),
        ("nameko.call_id_stack", Value::List(vec!["a.b.1".into(), "a.b.2".into()])),
        ("table", inner.clone().into()),
        ("mixed", Value::List(mixed.clone())),
        ("empty-list", Value::List(vec![])),
        ("x-text", "x".into()),
        ("x-list", Value::List(mixed)),
        ("x-table", inner.into()),
    ] {
        full.headers.insert(name, value)?;
    }
    full.properties = Properties {
        content_type: Some(name("application/json")),
        content_encoding: Some(name("gzip")),
        message_id: Some(name("01a2-ü")),
        correlation_id: Some(name("corr/1")),
        reply_to: Some(name("re ply/to")),
        kind: Some(name("order")),
        app_id: Some(name("shop")),
        user_id: Some(name("guest")),
        timestamp: Some(Timestamp::from_unix_seconds(1_600_000_000)),
        expiration: Some(Duration::from_secs(3600)),
        priority: Some(4),
        persistent: true,
    };
    let mut bare = Message::new("");
    bare.properties.persistent = false;
    let mut large = Message::new(vec![b'x'; 1_000_000]);
    let mut messages = vec![full];
    for id in [
        "urn:uuid:123e4567-e89b-12d3-a456-426614174000",
        "42",
        "123e4567-e89b-12d3-a456-426614174000",
    ] {
        let mut message = Message::new("x");
        message.properties.message_id = Some(ShortStr::new(id)?);
        message.properties.correlation_id = Some(ShortStr::new(id)?);
        messages.push(message);
    }
    // A publisher gives an id to each.
    bare.properties.message_id = Some(name("1"));
    large.properties.message_id = Some(name("2"));
    messages.extend([bare, large]);
    Ok(messages)
}

async fn open(url: &str, protocol: Protocol) -> Checked<Arc<dyn Session>> {
    let url = BrokerUrl::parse(&url.replacen("amqp091", protocol.scheme(), 1))?;
    let transport: Arc<dyn Transport> = match protocol {
        Protocol::Amqp091 => Arc::new(enoki::amqp091::Amqp091Transport::new(&url)?),
        Protocol::Amqp10 => Arc::new(enoki::amqp10::Amqp10Transport::new(&url)?),
    };
    Ok(transport.connect(Purpose::Consume, Instant::now() + Duration::from_secs(8)).await?)
}

async fn publish(session: &dyn Session, queue: &QueueSpec, message: &Message) -> Checked {
    let mut sender = session.sender(1).await?;
    let mut messages = VecDeque::from([Outgoing {
        id: 0,
        exchange: ShortStr::EMPTY,
        routing_key: queue.name.clone(),
        mandatory: true,
        message: Arc::new(message.clone()),
    }]);
    sender.submit(&mut messages).await?;
    let mut outcomes = Vec::new();
    sender.outcomes(&mut outcomes).await?;
    match outcomes.pop() {
        Some((0, PublishOutcome::Confirmed)) => Ok(()),
        other => Err(format!("publishing: {other:?}").into()),
    }
}

async fn take(session: &dyn Session, queue: &QueueSpec) -> Checked<Delivered> {
    let mut receiver = session.receiver(&queue.name, 1).await?;
    let mut deliveries = Vec::new();
    receiver.receive(&mut deliveries, 1).await.map_err(|end| format!("{end:?}"))?;
    let delivered = deliveries.pop().ok_or("nothing came")?;
    receiver.settle(&[Settle { tag: delivered.tag, outcome: Outcome::Ack }]);
    receiver.close().await?;
    Ok(delivered)
}

const VARIABLE: &str = "ENOKI_RABBITMQ_4";
