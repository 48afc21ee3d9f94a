//! `test/test_events.py`. Events are a topology, not a layer: the exchange of a service, and a queue
//! for each handler that gets them.

use std::collections::BTreeMap;

use enoki::{
    Body, ErrorKind, Failure, Outcome, Publisher, Service,
    consume::{Envelope, Handler, OnError},
    service::RunningService,
    topology::{DynamicQueue, ExchangeKind, ExchangeSpec, QueueSpec, RouteSpec, Topology},
};
use enoki_interop::Checked;
use tokio::sync::mpsc;

use super::stage::{Stage, bound, call, contents, heard, in_time, next, same, soon};

/// Who heard which event.
type Heard = (String, u32);

struct Events {
    exchange: ExchangeSpec,
    dispatch: Publisher<u32>,
    tell: mpsc::UnboundedSender<Heard>,
    hears: mpsc::UnboundedReceiver<Heard>,
    running: Vec<RunningService>,
}

impl Events {
    async fn of(stage: &Stage) -> Checked<Self> {
        let exchange = stage.exchange("events", ExchangeKind::Topic)?;
        let route = RouteSpec::<u32>::new(&exchange, "eventtype")?;
        let dispatch = stage.broker().await?.publisher(route).await?;
        let (tell, hears) = mpsc::unbounded_channel();
        Ok(Self { exchange, dispatch, tell, hears, running: Vec::new() })
    }

    fn queue(&self, queue: &QueueSpec) -> Checked<DynamicQueue<u32>> {
        bound(queue, &self.exchange, "eventtype")
    }

    /// A service on connections of its own that listens on this queue.
    async fn listen(&mut self, stage: &Stage, name: &str, queue: &QueueSpec) -> Checked {
        let (tell, who) = (self.tell.clone(), name.to_owned());
        let handler = move |Body(event): Body<u32>| {
            let _ = tell.send((who.clone(), event));
            async {}
        };
        let service = Service::new(name.to_owned(), stage.broker().await?);
        self.running.push(service.consume(&self.queue(queue)?, handler).start().await?);
        Ok(())
    }

    async fn emit(&self, events: std::ops::Range<u32>) -> Checked {
        for event in events {
            self.dispatch.publish(&event).await?;
        }
        Ok(())
    }

    /// So many, by who heard them, in order.
    async fn heard(&mut self, count: usize) -> Checked<BTreeMap<String, Vec<u32>>> {
        let mut by_name: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for _ in 0..count {
            let (name, event) = heard(&mut self.hears).await?;
            by_name.entry(name).or_default().push(event);
        }
        by_name.values_mut().for_each(|events| events.sort_unstable());
        Ok(by_name)
    }

    /// Stops all that listen; nothing more was heard.
    async fn end(mut self) -> Checked {
        for running in self.running {
            running.stop(soon()).await?;
        }
        same("heard besides", self.hears.try_recv().ok(), None::<Heard>)
    }
}

fn all(of: &BTreeMap<String, Vec<u32>>) -> Vec<u32> {
    let mut all: Vec<_> = of.values().flatten().copied().collect();
    all.sort_unstable();
    all
}

/// Instances of a service share its queue: one of them hears an event.
pub(crate) async fn service_pooled(stage: &Stage) -> Checked {
    let mut events = Events::of(stage).await?;
    let queue = stage.queue("evt-src-eventtype--foo.handle")?;
    for instance in ["foo 1", "foo 2"] {
        events.listen(stage, instance, &queue).await?;
    }
    events.emit(0..6).await?;
    let heard = events.heard(6).await?;
    same("what is heard", all(&heard), [0, 1, 2, 3, 4, 5])?;
    events.end().await
}

/// Handlers with a queue each hear every event, once.
pub(crate) async fn multiple_handlers(stage: &Stage) -> Checked {
    let mut events = Events::of(stage).await?;
    let (one, two) = (stage.queue("evt--foo.one")?, stage.queue("evt--foo.two")?);
    events.listen(stage, "one", &one).await?;
    events.listen(stage, "two", &two).await?;
    events.emit(0..3).await?;
    let heard = events.heard(6).await?;
    same("who heard", heard.keys().collect::<Vec<_>>(), ["one", "two"])?;
    same("what is heard", heard.values().all(|events| *events == [0, 1, 2]), true)?;
    events.end().await
}

/// Services that share a queue whatever they are called: one of all hears an event.
pub(crate) async fn singleton(stage: &Stage) -> Checked {
    let mut events = Events::of(stage).await?;
    let queue = stage.queue("evt-src-eventtype")?;
    events.listen(stage, "foo", &queue).await?;
    events.listen(stage, "bar", &queue).await?;
    events.emit(0..6).await?;
    let heard = events.heard(6).await?;
    same("what is heard", all(&heard), [0, 1, 2, 3, 4, 5])?;
    events.end().await
}

/// Each instance has a queue of its own under one name: all hear every event.
pub(crate) async fn broadcast(stage: &Stage) -> Checked {
    let mut events = Events::of(stage).await?;
    let mut queue = QueueSpec::new(stage.name("evt"))?;
    (queue.durable, queue.exclusive, queue.auto_delete, queue.unique) = (false, true, true, true);
    for instance in ["foo 1", "foo 2", "bar"] {
        events.listen(stage, instance, &queue).await?;
    }
    events.emit(0..2).await?;
    let heard = events.heard(6).await?;
    same("who heard", heard.keys().collect::<Vec<_>>(), ["bar", "foo 1", "foo 2"])?;
    same("what is heard", heard.values().all(|events| *events == [0, 1]), true)?;
    events.end().await
}

/// An event whose handler fails is heard again.
pub(crate) async fn requeue_on_error(stage: &Stage) -> Checked {
    let events = Events::of(stage).await?;
    let queue = events.queue(&stage.queue("evt")?)?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(event): Body<u32>, envelope: Envelope| {
        let _ = seen.send((event, envelope.redelivered));
        async move { if envelope.redelivered { Ok(()) } else { Err(Failure::new("the first time")) } }
    };
    let service = Service::new("foo", stage.broker().await?)
        .consume(&queue, handler.on_error(OnError::requeue()));
    let running = service.start().await?;
    events.emit(7..8).await?;
    same("the first time", heard(&mut sees).await?, (7, false))?;
    same("and again", heard(&mut sees).await?, (7, true))?;
    running.stop(soon()).await?;
    same("no more", sees.try_recv().ok(), None::<(u32, bool)>)
}

/// An event that is published while no service runs waits in the queue.
pub(crate) async fn reliable_delivery(stage: &Stage) -> Checked {
    let mut events = Events::of(stage).await?;
    let queue = stage.queue("evt")?;
    events.listen(stage, "foo", &queue).await?;
    events.emit(0..1).await?;
    same("what is heard", all(&events.heard(1).await?), [0])?;
    events.running.pop().ok_or("no service runs")?.stop(soon()).await?;
    events.emit(1..3).await?;
    events.listen(stage, "foo", &queue).await?;
    events.emit(3..4).await?;
    same("what is heard", all(&events.heard(3).await?), [1, 2, 3])?;
    events.end().await
}

/// A queue that goes with its last consumer keeps nothing.
pub(crate) async fn unreliable_delivery(stage: &Stage) -> Checked {
    let mut events = Events::of(stage).await?;
    let mut queue = stage.queue("evt")?;
    queue.auto_delete = true;
    events.listen(stage, "foo", &queue).await?;
    events.emit(0..1).await?;
    same("what is heard", all(&events.heard(1).await?), [0])?;
    events.running.pop().ok_or("no service runs")?.stop(soon()).await?;
    // The broker deletes it a moment after the consumer went.
    let gone = async {
        loop {
            match events.dispatch.publish(&1).await {
                Err(error) if error.kind() == ErrorKind::Unroutable => return Ok(()),
                // One on its way out may refuse a message.
                Err(error) if error.kind() != ErrorKind::Refused => return Err(error),
                _ => {}
            }
        }
    };
    in_time("the end of the queue", gone).await??;
    events.listen(stage, "foo", &queue).await?;
    events.emit(2..3).await?;
    same("what is heard", all(&events.heard(1).await?), [2])?;
    events.end().await
}

/// An event is a message to the exchange of the service, with its type as the key.
pub(crate) async fn dispatch_to_rabbit(stage: &Stage) -> Checked {
    let events = Events::of(stage).await?;
    let (broker, spec) = (stage.broker().await?, stage.queue("q")?);
    let queue = bound::<u32>(&spec, &events.exchange, "#")?;
    broker.declare(&Topology::new().with_queue(&queue)).await?;
    let context = call([("language", "en".into())])?;
    context.scope(events.dispatch.publish(&5)).await?;
    let mut subscription = broker.subscribe(&queue, 1).await?;
    let delivery = next(&mut subscription).await?;
    same("the exchange", &*delivery.envelope().exchange, &*events.exchange.name)?;
    same("the key", &*delivery.envelope().routing_key, "eventtype")?;
    same("the body", delivery.decode::<u32>()?, 5)?;
    let language = delivery.message().headers.get("nameko.language");
    same("the context", language, Some(&"en".into()))?;
    delivery.settle(Outcome::Ack);
    subscription.stop(soon()).await?;
    same("what is left", contents(&broker, &spec).await?, [""; 0])
}
