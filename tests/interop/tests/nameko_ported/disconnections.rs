//! `TestConsumerDisconnections` and `TestPublisherDisconnections` of `test/test_messaging.py`, and
//! `test/test_broker.py`: a proxy breaks the connection, in the ways that the original's did.

use std::{sync::Arc, time::Duration};

use enoki::{
    Body, Broker, ErrorKind, Failure, Publisher, Service,
    broker::{BrokerHealth, Health},
    consume::{ConsumerHealth, Envelope, Handler, OnError},
    publish::{PublisherOptions, RetryPolicy},
    service::RunningService,
    topology::{QueueSpec, RouteSpec, Topology},
};
use enoki_faults::proxy::{Cut, Direction, Door, Flow};
use enoki_interop::Checked;
use tokio::sync::{Semaphore, mpsc, watch};

use super::stage::{Stage, contents, heard, in_time, same, soon, to_queue, within};

/// A service behind the proxy that tells what it hears, and a publisher past it.
struct Listening {
    running: RunningService,
    health: watch::Receiver<ConsumerHealth>,
    hears: mpsc::UnboundedReceiver<String>,
    publisher: Publisher<String>,
    queue: QueueSpec,
}

impl Listening {
    async fn start(stage: &Stage) -> Checked<Self> {
        let queue = stage.queue("q")?;
        let (tell, hears) = mpsc::unbounded_channel();
        let handler = move |Body(body): Body<String>| {
            let _ = tell.send(body);
            async {}
        };
        let service = Service::new("test", stage.behind_the_proxy().await?)
            .consume(&queue.clone().of::<String>(), handler);
        let running = service.start().await?;
        let health = running.health().consumers().pop().ok_or("no consumer")?.1;
        let publisher = to_queue::<String>(&stage.broker().await?, &queue).await?;
        Ok(Self { running, health, hears, publisher, queue })
    }

    /// What is published is heard; what was published before may be heard again until then.
    async fn works(&mut self, body: &str) -> Checked {
        self.publisher.publish(&body.to_owned()).await?;
        while heard(&mut self.hears).await? != body {}
        Ok(())
    }

    async fn notices(&mut self) -> Checked {
        let noticed = self.health.wait_for(|now| matches!(now.health, Health::Reconnecting { .. }));
        // On AMQP 1.0 the broker takes three minutes to miss what it should hear.
        within(Duration::from_secs(240), "it notices", noticed).await??;
        Ok(())
    }

    async fn recovers(&mut self) -> Checked {
        let ready = self.health.wait_for(|now| now.health.is_ready() && now.subscribed > 1);
        in_time("it consumes again", ready).await??;
        self.works("after").await
    }

    /// Stops, and everything is acknowledged.
    async fn end(self, stage: &Stage) -> Checked {
        self.running.stop(soon()).await?;
        same("what is left", contents(&stage.broker().await?, &self.queue).await?, [""; 0])
    }
}

/// By way of the proxy it works.
pub(crate) async fn consumer_normal(stage: &Stage) -> Checked {
    let mut listening = Listening::start(stage).await?;
    listening.works("foo").await?;
    listening.end(stage).await
}

/// The broker goes away and comes back.
pub(crate) async fn consumer_down(stage: &Stage) -> Checked {
    let mut listening = Listening::start(stage).await?;
    listening.works("before").await?;
    stage.proxy().door(Door::Refusing).await;
    stage.proxy().cut(Cut::Reset);
    listening.notices().await?;
    listening.publisher.publish(&"meanwhile".to_owned()).await?;
    stage.proxy().heal().await;
    // What was not acknowledged before may come again.
    while heard(&mut listening.hears).await? != "meanwhile" {}
    listening.recovers().await?;
    listening.end(stage).await
}

/// One direction stalls, and then the connection is closed.
async fn timeout(stage: &Stage, direction: Direction) -> Checked {
    let mut listening = Listening::start(stage).await?;
    listening.works("before").await?;
    stage.proxy().flow(direction, Flow::held());
    listening.publisher.publish(&"stalled".to_owned()).await?;
    stage.proxy().cut(Cut::Fin);
    listening.notices().await?;
    stage.proxy().heal().await;
    listening.recovers().await?;
    listening.end(stage).await
}

/// One direction swallows everything, and neither side closes: heartbeats notice.
async fn blackhole(stage: &Stage, direction: Direction) -> Checked {
    let mut listening = Listening::start(stage).await?;
    listening.works("before").await?;
    stage.proxy().flow(direction, Flow::held());
    listening.publisher.publish(&"swallowed".to_owned()).await?;
    listening.notices().await?;
    // What the hole held must not come out of it: those connections are dead.
    stage.proxy().cut(Cut::Reset);
    stage.proxy().heal().await;
    listening.recovers().await?;
    listening.end(stage).await
}

pub(crate) async fn consumer_upstream_timeout(stage: &Stage) -> Checked {
    timeout(stage, Direction::ToBroker).await
}

pub(crate) async fn consumer_downstream_timeout(stage: &Stage) -> Checked {
    timeout(stage, Direction::FromBroker).await
}

pub(crate) async fn consumer_upstream_blackhole(stage: &Stage) -> Checked {
    blackhole(stage, Direction::ToBroker).await
}

/// The original is skipped, since kombu hangs in it.
pub(crate) async fn consumer_downstream_blackhole(stage: &Stage) -> Checked {
    blackhole(stage, Direction::FromBroker).await
}

/// Runs a handler that outlives its connection, which then succeeds or fails, and tells each run.
async fn outlived(stage: &Stage, on_error: OnError, first_fails: bool) -> Checked {
    let queue = stage.queue("q")?;
    let (began, mut begins) = mpsc::unbounded_channel();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let may_end = Arc::new(Semaphore::new(0));
    let gate = may_end.clone();
    let handler = move |Body(body): Body<String>, envelope: Envelope| {
        let (ended, gate) = (ended.clone(), gate.clone());
        let fails = first_fails && !envelope.redelivered;
        let _ = began.send((body, envelope.redelivered));
        async move {
            gate.acquire().await?.forget();
            ended.send(fails)?;
            if fails { Err(Failure::new("the first time")) } else { Ok(()) }
        }
    };
    let service = Service::new("test", stage.behind_the_proxy().await?)
        .consume(&queue.clone().of::<String>(), handler.concurrency(2).on_error(on_error));
    let running = service.start().await?;
    let mut health = running.health().consumers().pop().ok_or("no consumer")?.1;
    let publisher = to_queue::<String>(&stage.broker().await?, &queue).await?;
    publisher.publish(&"foo".to_owned()).await?;
    same("the first run", heard(&mut begins).await?, ("foo".to_owned(), false))?;
    stage.proxy().cut(Cut::Reset);
    in_time("consuming again", health.wait_for(|health| health.subscribed == 2)).await??;
    same("the second run", heard(&mut begins).await?, ("foo".to_owned(), true))?;
    // The first ends first, and can settle nothing any more.
    may_end.add_permits(1);
    same("whether the first failed", heard(&mut ends).await?, first_fails)?;
    in_time("a stale settlement", health.wait_for(|health| health.stale == 1)).await??;
    may_end.add_permits(1);
    same("whether the second failed", heard(&mut ends).await?, false)?;
    publisher.publish(&"bar".to_owned()).await?;
    same("what comes later", heard(&mut begins).await?, ("bar".to_owned(), false))?;
    may_end.add_permits(1 + usize::from(first_fails));
    heard(&mut ends).await?;
    if first_fails {
        same("which failed, too", heard(&mut begins).await?, ("bar".to_owned(), true))?;
        heard(&mut ends).await?;
    }
    running.stop(soon()).await?;
    same("runs besides", begins.try_recv().ok(), None::<(String, bool)>)?;
    same("what is left", contents(&stage.broker().await?, &queue).await?, [""; 0])
}

/// A message whose connection breaks while it is handled is delivered again; the late
/// acknowledgement does no harm.
pub(crate) async fn message_ack_regression(stage: &Stage) -> Checked {
    outlived(stage, OnError::ack(), false).await
}

/// The same where the first run fails and would have it requeued.
pub(crate) async fn message_requeue_regression(stage: &Stage) -> Checked {
    outlived(stage, OnError::requeue(), true).await
}

/// A handler whose connection breaks runs exactly twice.
pub(crate) async fn service_disconnect_with_active_async_worker(stage: &Stage) -> Checked {
    outlived(stage, OnError::requeue(), false).await
}

/// A connection that breaks while nothing happens is replaced.
pub(crate) async fn idle_disconnect(stage: &Stage) -> Checked {
    let mut listening = Listening::start(stage).await?;
    stage.proxy().cut(Cut::Fin);
    listening.recovers().await?;
    listening.end(stage).await
}

/// A publisher behind the proxy, and its queue.
async fn publisher(
    stage: &Stage,
    options: PublisherOptions,
) -> Checked<(Publisher<String>, QueueSpec, Broker)> {
    let queue = stage.queue("q")?;
    let mine = queue.clone().of::<String>();
    let options = options.declare(Topology::new().with_queue(&mine));
    let route = RouteSpec::to_queue(queue.name.as_str())?;
    let broker = stage.behind_the_proxy().await?;
    let publisher = broker.publisher_with(route, options).await?;
    Ok((publisher, queue, broker))
}

/// As the original's `retry=False`: no second try, and no waiting for another connection.
fn at_once() -> PublisherOptions {
    PublisherOptions::new().retry(RetryPolicy::never()).fail_fast()
}

async fn publish(publisher: &Publisher<String>, body: &str) -> Result<(), ErrorKind> {
    publisher.publish(&body.to_owned()).await.map(drop).map_err(|error| error.kind())
}

/// Both of them a connection that is gone; which one depends on when it is noticed.
fn is_gone(outcome: Result<(), ErrorKind>) -> bool {
    matches!(outcome, Err(ErrorKind::Connection | ErrorKind::Indeterminate))
}

/// By way of the proxy it works, in order.
pub(crate) async fn publisher_normal(stage: &Stage) -> Checked {
    let (publisher, queue, _broker) = publisher(stage, PublisherOptions::new()).await?;
    for body in ["one", "two"] {
        same("the outcome", publish(&publisher, body).await, Ok(()))?;
    }
    let arrived = contents(&stage.broker().await?, &queue).await?;
    same("what arrives", arrived, ["\"one\"", "\"two\""])
}

/// The broker goes away: an error, at once.
pub(crate) async fn publisher_down(stage: &Stage) -> Checked {
    let (publisher, queue, _broker) = publisher(stage, at_once()).await?;
    same("the outcome", publish(&publisher, "one").await, Ok(()))?;
    stage.proxy().door(Door::Refusing).await;
    stage.proxy().cut(Cut::Reset);
    same("gone", is_gone(publish(&publisher, "two").await), true)?;
    same("what arrives", contents(&stage.broker().await?, &queue).await?, ["\"one\""])
}

/// The connection stalls and is closed: whether the message arrived is not known, and the error says so.
pub(crate) async fn publisher_timeout(stage: &Stage) -> Checked {
    let (publisher, queue, _broker) = publisher(stage, at_once()).await?;
    same("the outcome", publish(&publisher, "one").await, Ok(()))?;
    stage.proxy().flow(Direction::ToBroker, Flow::held());
    let lost = publisher.enqueue(&"two".to_owned()).await?;
    stage.proxy().door(Door::Refusing).await;
    stage.proxy().cut(Cut::Fin);
    let outcome = lost.await.map(drop).map_err(|error| error.kind());
    same("gone", is_gone(outcome), true)?;
    same("what arrives", contents(&stage.broker().await?, &queue).await?, ["\"one\""])
}

/// A connection that broke behind one's back is noticed by the message that needs it.
pub(crate) async fn reuse_when_down(stage: &Stage) -> Checked {
    let (publisher, queue, _broker) = publisher(stage, at_once()).await?;
    same("the outcome", publish(&publisher, "one").await, Ok(()))?;
    stage.proxy().door(Door::Refusing).await;
    stage.proxy().cut(Cut::Half(Direction::ToBroker));
    stage.proxy().cut(Cut::Reset);
    for _ in 0..2 {
        same("gone", is_gone(publish(&publisher, "two").await), true)?;
    }
    same("what arrives", contents(&stage.broker().await?, &queue).await?, ["\"one\""])
}

/// After a failure and a recovery the same publisher works.
pub(crate) async fn reuse_when_recovered(stage: &Stage) -> Checked {
    let (publisher, queue, _broker) = publisher(stage, at_once()).await?;
    same("the outcome", publish(&publisher, "one").await, Ok(()))?;
    stage.proxy().door(Door::Refusing).await;
    stage.proxy().cut(Cut::Reset);
    same("gone", is_gone(publish(&publisher, "two").await), true)?;
    stage.proxy().heal().await;
    let recovered = async { while publish(&publisher, "three").await.is_err() {} };
    in_time("it works again", recovered).await?;
    let arrived = contents(&stage.broker().await?, &queue).await?;
    same("what arrives", arrived, ["\"one\"", "\"three\""])
}

/// A message that is published while the broker is away arrives when it is back, once.
pub(crate) async fn with_retry_policy(stage: &Stage) -> Checked {
    let (publisher, queue, broker) = publisher(stage, PublisherOptions::new()).await?;
    same("the outcome", publish(&publisher, "one").await, Ok(()))?;
    stage.proxy().door(Door::Refusing).await;
    stage.proxy().cut(Cut::Reset);
    let mut health = broker.health();
    let tries = |health: &BrokerHealth| matches!(health.publishing, Health::Reconnecting { .. });
    in_time("it notices", health.wait_for(tries)).await??;
    let confirm = publisher.enqueue(&"two".to_owned()).await?;
    stage.proxy().heal().await;
    confirm.await?;
    let arrived = contents(&stage.broker().await?, &queue).await?;
    same("what arrives", arrived, ["\"one\"", "\"two\""])
}
