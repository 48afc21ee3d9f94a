//! `test/test_call_id_stack.py`.

use enoki::{
    Body, Failure, Publisher, Service, State,
    broker::BrokerOptions,
    consume::Handler,
    context::Context,
    message::Value,
    topology::{ExchangeKind, RouteSpec},
};
use enoki_interop::Checked;
use tokio::sync::mpsc;

use super::stage::{Stage, bound, heard, same, soon, to_queue};

/// The ids of the calls, without what makes them unique.
fn calls(context: &Context) -> Vec<String> {
    let name = |id: &String| id.rsplit_once('.').map_or(id.clone(), |(name, _)| name.to_owned());
    context.call_ids().iter().map(name).collect()
}

/// The context of a call whose message says that these calls led to it.
async fn context_after(stage: &Stage, options: BrokerOptions, ids: &[&str]) -> Checked<Context> {
    let broker = stage.broker_with(options).await?;
    let queue = stage.queue("q")?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |context: Context| {
        let _ = seen.send(context);
        async {}
    };
    let service = Service::new("baz", broker.clone())
        .consume(&queue.clone().of::<String>(), handler.named("method"));
    let running = service.start().await?;
    let ids: Vec<_> = ids.iter().map(|id| Value::from(*id)).collect();
    let publisher = to_queue::<String>(&broker, &queue).await?;
    let publication = publisher.message(&String::new())?.header("nameko.call_id_stack", ids)?;
    publication.publish().await?;
    let context = heard(&mut sees).await?;
    running.stop(soon()).await?;
    Ok(context)
}

/// A worker adds its own id to those of the message.
pub(crate) async fn worker_context_gets_stack(stage: &Stage) -> Checked {
    let context = context_after(stage, BrokerOptions::new(), &["foo.bar.0", "bar.foo.1"]).await?;
    same("the calls", calls(&context), ["foo.bar", "bar.foo", "baz.method"])?;
    same("the first call", context.origin_call_id(), Some("foo.bar.0"))?;
    same("the call before", context.parent_call_id(), Some("bar.foo.1"))
}

/// Of more calls than are tracked the last are kept.
pub(crate) async fn short_call_stack(stage: &Stage) -> Checked {
    let options = BrokerOptions::new().parent_calls(1);
    let context = context_after(stage, options, &["foo.bar.0", "foo.bar.1", "foo.bar.2"]).await?;
    same("the calls", calls(&context), ["foo.bar", "baz.method"])?;
    same("the call before", context.parent_call_id(), Some("foo.bar.2"))
}

async fn pass(
    State(to): State<Publisher<String>>,
    Body(body): Body<String>,
) -> Result<(), Failure> {
    to.publish(&body).await?;
    Ok(())
}

/// Over three hops there are three ids, each service's own.
pub(crate) async fn call_id_stack(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let queues = [stage.queue("parent")?, stage.queue("child")?, stage.queue("grandchild")?];
    let (seen, mut sees) = mpsc::unbounded_channel();
    let method = move |context: Context| {
        let _ = seen.send(context);
        async {}
    };
    let [parent, child, grandchild] = queues;
    let mut services = Vec::new();
    for (name, from, to) in [("parent", &parent, &child), ("child", &child, &grandchild)] {
        let service = Service::new(name, broker.clone())
            .state(to_queue::<String>(&broker, to).await?)
            .consume(&from.clone().of::<String>(), pass.named("method"));
        services.push(service.start().await?);
    }
    let service = Service::new("grandchild", broker.clone())
        .consume(&grandchild.of::<String>(), method.named("method"));
    services.push(service.start().await?);
    to_queue::<String>(&broker, &parent).await?.publish(&"hello".to_owned()).await?;
    let context = heard(&mut sees).await?;
    let expected = ["parent.method", "child.method", "grandchild.method"];
    same("the calls", calls(&context), expected)?;
    for service in services {
        service.stop(soon()).await?;
    }
    Ok(())
}

/// Over an event each listener has the one call before its own.
pub(crate) async fn call_id_over_events(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let (orders, events) = (stage.queue("orders")?, stage.exchange("events", ExchangeKind::Topic)?);
    let (seen, mut sees) = mpsc::unbounded_channel();
    let hear = move |context: Context| {
        let _ = seen.send(calls(&context));
        async {}
    };
    let (one, two) = (stage.queue("one")?, stage.queue("two")?);
    let listeners = Service::new("listener", broker.clone())
        .consume(&bound::<String>(&one, &events, "event")?, hear.clone().named("one"))
        .consume(&bound::<String>(&two, &events, "event")?, hear.named("two"));
    let listeners = listeners.start().await?;
    let dispatch = broker.publisher(RouteSpec::<String>::new(&events, "event")?).await?;
    let emitter = Service::new("emitter", broker.clone())
        .state(dispatch)
        .consume(&orders.clone().of::<String>(), pass.named("emit"));
    let emitter = emitter.start().await?;
    to_queue::<String>(&broker, &orders).await?.publish(&"hello".to_owned()).await?;
    let mut heard = [heard(&mut sees).await?, heard(&mut sees).await?];
    heard.sort();
    same("the calls", heard, [["emitter.emit", "listener.one"], ["emitter.emit", "listener.two"]])?;
    emitter.stop(soon()).await?;
    Ok(listeners.stop(soon()).await?)
}
