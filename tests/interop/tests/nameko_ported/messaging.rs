//! `test/test_messaging.py`, but for connections that break.

use std::sync::Arc;

use enoki::{
    Body, Failure, Outcome, Service,
    broker::BrokerOptions,
    consume::{Envelope, Handler, OnError},
    context::{Context, PrefixCodec},
    message::{ShortStr, Table, Value},
    publish::PublisherOptions,
    testing::EntrypointWaiter,
    topology::{DeadLetter, ExchangeKind, RouteSpec, Topology},
};
use enoki_interop::Checked;
use tokio::sync::{Notify, mpsc};

use super::stage::{Stage, bound, call, contents, heard, next, same, soon, to_queue};

/// Acknowledged when the handler returns, and by `OnError::ack` also when it fails; requeued by
/// `OnError::requeue`; given back when the service is killed, whatever it says of errors.
pub(crate) async fn consume_provider(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.dead_letter = Some(DeadLetter::to_queue(dead.name.clone()));
    // Declared by itself, and so before: what a queue only names has to be there.
    to_queue::<String>(&broker, &dead).await?;
    let publisher = to_queue::<String>(&broker, &queue).await?;
    let fails_once = |Body(body): Body<String>, envelope: Envelope| async move {
        match body.as_str() {
            "fail" if !envelope.redelivered => Err(Failure::new("as it was told")),
            _ => Ok(()),
        }
    };
    for (on_error, body, expected) in [
        (OnError::ack(), "fine", vec![Outcome::Ack]),
        (OnError::ack(), "fail", vec![Outcome::Ack]),
        (OnError::requeue(), "fail", vec![Outcome::Requeue, Outcome::Ack]),
    ] {
        let service = Service::new("test", broker.clone())
            .consume(&queue.clone().of::<String>(), fails_once.on_error(on_error));
        let running = service.start().await?;
        let mut waiter = EntrypointWaiter::new(&running);
        publisher.publish(&body.to_owned()).await?;
        for outcome in expected {
            same("how it is settled", waiter.any().await?.outcome, Some(outcome))?;
        }
        running.stop(soon()).await?;
        same("what is left", contents(&broker, &queue).await?, [""; 0])?;
        same("dead letters", contents(&broker, &dead).await?, [""; 0])?;
    }
    let (began, mut begins) = mpsc::unbounded_channel();
    let hangs = move |Body(body): Body<String>| {
        let _ = began.send(body);
        std::future::pending::<()>()
    };
    let service = Service::new("test", broker.clone())
        .consume(&queue.clone().of::<String>(), hangs.on_error(OnError::ack()));
    let running = service.start().await?;
    publisher.publish(&"killed".to_owned()).await?;
    heard(&mut begins).await?;
    running.kill().await;
    same("what comes back", contents(&broker, &queue).await?, ["\"killed\""])
}

/// The exchange exists as soon as the publisher does; a message has the payload, the headers of the
/// context, and the defaults.
pub(crate) async fn publish_to_exchange(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let (exchange, queue) = (stage.exchange("x", ExchangeKind::Direct)?, stage.queue("q")?);
    let publisher = broker.publisher(RouteSpec::<String>::new(&exchange, "key")?).await?;
    broker.verify(&Topology::new().with_exchange(&exchange)).await?;
    let queue = bound::<String>(&queue, &exchange, "key")?;
    let mut subscription = broker.subscribe(&queue, 1).await?;
    let context = call([("language", "en".into())])?;
    context.scope(publisher.publish(&"msg".to_owned())).await?;
    let delivery = next(&mut subscription).await?;
    let envelope = delivery.envelope();
    same("the exchange", &*envelope.exchange, &*exchange.name)?;
    same("the key", &*envelope.routing_key, "key")?;
    same("the payload", delivery.decode::<String>()?, "msg")?;
    let message = delivery.message();
    same("the context", message.headers.get("nameko.language"), Some(&"en".into()))?;
    let properties = &message.properties;
    same("the content type", properties.content_type.as_deref(), Some("application/json"))?;
    same("persistent", properties.persistent, true)?;
    same("the expiration", properties.expiration, None)?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

/// Every value of the context is a header, with the prefix, and the call ids are.
pub(crate) async fn publish_custom_headers(stage: &Stage) -> Checked {
    let values = [
        ("language", "en"),
        ("auth_token", "12345"),
        ("user_id", "1"),
        ("user_agent", "agent"),
        ("hello", "world"),
    ];
    let context = call(values.map(|(name, value)| (name, value.into())))?;
    let headers = published_in(stage, BrokerOptions::new(), &context).await?;
    let mut expected = Table::new();
    for (name, value) in values {
        expected.insert(format!("nameko.{name}"), value)?;
    }
    expected.insert("nameko.call_id_stack", call_ids(&context))?;
    same("the headers", headers, expected)
}

/// The prefix is the codec's; a value that is none is left out.
pub(crate) async fn header_encoder(stage: &Stage) -> Checked {
    let context = call([("foo", "FOO".into()), ("bar", "BAR".into()), ("baz", Value::Null)])?;
    let headers = published_in(stage, prefixed("testprefix")?, &context).await?;
    let mut expected = Table::new();
    expected.insert("testprefix.foo", "FOO")?;
    expected.insert("testprefix.bar", "BAR")?;
    expected.insert("testprefix.call_id_stack", call_ids(&context))?;
    same("the headers", headers, expected)
}

/// The codec's own prefix is cut off, others stay what they are, and lists stay lists.
pub(crate) async fn header_decoder(stage: &Stage) -> Checked {
    let broker = stage.broker_with(prefixed("testprefix")?).await?;
    let queue = stage.queue("q")?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |context: Context, envelope: Envelope| {
        let _ = seen.send((context, envelope));
        async {}
    };
    let service =
        Service::new("test", broker.clone()).consume(&queue.clone().of::<String>(), handler);
    let running = service.start().await?;
    let list: Value = vec![Value::from(1), 2.into(), 3.into()].into();
    let publication = to_queue::<String>(&broker, &queue).await?;
    let publication = publication.message(&String::new())?.header("testprefix.foo", "FOO")?;
    let publication = publication.header("testprefix.bar", "BAR")?.header("baz", "BAZ")?;
    publication.header("testprefix.list", list.clone())?.publish().await?;
    let (context, envelope) = heard(&mut sees).await?;
    let mut expected = Table::new();
    expected.insert("foo", "FOO")?;
    expected.insert("bar", "BAR")?;
    expected.insert("list", list)?;
    same("the context", context.values(), &expected)?;
    same("the other header", envelope.message.headers.get("baz"), Some(&"BAZ".into()))?;
    Ok(running.stop(soon()).await?)
}

/// What it declares is there, the body is JSON, and the headers are those of the context.
pub(crate) async fn publish_to_rabbit(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let (exchange, queue) = (stage.exchange("x", ExchangeKind::Direct)?, stage.queue("q")?);
    let queue = bound::<String>(&queue, &exchange, "key")?;
    let topology = Topology::new().with_queue(&queue);
    let options = PublisherOptions::new().declare(topology.clone());
    let route = RouteSpec::<String>::new(&exchange, "key")?;
    let publisher = broker.publisher_with(route, options).await?;
    broker.verify(&topology).await?;
    let context = call([("language", "en".into()), ("customheader", "customvalue".into())])?;
    // That it is routed says that the binding is there, too.
    context.clone().scope(publisher.publish(&"msg".to_owned())).await?;
    let mut subscription = broker.subscribe(&queue, 1).await?;
    let delivery = next(&mut subscription).await?;
    same("the body", delivery.message().body.as_ref(), &b"\"msg\""[..])?;
    let mut expected = Table::new();
    expected.insert("nameko.language", "en")?;
    expected.insert("nameko.customheader", "customvalue")?;
    expected.insert("nameko.call_id_stack", call_ids(&context))?;
    same("the headers", &delivery.message().headers, &expected)?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

/// A value that is none is not on the wire, the others are.
pub(crate) async fn unserialisable_headers(stage: &Stage) -> Checked {
    let context = call([("language", "en".into()), ("customheader", Value::Null)])?;
    let headers = published_in(stage, BrokerOptions::new(), &context).await?;
    let mut expected = Table::new();
    expected.insert("nameko.language", "en")?;
    expected.insert("nameko.call_id_stack", call_ids(&context))?;
    same("the headers", headers, expected)
}

/// The start declares queue, exchange and binding; a message reaches the handler with its context;
/// the stop returns when it is acknowledged.
pub(crate) async fn consume_from_rabbit(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let (exchange, spec) = (stage.exchange("x", ExchangeKind::Direct)?, stage.queue("q")?);
    let queue = bound::<String>(&spec, &exchange, "key")?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let finish = Arc::new(Notify::new());
    let may_finish = finish.clone();
    let handler = move |Body(body): Body<String>, context: Context| {
        let _ = seen.send((body, context));
        let may_finish = may_finish.clone();
        async move { may_finish.notified().await }
    };
    let running = Service::new("test", broker.clone()).consume(&queue, handler).start().await?;
    broker.verify(&Topology::new().with_queue(&queue)).await?;
    let publisher = broker.publisher(RouteSpec::<String>::new(&exchange, "key")?).await?;
    let publication = publisher.message(&"msg".to_owned())?.header("nameko.language", "en")?;
    publication.header("nameko.customheader", "customvalue")?.publish().await?;
    let (body, context) = heard(&mut sees).await?;
    same("the body", body, "msg")?;
    let mut expected = Table::new();
    expected.insert("language", "en")?;
    expected.insert("customheader", "customvalue")?;
    same("the context", context.values(), &expected)?;
    let finishing = async { finish.notify_one() };
    let (stopped, ()) = tokio::join!(running.stop(soon()), finishing);
    stopped?;
    same("what is left", contents(&broker, &spec).await?, [""; 0])
}

/// Headers of the publisher, of the call and of the context, together; the context wins.
pub(crate) async fn headers(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?.of::<String>();
    let mut of_publisher = Table::new();
    of_publisher.insert("x-header", "foo")?;
    of_publisher.insert("nameko.language", "sv")?;
    let options = PublisherOptions::new().headers(of_publisher);
    let options = options.declare(Topology::new().with_queue(&queue));
    let route = RouteSpec::<String>::to_queue(broker.queue_name(&queue)?.as_str())?;
    let publisher = broker.publisher_with(route, options).await?;
    let context = call([("language", "en".into())])?;
    let publication = publisher.message(&"msg".to_owned())?.header("y-header", "bar")?;
    context.clone().scope(publication.publish()).await?;
    let mut subscription = broker.subscribe(&queue, 1).await?;
    let delivery = next(&mut subscription).await?;
    let mut expected = Table::new();
    expected.insert("x-header", "foo")?;
    expected.insert("y-header", "bar")?;
    expected.insert("nameko.language", "en")?;
    expected.insert("nameko.call_id_stack", call_ids(&context))?;
    same("the headers", &delivery.message().headers, &expected)?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

/// The headers of a message that is published in this context.
async fn published_in(stage: &Stage, options: BrokerOptions, context: &Context) -> Checked<Table> {
    let broker = stage.broker_with(options).await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<String>(&broker, &queue).await?;
    context.clone().scope(publisher.publish(&"msg".to_owned())).await?;
    let mut subscription = broker.subscribe(&queue.of::<String>(), 1).await?;
    let delivery = next(&mut subscription).await?;
    let headers = delivery.message().headers.clone();
    delivery.settle(Outcome::Ack);
    Ok(headers)
}

fn prefixed(prefix: &'static str) -> Checked<BrokerOptions> {
    Ok(BrokerOptions::new().header_codec(PrefixCodec::new(ShortStr::new(prefix)?)))
}

fn call_ids(context: &Context) -> Value {
    context.call_ids().iter().map(|id| Value::from(id.as_str())).collect::<Vec<_>>().into()
}
