//! Messages of other clients in forms that this toolkit does not write: how they are read on each protocol, and
//! whether a requester recognises its answer.

use std::{collections::VecDeque, num::NonZeroU16, pin::Pin, sync::Arc, time::Duration};

use enoki::{
    Outcome,
    message::{Message, ShortStr, Table, Timestamp, Value},
    topology::QueueSpec,
    transport::{
        Change, Delivered, Outgoing, PublishOutcome, ReceiverOptions, SenderOptions, Session,
        Settle,
    },
};
use enoki_interop::{Broker, Checked};
use libtest_mimic::{Completion, Failed};
use tokio::time::timeout;

use super::{client::Protocol, foreign, ours, unreadable};

type Running = Pin<Box<dyn Future<Output = Checked>>>;
type Test = (&'static str, fn(Broker) -> Running);

/// By name; those with `amqp_10` in it need a broker that speaks AMQP 1.0.
pub(crate) fn tests() -> [Test; 7] {
    [
        ("others_of_amqp_10_over_amqp_10", |broker| Box::pin(of_amqp_10(broker, Protocol::Amqp10))),
        ("others_of_amqp_10_over_amqp_091", |broker| {
            Box::pin(of_amqp_10(broker, Protocol::Amqp091))
        }),
        ("others_of_amqp_091", |broker| Box::pin(of_amqp_091(broker))),
        ("a_requester_knows_its_answer_over_amqp_10", |broker| {
            Box::pin(answers(broker, Protocol::Amqp10))
        }),
        ("a_requester_over_amqp_10_knows_its_answer_over_amqp_091", |broker| {
            Box::pin(answers(broker, Protocol::Amqp091))
        }),
        (
            "a_message_of_amqp_10_that_the_broker_cannot_convert_stops_its_own_consumer_alone",
            |broker| Box::pin(unreadable::stops_its_own_consumer(broker, Protocol::Amqp091)),
        ),
        (
            "a_message_of_amqp_091_that_the_broker_cannot_convert_stops_its_own_consumer_over_amqp_10_alone",
            |broker| Box::pin(unreadable::stops_its_own_consumer(broker, Protocol::Amqp10)),
        ),
    ]
}

pub(crate) fn run(running: Running) -> Result<Completion, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let done = runtime.block_on(async { timeout(PATIENCE, running).await });
    done.map_err(|_| "it took too long".to_owned())?.map_err(|error| error.to_string())?;
    Ok(Completion::Completed)
}

/// What a test may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the program of this protocol publishes, as our transport of that one delivers it.
async fn delivered(
    broker: Broker,
    from: Protocol,
    to: Protocol,
    count: usize,
) -> Checked<Vec<Delivered>> {
    let url = |protocol: Protocol| broker.url(protocol.scheme()).ok_or("no broker");
    let name = format!("enoki-others {} {} {}", from.scheme(), to.scheme(), std::process::id());
    let queue = QueueSpec::new(name)?;
    let session = ours::open(&url(Protocol::Amqp091)?).await?;
    session.apply(&Change::DeclareQueue(queue.clone())).await?;
    let taken = async {
        foreign::others(from, &url(from)?, &queue.name).await?;
        ours::take(&url(to)?, &queue.name, count).await
    };
    let taken = taken.await;
    session.apply(&Change::DeleteQueue(queue.name.clone())).await?;
    taken
}

async fn of_amqp_10(broker: Broker, to: Protocol) -> Checked {
    let by_10 = to == Protocol::Amqp10;
    let messages = delivered(broker, Protocol::Amqp10, to, 10).await?;
    let [text, bytes, map, sequence, number, named, early, typed, binary, long] = &*messages else {
        return Err("not all arrived".into());
    };
    same("a text", &*read(text)?.body, &b"text"[..])?;
    // RabbitMQ puts its own in this place of AMQP 0-9-1.
    same("its kind", read(text)?.properties.kind.as_deref(), by_10.then_some("mine"))?;
    same("bytes", &*read(bytes)?.body, &b"\xff\x00"[..])?;
    for (delivered, what) in [(map, "a map"), (sequence, "a sequence"), (number, "a number")] {
        let reason = delivered.undecodable.as_deref().unwrap_or_default();
        if !reason.contains(&format!("its body is {what}")) {
            return Err(format!("{what}: {reason:?}").into());
        }
    }
    let mut headers = Table::new();
    if by_10 {
        for (name, value) in [
            ("x-amqp-1.0-subject", Value::from("placed")),
            ("x-amqp-1.0-group-sequence", 4.into()),
            ("x-amqp-1.0-reply-to-group-id", "r".into()),
            ("x-amqp-1.0-absolute-expiry-time", Timestamp::from_unix_seconds(1_900_000_000).into()),
        ] {
            headers.set(ShortStr::from_static(name), value);
        }
    }
    same("what nothing stands for", &read(named)?.headers, &headers)?;
    same("the group", read(named)?.properties.app_id.as_deref(), Some("g"))?;
    let before_1970 = Timestamp::from_unix_seconds(-5);
    same("a time before 1970", read(early)?.properties.timestamp, Some(before_1970))?;
    same("in a header", read(early)?.headers.get("at"), Some(&before_1970.into()))?;
    let uuid = "urn:uuid:00000000-0000-0000-0000-000000000007";
    same("a UUID", read(typed)?.properties.message_id.as_deref(), Some(uuid))?;
    let number = if by_10 { "AMQP_ULONG:18446744073709551615" } else { "18446744073709551615" };
    same("a number", read(typed)?.properties.correlation_id.as_deref(), Some(number))?;
    same("bytes", read(binary)?.properties.message_id.as_deref(), Some("AMQP_BINARY:FF00"))?;
    same("text", read(binary)?.properties.correlation_id.as_deref(), Some("AMQP_BINARY:6162"))?;
    let mut headers = Table::new();
    headers.insert("x-message-id", "i".repeat(300))?;
    headers.insert("x-correlation-id", Value::Bytes(vec![1; 200].into()))?;
    same("long ids", &read(long)?.headers, &headers)?;
    same("no id", &read(long)?.properties.message_id, &None)
}

async fn of_amqp_091(broker: Broker) -> Checked {
    let messages = delivered(broker, Protocol::Amqp091, Protocol::Amqp091, 4).await?;
    let [decimals, late, early, own] = &*messages else { return Err("not all arrived".into()) };
    for (name, value) in [("minus", -1.5), ("plus", 19.99), ("least", -2_147_483_648.0)] {
        same(name, read(decimals)?.headers.get(name), Some(&Value::Float(value)))?;
    }
    let reason = late.undecodable.as_deref().unwrap_or_default();
    same(
        "a time that is none",
        reason,
        "its timestamp is out of range: 9223372036854775813 seconds since 1970",
    )?;
    let time = read(early)?.properties.timestamp;
    same("a time before 1970", time, Some(Timestamp::from_unix_seconds(-5)))?;
    same("a body", &*read(own)?.body, &b"{}"[..])
}

/// Answers as a handler does: the message id becomes the correlation id.
async fn answers(broker: Broker, protocol: Protocol) -> Checked {
    let url = |protocol: Protocol| broker.url(protocol.scheme()).ok_or("no broker");
    let name = format!("enoki-asked {} {}", protocol.scheme(), std::process::id());
    let (asked, answered) = (QueueSpec::new(name.clone())?, QueueSpec::new(format!("{name} a"))?);
    let session = ours::open(&url(protocol)?).await?;
    for queue in [&asked, &answered] {
        session.apply(&Change::DeclareQueue(queue.clone())).await?;
    }
    let requester = url(Protocol::Amqp10)?;
    let known = tokio::select! {
        known = foreign::ask(&requester, &asked.name, &answered.name) => known,
        failed = answer(&*session, &asked.name, &answered.name) => Err(failed.err().unwrap_or("it ended".into())),
    };
    for queue in [asked, answered] {
        session.apply(&Change::DeleteQueue(queue.name)).await?;
    }
    // Over AMQP 0-9-1 all ids are text, and RabbitMQ makes a UUID of what looks like one.
    let all = protocol == Protocol::Amqp10;
    let expected = [
        ("uuid", true),
        ("ulong", all),
        ("binary", all),
        ("binary text", all),
        ("string", true),
        ("string like a uuid", all),
    ];
    let expected = expected.map(|(name, is_known)| (name.to_owned(), is_known));
    same("the answers that were known", &*known?, &expected[..])
}

/// To this queue, and not to the reply-to: on RabbitMQ 4.0 that of a requester over AMQP 1.0 is an address.
async fn answer(session: &dyn Session, queue: &ShortStr, to: &ShortStr) -> Checked {
    let mut receiver =
        session.receiver(ReceiverOptions::new(queue.clone(), NonZeroU16::MIN)).await?;
    let mut sender = session.sender(SenderOptions::new(NonZeroU16::MIN)).await?;
    for id in 0.. {
        let mut requests = Vec::new();
        receiver.receive(&mut requests, 1).await.map_err(|end| format!("{end:?}"))?;
        for request in requests {
            let asked = read(&request)?;
            let mut message = Message::new("pong");
            message.properties.message_id = Some(ShortStr::from_static("answer"));
            message.properties.correlation_id = asked.properties.message_id.clone();
            let routing_key = to.clone();
            let exchange = ShortStr::EMPTY;
            let message = Arc::new(message);
            let outgoing = Outgoing { id, exchange, routing_key, mandatory: true, message };
            sender.submit(&mut VecDeque::from([outgoing])).await?;
            let mut outcomes = Vec::new();
            sender.outcomes(&mut outcomes).await?;
            if !matches!(&*outcomes, [(_, PublishOutcome::Confirmed)]) {
                return Err(format!("{outcomes:?}").into());
            }
            receiver.settle(&[Settle::new(request.tag, Outcome::Ack)]);
        }
    }
    Ok(())
}

/// The message, which has to be one that can be read.
fn read(delivered: &Delivered) -> Checked<&Message> {
    match &delivered.undecodable {
        None => Ok(&delivered.message),
        Some(reason) => Err(format!("{:?} cannot be read: {reason}", delivered.message).into()),
    }
}

fn same<T: PartialEq<W> + std::fmt::Debug, W: std::fmt::Debug>(
    what: &str,
    got: T,
    wanted: W,
) -> Checked {
    if got == wanted { Ok(()) } else { Err(format!("{what}: {got:?}, and not {wanted:?}").into()) }
}
