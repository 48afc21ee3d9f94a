//! The work that goes on while things break: publishers, and a service that handles.

use std::{
    fmt,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use enoki::{
    Body, Broker, ErrorKind, Failure, Outcome as Settlement, Publisher, Service, State,
    broker::{BrokerHealth, Health},
    consume::{ConsumerHealth, Envelope, FromState, Handler, Provided, Provider, WorkerInfo},
    publish::PublisherOptions,
    service::RunningService,
    topology::{QueueKind, QueueSpec, RouteSpec, Topology},
    transport::{Found, Purpose},
};
use enoki_faults::{
    ledger::{Answer, Arrival, Capacity, DeliveryOf, Expect, How, Ledger, Ordered},
    seed::Seed,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{target::Target, testbed::Outcome, timeline::Meter};

/// What is sent.
#[derive(Debug, Serialize, Deserialize)]
struct Numbered {
    number: u64,
    filling: String,
}

/// The queues of a run.
#[derive(Debug, Clone)]
pub(crate) struct Queues {
    /// One handler at a time: everything in order.
    ordered: QueueSpec,
    /// Many handlers, and a replicated queue.
    parallel: QueueSpec,
    /// Will be deleted now and then.
    pub(crate) doomed: QueueSpec,
    /// Gets a message now and then that the broker cannot convert to the consumer's protocol.
    pub(crate) unreadable: QueueSpec,
    /// For looking whether messages get through.
    probe: QueueSpec,
}

impl Queues {
    pub(crate) fn of(target: Target) -> enoki::Result<Self> {
        let run = uuid::Uuid::now_v7().simple();
        let queue = |label: &str| QueueSpec::new(format!("prove.{}.{run}.{label}", target.slug()));
        let mut parallel = queue("parallel")?;
        parallel.kind = QueueKind::Replicated;
        Ok(Self {
            ordered: queue("ordered")?,
            parallel,
            doomed: queue("doomed")?,
            unreadable: queue("unreadable")?,
            probe: queue("probe")?,
        })
    }

    pub(crate) fn doomed(&self) -> &str {
        &self.doomed.name
    }

    fn all(&self) -> [&QueueSpec; 5] {
        [&self.ordered, &self.parallel, &self.doomed, &self.unreadable, &self.probe]
    }
}

/// What handlers know.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ledger: Ledger,
    pub(crate) meter: Arc<Meter>,
    /// The latest probe that got through.
    probed: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn new(target: Target, meter: Arc<Meter>) -> Self {
        let capacity = Capacity {
            may_hold_up: target != Target::Memory,
            outstanding: 3 * u64::from(WINDOW),
            in_flight: u64::from(ORDERED.1 + PARALLEL.1 + DOOMED.1),
        };
        Self { ledger: Ledger::new(capacity), meter, probed: watch::Sender::new(0) }
    }
}

/// A delivery that goes back if its handler is ended.
struct Held<'d> {
    shared: &'d Shared,
    delivery: DeliveryOf,
    how: How,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.shared.ledger.settled(self.delivery, self.how);
    }
}

/// Has a panic happen after the handler, where the handler has said so.
#[derive(Clone)]
struct Panicking;

impl FromState<Arc<Shared>> for Panicking {
    fn from_state(_: &Arc<Shared>) -> Self {
        Self
    }
}

#[async_trait]
impl Provider for Panicking {
    type Handle = Arc<AtomicBool>;

    async fn provide(&self, _: &WorkerInfo) -> Result<Self::Handle, Failure> {
        Ok(Arc::default())
    }

    async fn result(
        &self,
        _: &WorkerInfo,
        panics: &Self::Handle,
        _: Result<Settlement, &Failure>,
    ) -> Result<(), Failure> {
        if panics.load(Ordering::Relaxed) {
            resume_unwind(Box::new(WANTED))
        }
        Ok(())
    }
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    Provided(panics): Provided<Panicking>,
    Body(message): Body<Numbered>,
    envelope: Envelope,
) -> Result<(), Failure> {
    let Envelope { redelivered, attempt, .. } = envelope;
    let arrival = Arrival { redelivered, attempt: attempt.number };
    let delivery = shared.ledger.delivered(message.number, arrival);
    shared.meter.handled.fetch_add(1, Ordering::Relaxed);
    let mut held = Held { shared: &shared, delivery, how: How::Lost };
    // Some take time, so that there is always one that a fault can hit.
    if message.number.is_multiple_of(50) {
        sleep(Duration::from_millis(2)).await;
    }
    if message.number % 100 == 99 && delivery.is_first() {
        held.how = How::Returned;
        match message.number % 1000 {
            499 => resume_unwind(Box::new(WANTED)),
            999 => return Err(Failure::from(Unspeakable)),
            299 => {
                panics.store(true, Ordering::Relaxed);
                return Ok(());
            }
            _ => return Err(Failure::new("a test wants it again")),
        }
    }
    held.how = How::Acked;
    Ok(())
}

/// What handlers panic with on purpose: without a word on the screen.
const WANTED: &str = "a test wants this panic";

/// An error that panics when it is written to the log.
#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        resume_unwind(Box::new(WANTED))
    }
}

impl std::error::Error for Unspeakable {}

async fn probed(State(shared): State<Arc<Shared>>, Body(message): Body<Numbered>) -> Settlement {
    shared.probed.send_modify(|latest| *latest = message.number.max(*latest));
    Settlement::Ack
}

/// Starts to handle.
pub(crate) async fn serve(
    broker: &Broker,
    queues: &Queues,
    shared: &Arc<Shared>,
) -> enoki::Result<RunningService> {
    let of = |queue: &QueueSpec| queue.clone().of::<Numbered>();
    Service::new("prove", broker.clone())
        .state(shared.clone())
        .consume(&of(&queues.ordered), handle.concurrency(ORDERED.0).prefetch(ORDERED.1))
        .consume(&of(&queues.parallel), handle.concurrency(PARALLEL.0).prefetch(PARALLEL.1))
        .consume(&of(&queues.doomed), handle.concurrency(DOOMED.0).prefetch(DOOMED.1))
        .consume(&of(&queues.unreadable), probed.concurrency(1))
        .consume(&of(&queues.probe), probed.concurrency(1))
        .start()
        .await
}

/// Removes the messages of a queue.
pub(crate) async fn purge(broker: &Broker, queue: &QueueSpec) -> enoki::Result<u64> {
    broker.purge(&queue.clone().of::<Numbered>()).await
}

/// Waits until the service says that the broker fails at the messages of this queue.
pub(crate) async fn is_unreadable(service: &RunningService, queue: &QueueSpec) -> Outcome {
    let is_explained = |now: &ConsumerHealth| match &now.health {
        Health::Reconnecting { reason } => {
            reason.to_string().contains("not be able to convert a message")
        }
        _ => false,
    };
    let consumers = service.health().consumers();
    let its_own = consumers.into_iter().find(|(name, _)| **name == *queue.name);
    let (_, mut health) = its_own.ok_or("no consumer of that queue")?;
    let explained = health.wait_for(is_explained);
    timeout(PUBLISH_WITHIN, explained).await.map_err(|_| "its consumer does not say so")??;
    Ok(())
}

/// Writes down every connection that is lost.
pub(crate) async fn watch_losses(mut health: watch::Receiver<BrokerHealth>, shared: Arc<Shared>) {
    let (mut publishing, mut consuming) = (0, 0);
    loop {
        let now = health.borrow_and_update().clone();
        for (told, lost, purpose) in [
            (&mut publishing, losses(&now.publishing, now.publishing_opened), Purpose::Publish),
            (&mut consuming, losses(&now.consuming, now.consuming_opened), Purpose::Consume),
        ] {
            for _ in *told..lost {
                shared.ledger.lost(purpose);
            }
            *told = lost.max(*told);
        }
        if health.changed().await.is_err() {
            return;
        }
    }
}

/// How often a connection was lost that was opened so often: also where this task did not see it down.
fn losses(health: &Health, opened: u64) -> u64 {
    let is_up = matches!(health, Health::Ready | Health::Blocked { .. });
    opened.saturating_sub(u64::from(is_up))
}

/// How many messages may be published by now.
pub(crate) type Gate = watch::Receiver<u64>;

/// Publishes so many messages, as far as the gate is open; returns when all have their outcome.
pub(crate) async fn publish(
    broker: &Broker,
    queues: &Queues,
    shared: &Arc<Shared>,
    seed: Seed,
    messages: u64,
    mut gate: Gate,
) -> Outcome {
    let to = |queue: &QueueSpec| {
        let declare = Topology::new().with_queue(&queue.clone().of::<Numbered>());
        // What is deleted on purpose comes back with its consumer, not with its publisher.
        let declare = if queue.name == queues.doomed.name { Topology::new() } else { declare };
        let options =
            PublisherOptions::new().window(WINDOW).timeout(PUBLISH_WITHIN).declare(declare);
        let route = RouteSpec::<Numbered>::to_queue(queue.name.as_str());
        async move { broker.publisher_with(route?, options).await }
    };
    let paths = Paths {
        path: shared.ledger.ordered(),
        ordered: to(&queues.ordered).await?,
        parallel: to(&queues.parallel).await?,
        doomed: to(&queues.doomed).await?,
    };
    let mut random = seed.random("messages");
    let mut confirms = tokio::task::JoinSet::new();
    for number in 0..messages {
        gate.wait_for(|open| *open > number).await?;
        let message = Numbered { number, filling: filling(&mut random) };
        let (publisher, missing) = paths.choose(&mut random, &shared.ledger);
        let enqueued = match missing {
            Some(nowhere) => publisher.message(&message)?.key(nowhere)?.enqueue().await,
            None => publisher.enqueue(&message).await,
        };
        match enqueued {
            Ok(confirm) => {
                let shared = shared.clone();
                confirms.spawn(async move {
                    let outcome = confirm.await;
                    shared.ledger.answered(number, Answer::of(&outcome));
                    if outcome.is_ok() {
                        shared.meter.confirmed.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            Err(error) => shared.ledger.answered(number, Answer::of::<()>(&Err(error))),
        }
        while confirms.try_join_next().is_some() {}
    }
    while confirms.join_next().await.is_some() {}
    Ok(())
}

struct Paths {
    path: Ordered,
    ordered: Publisher<Numbered>,
    parallel: Publisher<Numbered>,
    doomed: Publisher<Numbered>,
}

impl Paths {
    /// Writes the next message down, and says how to publish it: to a queue that is missing, if so.
    fn choose(
        &self,
        random: &mut fastrand::Rng,
        ledger: &Ledger,
    ) -> (&Publisher<Numbered>, Option<&'static str>) {
        match random.u32(0..100) {
            0..40 => {
                ledger.attempted_in(self.path, Expect::Handled);
                (&self.ordered, None)
            }
            40..85 => {
                ledger.attempted(Expect::Handled);
                (&self.parallel, None)
            }
            85..95 => {
                ledger.attempted(Expect::Perishable);
                (&self.doomed, None)
            }
            _ => {
                ledger.attempted(Expect::Unroutable);
                (&self.parallel, Some("prove.there-is-no-such-queue"))
            }
        }
    }
}

/// Mostly small, sometimes of several frames.
fn filling(random: &mut fastrand::Rng) -> String {
    let length =
        if random.u32(0..1000) == 0 { random.usize(0..400_000) } else { random.usize(0..200) };
    "x".repeat(length)
}

/// Looks whether messages get through.
pub(crate) struct Probe {
    publisher: Publisher<Numbered>,
    next: u64,
}

impl Probe {
    pub(crate) async fn new(broker: &Broker, queues: &Queues) -> enoki::Result<Self> {
        let options = PublisherOptions::new()
            .timeout(PUBLISH_WITHIN)
            .declare(Topology::new().with_queue(&queues.probe.clone().of::<Numbered>()));
        let route = RouteSpec::to_queue(queues.probe.name.as_str())?;
        Ok(Self { publisher: broker.publisher_with(route, options).await?, next: 0 })
    }

    /// Tries until a message gets through, at most until the deadline; says whether one did.
    pub(crate) async fn gets_through(&mut self, shared: &Shared, deadline: Instant) -> bool {
        let mut probed = shared.probed.subscribe();
        while Instant::now() < deadline {
            self.next += 1;
            let message = Numbered { number: self.next, filling: String::new() };
            if self.publisher.publish(&message).await.is_err() {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            let patience = deadline.min(Instant::now() + Duration::from_secs(2));
            let wanted = self.next;
            if timeout_at(patience, probed.wait_for(|latest| *latest >= wanted)).await.is_ok() {
                return true;
            }
        }
        false
    }
}

/// Waits until everything is handled, and says what is not.
pub(crate) async fn drain(shared: &Shared, patience: Duration) -> Outcome {
    let mut deadline = Instant::now() + patience;
    let mut last = 0;
    loop {
        let handled = shared.meter.handled.load(Ordering::Relaxed);
        // What a handler gave back may come again in a moment.
        let is_quiet = handled == last;
        if !is_quiet {
            (last, deadline) = (handled, Instant::now() + patience);
        }
        let ledger = &shared.ledger;
        if is_quiet
            && ledger.in_flight() == 0
            && ledger.outstanding() == 0
            && ledger.missing(1).is_empty()
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            let missing = ledger.missing(10);
            return Err(format!(
                "nothing came for {patience:?}, with {} outstanding, {} in flight, and missing {missing:?}",
                ledger.outstanding(),
                ledger.in_flight()
            )
            .into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// How many messages wait in the queues. One that the run deleted has none.
pub(crate) async fn ready(broker: &Broker, queues: &Queues) -> enoki::Result<u64> {
    let mut ready = 0;
    for queue in queues.all() {
        match broker.queue_status(&queue.clone().of::<Numbered>()).await {
            Ok(Found { messages, .. }) => ready += messages,
            Err(error)
                if error.kind() == ErrorKind::NotFound && queue.name == queues.doomed.name => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ready)
}

/// Looks whether the queues are empty, and removes them.
pub(crate) async fn clean_up(broker: &Broker, queues: &Queues) -> Outcome {
    let mut left = Vec::new();
    for queue in queues.all() {
        // Replicas and acknowledgements take a moment.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let messages = match broker.queue_status(&queue.clone().of::<Numbered>()).await {
                Ok(Found { messages, .. }) => messages,
                // The run deleted it, and stopped before its consumer had declared it again.
                Err(error)
                    if error.kind() == ErrorKind::NotFound && queue.name == queues.doomed.name =>
                {
                    0
                }
                Err(error) => return Err(error.into()),
            };
            if messages == 0 {
                break;
            }
            if Instant::now() > deadline {
                left.push(format!("{messages} in {}", queue.name));
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        broker.delete_queue(queue).await?;
    }
    if left.is_empty() { Ok(()) } else { Err(format!("left over: {}", left.join(", ")).into()) }
}

/// Concurrency and prefetch.
const ORDERED: (u16, u16) = (1, 16);
const PARALLEL: (u16, u16) = (8, 64);
const DOOMED: (u16, u16) = (2, 8);

const WINDOW: u16 = 256;

/// How long a message may take: longer than any fault.
const PUBLISH_WITHIN: Duration = Duration::from_secs(60);
