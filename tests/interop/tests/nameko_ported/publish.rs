//! `test/amqp/test_publish.py`.

use std::time::Duration;

use enoki::{
    Broker, ErrorKind, Outcome, Publisher, Result,
    broker::BrokerOptions,
    codec::{Codecs, Compression, Json, MessagePack, Payload, Raw},
    consume::Delivery,
    message::{ShortStr, Table, Timestamp, Value},
    publish::{Publication, PublisherOptions},
    topology::{ExchangeKind, QueueSpec, RouteSpec, Topology},
};
use enoki_interop::Checked;

use super::stage::{Stage, bound, contents, next, same, to_queue};

fn msg() -> String {
    "msg".to_owned()
}

/// How a message arrives that the publisher's own publication was changed like this.
async fn arrives<M: Payload>(
    stage: &Stage,
    options: PublisherOptions,
    message: &M,
    change: impl for<'p> FnOnce(Publication<'p, M>) -> Result<Publication<'p, M>>,
) -> Checked<(Delivery, Broker)> {
    let broker = stage.broker().await?;
    let queue = stage.queue(&format!("q-{}", uuid::Uuid::now_v7().simple()))?;
    let publisher = publisher_with(&broker, &queue, options).await?;
    change(publisher.message(message)?)?.publish().await?;
    let mut subscription = broker.subscribe(&queue.of::<M>(), 1).await?;
    // Not settled, so it goes back when the handle goes, and with the queue.
    Ok((next(&mut subscription).await?, broker))
}

fn as_it_is<M>(publication: Publication<'_, M>) -> Result<Publication<'_, M>> {
    Ok(publication)
}

async fn publisher_with<M: Payload>(
    broker: &Broker,
    queue: &QueueSpec,
    options: PublisherOptions,
) -> Checked<Publisher<M>> {
    let options = options.declare(Topology::new().with_queue(&queue.clone().of::<M>()));
    Ok(broker.publisher_with(RouteSpec::to_queue(queue.name.as_str())?, options).await?)
}

fn table<const N: usize>(values: [(&str, &str); N]) -> Checked<Table> {
    let mut table = Table::new();
    for (name, value) in values {
        table.insert(name, value)?;
    }
    Ok(table)
}

/// All publishers of one handle share one connection.
pub(crate) async fn get_connection(stage: &Stage) -> Checked {
    let broker = stage.behind_the_proxy().await?;
    let (one, two) = (stage.queue("one")?, stage.queue("two")?);
    for queue in [&one, &two, &one] {
        to_queue::<String>(&broker, queue).await?.publish(&msg()).await?;
    }
    same("connections", stage.proxy().traffic().accepted, 1)
}

/// Who does not wait for the outcome is not told that the exchange is missing. On AMQP 0-9-1 it ends
/// the channel, and with it what is on its way by the same publisher; the publisher goes on.
pub(crate) async fn confirms_disabled(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let missing = stage.exchange("missing", ExchangeKind::Direct)?;
    let publisher = to_queue::<String>(&broker, &queue).await?;
    let other = to_queue::<String>(&broker, &queue).await?;
    let lost = publisher.message(&"lost".to_owned())?.route(RouteSpec::new(&missing, "key")?);
    drop(lost.enqueue().await?);
    other.publish(&"other".to_owned()).await?;
    match publisher.publish(&msg()).await {
        Err(error) if error.kind() == ErrorKind::Indeterminate => {
            publisher.publish(&msg()).await?;
        }
        outcome => drop(outcome?),
    }
    same("what arrives", contents(&broker, &queue).await?, ["\"other\"", "\"msg\""])
}

/// Who waits is told, and the next message is not disturbed by it.
pub(crate) async fn confirms_enabled(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let missing = stage.exchange("missing", ExchangeKind::Direct)?;
    let publisher = to_queue::<String>(&broker, &queue).await?;
    let lost = publisher.message(&"lost".to_owned())?.route(RouteSpec::new(&missing, "key")?);
    let error = lost.publish().await.err().ok_or("it was published to an exchange that is not")?;
    let kinds = [ErrorKind::NotFound, ErrorKind::Unroutable, ErrorKind::Indeterminate];
    same(&format!("the kind of {error}"), kinds.contains(&error.kind()), true)?;
    publisher.publish(&msg()).await?;
    same("what arrives", contents(&broker, &queue).await?, ["\"msg\""])
}

/// Without an exchange of its own a message goes to the queue of its key.
pub(crate) async fn routing(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let (exchange, queue) = (stage.exchange("x", ExchangeKind::Direct)?, stage.queue("q")?);
    let by_exchange = bound::<String>(&queue, &exchange, "key")?;
    let options = PublisherOptions::new().declare(Topology::new().with_queue(&by_exchange));
    let route = RouteSpec::new(&exchange, "key")?;
    let publisher = broker.publisher_with(route, options).await?;
    let default = RouteSpec::to_queue(queue.name.as_str())?;
    publisher.message(&msg())?.route(default).publish().await?;
    let mut subscription = broker.subscribe(&by_exchange, 1).await?;
    let delivery = next(&mut subscription).await?;
    same("the exchange", &*delivery.envelope().exchange, "")?;
    same("the key", &*delivery.envelope().routing_key, &*queue.name)?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

/// Persistence, priority and expiration.
pub(crate) async fn delivery_options(stage: &Stage) -> Checked {
    let (it, _broker) = arrives(stage, PublisherOptions::new(), &msg(), |publication| {
        Ok(publication.persistent(false).priority(10).expiration(Duration::from_secs(10)))
    })
    .await?;
    let properties = &it.message().properties;
    same("persistent", properties.persistent, false)?;
    same("the priority", properties.priority, Some(10))?;
    same("the expiration", properties.expiration, Some(Duration::from_secs(10)))
}

/// An unroutable message is an error to a publisher that waits, and nothing to one that does not.
pub(crate) async fn confirms(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("x", ExchangeKind::Direct)?;
    let publisher = broker.publisher(RouteSpec::<String>::new(&exchange, "missing")?).await?;
    let error = publisher.publish(&msg()).await.err().ok_or("it was routed")?;
    same("the kind of error", error.kind(), ErrorKind::Unroutable)?;
    drop(publisher.enqueue(&msg()).await?);
    Ok(())
}

/// Unless it is optional; then it is no error, and gone.
pub(crate) async fn mandatory_delivery(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("x", ExchangeKind::Direct)?;
    let route = RouteSpec::<String>::new(&exchange, "missing")?;
    let publisher = broker.publisher_with(route, PublisherOptions::new().optional()).await?;
    publisher.publish(&msg()).await?;
    let mandatory = publisher.message(&msg())?.mandatory(true).publish().await;
    same("the kind of error", mandatory.err().map(|it| it.kind()), Some(ErrorKind::Unroutable))?;
    publisher.publish(&msg()).await.map(drop).map_err(Into::into)
}

/// The encoding is the publisher's, and the message says which.
pub(crate) async fn serializer(stage: &Stage) -> Checked {
    for (codecs, content_type, body) in [
        (Codecs::only(Json), "application/json", &b"\"msg\""[..]),
        (Codecs::only(MessagePack), "application/x-msgpack", &b"\xa3msg"[..]),
    ] {
        let options = PublisherOptions::new().codecs(codecs);
        let (it, _broker) = arrives(stage, options, &msg(), as_it_is).await?;
        let properties = &it.message().properties;
        same("the content type", properties.content_type.as_deref(), Some(content_type))?;
        same("the body", it.message().body.as_ref(), body)?;
    }
    Ok(())
}

/// A compressed body says so in a header, and is what it was.
pub(crate) async fn compression(stage: &Stage) -> Checked {
    let codecs = Codecs::default().compressed(Compression::new().min_size(0));
    let broker = stage.broker_with(BrokerOptions::new().codecs(codecs)).await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<String>(&broker, &queue).await?;
    let long = "msg ".repeat(1000);
    publisher.publish(&long).await?;
    let mut subscription = broker.subscribe(&queue.of::<String>(), 1).await?;
    let delivery = next(&mut subscription).await?;
    let message = delivery.message();
    same("the header", message.headers.get("compression"), Some(&"application/x-gzip".into()))?;
    same("shorter", message.body.len() < long.len() / 2, true)?;
    same("the body", delivery.decode::<String>()?, long)?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

/// A content type of one's own goes with bytes that stay as they are.
pub(crate) async fn content_type(stage: &Stage) -> Checked {
    let raw = Raw::new("application/octet-stream", &b"\xff\x00raw"[..])?;
    let (it, _broker) = arrives(stage, PublisherOptions::new(), &raw, as_it_is).await?;
    let properties = &it.message().properties;
    same("the type", properties.content_type.as_deref(), Some("application/octet-stream"))?;
    same("the body", it.message().body.as_ref(), &b"\xff\x00raw"[..])
}

/// So does a content encoding.
pub(crate) async fn content_encoding(stage: &Stage) -> Checked {
    let utf_16: Vec<u8> = "msg".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let raw = Raw::new("application/text", utf_16.clone())?;
    let (it, _broker) = arrives(stage, PublisherOptions::new(), &raw, |publication| {
        publication.content_encoding("utf-16-le")
    })
    .await?;
    let properties = &it.message().properties;
    same("the type", properties.content_type.as_deref(), Some("application/text"))?;
    same("the encoding", properties.content_encoding.as_deref(), Some("utf-16-le"))?;
    same("the body", it.message().body.as_ref(), utf_16.as_slice())
}

/// None, the publisher's, the call's, both, and on the same name the call's.
pub(crate) async fn headers(stage: &Stage) -> Checked {
    let rows = [
        (table([])?, None, table([])?),
        (table([("x", "foo")])?, None, table([("x", "foo")])?),
        (table([("x", "foo")])?, Some(("y", "bar")), table([("x", "foo"), ("y", "bar")])?),
        (table([("x", "foo")])?, Some(("x", "bar")), table([("x", "bar")])?),
    ];
    for (of_publisher, of_call, expected) in rows {
        let options = PublisherOptions::new().headers(of_publisher);
        let (it, _broker) = arrives(stage, options, &msg(), |publication| match of_call {
            Some((name, value)) => publication.header(name, value),
            None => Ok(publication),
        })
        .await?;
        same("the headers", &it.message().headers, &expected)?;
    }
    Ok(())
}

/// Each property reaches the wire. The cluster id, which AMQP has done away with, is none.
pub(crate) async fn message_properties(stage: &Stage) -> Checked {
    let (it, _broker) = arrives(stage, PublisherOptions::new(), &msg(), |publication| {
        let publication = publication.reply_to("queue_name")?.message_id("msg.1")?;
        publication.kind("type")?.app_id("app.1")?.correlation_id("msg.1")
    })
    .await?;
    let properties = &it.message().properties;
    let text = |text| Some(ShortStr::from_static(text));
    same("reply to", &properties.reply_to, &text("queue_name"))?;
    same("the message id", &properties.message_id, &text("msg.1"))?;
    same("the kind", &properties.kind, &text("type"))?;
    same("the app id", &properties.app_id, &text("app.1"))?;
    same("the correlation id", &properties.correlation_id, &text("msg.1"))
}

/// A point in time, in whole seconds.
pub(crate) async fn timestamp(stage: &Stage) -> Checked {
    let time = Timestamp::from_unix_seconds(1_500_000_000);
    let (it, _broker) = arrives(stage, PublisherOptions::new(), &msg(), |publication| {
        Ok(publication.timestamp(time))
    })
    .await?;
    same("the timestamp", it.message().properties.timestamp, Some(time))
}

/// One's own name is fine, another's is refused. In memory there are no logins.
pub(crate) async fn user_id(stage: &Stage) -> Checked {
    let Some(user) = stage.user() else { return Ok(()) };
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<String>(&broker, &queue).await?;
    publisher.message(&"mine".to_owned())?.user_id(user)?.publish().await?;
    let other = publisher.message(&"another's".to_owned())?.user_id("invalid")?.publish().await;
    let kind = other.err().ok_or("another's name was taken")?.kind();
    let refused =
        [ErrorKind::Conflict, ErrorKind::Denied, ErrorKind::Refused, ErrorKind::Indeterminate];
    same(&format!("{kind:?} is a refusal"), refused.contains(&kind), true)?;
    same("what arrives", contents(&broker, &queue).await?, ["\"mine\""])
}

/// Everything that it declares is there before the message, so every bound queue gets it.
pub(crate) async fn declare(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("x", ExchangeKind::Fanout)?;
    let queues = [stage.queue("a")?, stage.queue("b")?, stage.queue("c")?];
    let mut topology = Topology::new();
    for queue in &queues {
        topology = topology.with_queue(&bound::<String>(queue, &exchange, "")?);
    }
    let options = PublisherOptions::new().declare(topology);
    let publisher = broker.publisher_with(RouteSpec::new(&exchange, "")?, options).await?;
    publisher.publish(&msg()).await?;
    for queue in &queues {
        same("what arrives", contents(&broker, queue).await?, ["\"msg\""])?;
    }
    Ok(())
}

/// Headers of a call are that call's: the next one has the publisher's again.
pub(crate) async fn header_precedence(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let options = PublisherOptions::new().headers(table([("x-foo", "foo")])?);
    let publisher = publisher_with::<String>(&broker, &queue, options).await?;
    publisher.publish(&msg()).await?;
    publisher.message(&msg())?.header("x-bar", "bar")?.publish().await?;
    publisher.message(&msg())?.header("x-foo", "bar")?.publish().await?;
    publisher.publish(&msg()).await?;
    let mut subscription = broker.subscribe(&queue.of::<String>(), 1).await?;
    for expected in [
        table([("x-foo", "foo")])?,
        table([("x-foo", "foo"), ("x-bar", "bar")])?,
        table([("x-foo", "bar")])?,
        table([("x-foo", "foo")])?,
    ] {
        let delivery = next(&mut subscription).await?;
        let headers: Vec<(String, Value)> = delivery
            .message()
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.clone()))
            .collect();
        let expected: Vec<_> =
            expected.into_iter().map(|(name, value)| (name.as_str().to_owned(), value)).collect();
        same("the headers", headers, expected)?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}
