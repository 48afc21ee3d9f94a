//! The steps, and what is seen of them.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use enoki::{
    Broker, Outcome,
    consume::{Delivery, Subscription},
    message::{ShortStr, Table, Timestamp, Value},
    publish::{PublisherOptions, RetryPolicy},
    topology::{
        BindingSpec, DeadLetter, Destination, ExchangeKind, ExchangeSpec, Overflow, QueueKind,
        QueueSpec, RouteSpec,
    },
    transport::Change,
};
use enoki_faults::patience::connect_patiently;
use enoki_interop::Checked;
use tokio::time::{sleep, timeout};

/// Steps on one broker; each line is one thing seen.
pub(crate) type Case = fn(&Ground) -> Pin<Box<dyn Future<Output = Checked<Vec<String>>> + '_>>;

pub(crate) const CASES: &[(&str, Case)] = &[
    ("a_program_may_ask_for_the_same", |ground| Box::pin(capabilities(ground))),
    ("queues_are_refused_alike", |ground| Box::pin(refusals(ground))),
    ("a_classic_queue_requeues_alike", |ground| Box::pin(requeued(ground, QueueKind::Classic))),
    ("a_replicated_queue_requeues_alike", |ground| {
        Box::pin(requeued(ground, QueueKind::Replicated))
    }),
    ("a_classic_queue_counts_alike", |ground| Box::pin(attempts(ground, QueueKind::Classic))),
    ("a_replicated_queue_counts_alike", |ground| Box::pin(attempts(ground, QueueKind::Replicated))),
    ("a_replicated_queue_orders_priorities_alike", |ground| Box::pin(priorities(ground))),
    ("what_was_requeued_goes_before_priorities_alike", |ground| Box::pin(requeued_low(ground))),
    ("headers_are_compared_alike", |ground| Box::pin(headers(ground))),
    ("a_full_queue_dead_letters_alike", |ground| Box::pin(full(ground))),
];

/// A broker, and names of this run's own there.
pub(crate) struct Ground {
    pub(crate) broker: Broker,
    prefix: String,
    made: Mutex<Vec<Change>>,
}

impl Ground {
    pub(crate) async fn at(url: String) -> Checked<Self> {
        let broker = connect_patiently(url).await?;
        let prefix = format!("versions.{}", uuid::Uuid::now_v7().simple());
        Ok(Self { broker, prefix, made: Mutex::default() })
    }

    fn queue(&self, name: &str) -> Checked<QueueSpec> {
        let queue = QueueSpec::new(format!("{}.{name}", self.prefix))?;
        self.made().push(Change::DeleteQueue(queue.name.clone()));
        Ok(queue)
    }

    fn exchange(&self, name: &str, kind: ExchangeKind) -> Checked<ExchangeSpec> {
        let exchange = ExchangeSpec::new(format!("{}.{name}", self.prefix), kind)?;
        self.made().push(Change::DeleteExchange(exchange.name.clone()));
        Ok(exchange)
    }

    async fn declare(&self, queue: &QueueSpec) -> Checked {
        self.broker.apply(&Change::DeclareQueue(queue.clone())).await?;
        Ok(())
    }

    /// Publishes numbers from the first on, each of a priority.
    async fn fill(&self, queue: &QueueSpec, first: u32, priorities: &[Option<u8>]) -> Checked {
        let publisher =
            self.broker.publisher::<u32>(RouteSpec::to_queue(queue.name.as_str())?).await?;
        for (number, priority) in (first..).zip(priorities) {
            let message = publisher.message(&number)?;
            match priority {
                Some(priority) => message.priority(*priority).publish().await?,
                None => message.publish().await?,
            };
        }
        Ok(())
    }

    async fn subscribe(&self, queue: &QueueSpec, prefetch: u16) -> Checked<Subscription> {
        Ok(self.broker.subscribe(&queue.clone().of::<u32>(), prefetch).await?)
    }

    /// Waits until the queue has no consumer any more.
    async fn is_left(&self, queue: &QueueSpec) -> Checked {
        let mut by_name = queue.clone();
        by_name.passive = true;
        let look = Change::VerifyQueue(by_name);
        let leaving = async {
            while self.broker.apply(&look).await?.consumers > 0 {
                sleep(Duration::from_millis(20)).await;
            }
            Checked::Ok(())
        };
        timeout(PATIENCE, leaving).await?
    }

    pub(crate) async fn tidy(&self) -> Checked {
        let made = std::mem::take(&mut *self.made());
        for change in made {
            self.broker.apply(&change).await?;
        }
        self.broker.close(PATIENCE).await;
        Ok(())
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Vec<Change>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn next(subscription: &mut Subscription) -> Checked<Delivery> {
    let delivery = timeout(PATIENCE, subscription.next()).await??;
    Ok(delivery.ok_or("the subscription ended")?)
}

fn show(delivery: &Delivery) -> Checked<String> {
    let (number, attempt) = (delivery.decode::<u32>()?, delivery.attempt());
    let again = if delivery.redelivered() { "redelivered" } else { "new" };
    // A broker that counts may say nothing of what it has not counted yet.
    Ok(match (attempt.number, delivery.redelivered()) {
        (1, _) => format!("{number}, {again}"),
        (attempt_number, _) => {
            format!("{number}, {again}, attempt {attempt_number} {:?}", attempt.counted)
        }
    })
}

async fn capabilities(ground: &Ground) -> Checked<Vec<String>> {
    let peer = ground.broker.peer();
    Ok(crate::asked_for().map(|asked| format!("{asked}: {}", peer.can(asked))).collect())
}

/// To a queue that need not be there.
const DEAD_LETTERS: DeadLetter = DeadLetter {
    exchange: ShortStr::EMPTY,
    routing_key: Some(ShortStr::from_static("versions.dead")),
};

async fn refusals(ground: &Ground) -> Checked<Vec<String>> {
    type Set = fn(&mut QueueSpec);
    const REPLICATED: Set = |queue| queue.kind = QueueKind::Replicated;
    fn argument(queue: &mut QueueSpec, name: &'static str, value: impl Into<Value>) {
        queue.arguments.set(ShortStr::from_static(name), value);
    }
    let table: &[(&str, Set, Set)] = &[
        ("priorities, replicated", REPLICATED, |queue| queue.max_priority = Some(5)),
        ("priorities", |_| {}, |queue| queue.max_priority = Some(255)),
        (
            "a delivery limit",
            |_| {},
            |queue| {
                queue.delivery_limit = Some(3);
                queue.dead_letter =
                    Some(DeadLetter { exchange: ShortStr::EMPTY, routing_key: None });
            },
        ),
        ("a delivery limit, replicated", REPLICATED, |queue| {
            queue.delivery_limit = Some(3);
            queue.dead_letter = Some(DEAD_LETTERS);
        }),
        ("exclusive, replicated", REPLICATED, |queue| queue.exclusive = true),
        ("auto-delete, replicated", REPLICATED, |queue| queue.auto_delete = true),
        ("not durable, replicated", REPLICATED, |queue| queue.durable = false),
        ("expiry, replicated", REPLICATED, |queue| queue.expires = Some(Duration::from_secs(60))),
        ("a length of 0", |_| {}, |queue| queue.max_length = Some(0)),
        ("refusing, replicated", REPLICATED, |queue| {
            queue.overflow = Some(Overflow::RejectPublish)
        }),
        (
            "refusing and dead-lettering",
            |_| {},
            |queue| {
                queue.overflow = Some(Overflow::RejectPublishDeadLetter);
            },
        ),
        ("one active, replicated", REPLICATED, |queue| queue.single_active_consumer = true),
        ("a mode", |_| {}, |queue| argument(queue, "x-queue-mode", "lazy")),
        ("a mode, replicated", REPLICATED, |queue| argument(queue, "x-queue-mode", "lazy")),
        ("what no broker knows", |_| {}, |queue| argument(queue, "x-enoki-nothing", 1)),
        ("what no broker knows, replicated", REPLICATED, |queue| {
            argument(queue, "x-enoki-nothing", 1);
        }),
        ("a strategy", |_| {}, |queue| argument(queue, "x-dead-letter-strategy", "at-least-once")),
        ("a group", |_| {}, |queue| argument(queue, "x-quorum-initial-group-size", 1)),
        ("a group, replicated", REPLICATED, |queue| {
            argument(queue, "x-quorum-initial-group-size", 1);
        }),
    ];
    let mut seen = Vec::new();
    for (at, (what, kind, set)) in table.iter().enumerate() {
        let mut queue = ground.queue(&format!("refused-{at}"))?;
        kind(&mut queue);
        set(&mut queue);
        let declared = ground.broker.apply(&Change::DeclareQueue(queue)).await;
        seen.push(format!("{what}: {:?}", declared.map(drop).map_err(|error| error.kind())));
    }
    Ok(seen)
}

/// Gives back the third, first, fourth and second of six, and sees what comes for each; then goes away
/// with what it has, and sees what the next consumer gets.
async fn requeued(ground: &Ground, kind: QueueKind) -> Checked<Vec<String>> {
    let mut queue = ground.queue("requeued")?;
    queue.kind = kind;
    ground.declare(&queue).await?;
    ground.fill(&queue, 1, &[None; 6]).await?;
    let mut subscription = ground.subscribe(&queue, 4).await?;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(Some(next(&mut subscription).await?));
    }
    let mut seen = Vec::new();
    let mut after = Vec::new();
    for at in [2, 0, 3, 1] {
        let delivery = held.get_mut(at).and_then(Option::take).ok_or("it was given back")?;
        let number = delivery.decode::<u32>()?;
        delivery.settle(Outcome::Requeue);
        let next = next(&mut subscription).await?;
        seen.push(format!("after {number} came {}", show(&next)?));
        after.push(next);
    }
    drop(subscription);
    drop(after);
    ground.is_left(&queue).await?;
    seen.extend(rest(ground, &queue, 6).await?);
    Ok(seen)
}

/// What the next consumer gets.
async fn rest(ground: &Ground, queue: &QueueSpec, count: usize) -> Checked<Vec<String>> {
    let mut subscription = ground.subscribe(queue, 1).await?;
    let mut seen = Vec::new();
    for _ in 0..count {
        let delivery = next(&mut subscription).await?;
        seen.push(format!("then came {}", show(&delivery)?));
        delivery.settle(Outcome::Ack);
    }
    subscription.stop(PATIENCE).await?;
    Ok(seen)
}

async fn attempts(ground: &Ground, kind: QueueKind) -> Checked<Vec<String>> {
    let mut queue = ground.queue("attempts")?;
    queue.kind = kind;
    ground.declare(&queue).await?;
    ground.fill(&queue, 1, &[None]).await?;
    let mut seen = Vec::new();
    let mut subscription = ground.subscribe(&queue, 1).await?;
    for outcome in [Outcome::Release, Outcome::Requeue, Outcome::Release, Outcome::Requeue] {
        let delivery = next(&mut subscription).await?;
        seen.push(format!("{}, and then a {outcome:?}", show(&delivery)?));
        delivery.settle(outcome);
    }
    let delivery = next(&mut subscription).await?;
    seen.push(show(&delivery)?);
    drop(subscription);
    drop(delivery);
    ground.is_left(&queue).await?;
    seen.extend(rest(ground, &queue, 1).await?);
    Ok(seen)
}

async fn priorities(ground: &Ground) -> Checked<Vec<String>> {
    let mut queue = ground.queue("priorities")?;
    queue.kind = QueueKind::Replicated;
    ground.declare(&queue).await?;
    let some = [0, 9, 4, 5, 1, 31, 32, 255, 5, 9, 3, 9, 9].map(Some);
    let priorities: Vec<_> = some.into_iter().chain([None, Some(0), None]).collect();
    ground.fill(&queue, 1, &priorities).await?;
    rest(ground, &queue, priorities.len()).await
}

async fn requeued_low(ground: &Ground) -> Checked<Vec<String>> {
    let mut queue = ground.queue("low")?;
    queue.kind = QueueKind::Replicated;
    ground.declare(&queue).await?;
    ground.fill(&queue, 1, &[Some(0)]).await?;
    let mut subscription = ground.subscribe(&queue, 1).await?;
    let low = next(&mut subscription).await?;
    ground.fill(&queue, 2, &[Some(9), Some(9)]).await?;
    low.settle(Outcome::Requeue);
    let delivery = next(&mut subscription).await?;
    let mut seen = vec![format!("first came {}", show(&delivery)?)];
    drop(subscription);
    drop(delivery);
    ground.is_left(&queue).await?;
    seen.extend(rest(ground, &queue, 3).await?);
    Ok(seen)
}

async fn headers(ground: &Ground) -> Checked<Vec<String>> {
    let table: Table = [(ShortStr::from_static("a"), Value::Int(1))].into_iter().collect();
    let values = [
        Value::Int(1),
        Value::Float(1.0),
        Value::Float(0.5),
        Value::String("1".into()),
        Value::String("x".into()),
        Value::Bytes("x".into()),
        Value::Bool(true),
        Value::String("true".into()),
        Value::Null,
        Timestamp::from_unix_seconds(1).into(),
        Value::List(vec![Value::Int(1)]),
        Value::List(vec![Value::Float(1.0)]),
        Value::List(vec![Value::String("x".into())]),
        Value::List(vec![Value::Bytes("x".into())]),
        Value::Table(table),
    ];
    let exchange = ground.exchange("headers", ExchangeKind::Headers)?;
    ground.broker.apply(&Change::DeclareExchange(exchange.clone())).await?;
    let mut queues = Vec::new();
    for (at, value) in values.iter().enumerate() {
        let queue = ground.queue(&format!("headers-{at}"))?;
        ground.declare(&queue).await?;
        let mut binding = BindingSpec::new(&exchange, Destination::Queue(queue.name.clone()), "")?;
        binding.arguments.set(ShortStr::from_static("h"), value.clone());
        binding.arguments.set(ShortStr::from_static("x-match"), "all");
        ground.broker.apply(&Change::Bind(binding)).await?;
        queues.push(queue.name);
    }
    let publisher = ground.broker.publisher(RouteSpec::<u32>::new(&exchange, "")?).await?;
    let mut seen = Vec::new();
    for header in &values {
        publisher.message(&0)?.header("h", header.clone())?.publish().await?;
        let mut matched = Vec::new();
        for (queue, value) in queues.iter().zip(&values) {
            let purged = ground.broker.apply(&Change::PurgeQueue(queue.clone())).await?;
            if purged.messages > 0 {
                matched.push(format!("{value:?}"));
            }
        }
        seen.push(format!("the header {header:?} matches {}", matched.join(", ")));
    }
    Ok(seen)
}

async fn full(ground: &Ground) -> Checked<Vec<String>> {
    let dead = ground.queue("dead")?;
    let mut queue = ground.queue("full")?;
    queue.max_length = Some(2);
    queue.overflow = Some(Overflow::RejectPublishDeadLetter);
    queue.dead_letter =
        Some(DeadLetter { exchange: ShortStr::EMPTY, routing_key: Some(dead.name.clone()) });
    ground.declare(&dead).await?;
    ground.declare(&queue).await?;
    let options = PublisherOptions::new().retry(RetryPolicy::never());
    let route = RouteSpec::to_queue(queue.name.as_str())?;
    let publisher = ground.broker.publisher_with::<u32>(route, options).await?;
    let mut seen = Vec::new();
    for number in 1..=4 {
        let published = publisher.publish(&number).await;
        seen.push(format!("{number}: {:?}", published.map(drop).map_err(|error| error.kind())));
    }
    let mut dead = ground.subscribe(&dead, 1).await?;
    for _ in 0..2 {
        let letter = next(&mut dead).await?;
        let reason = letter.message().headers.get("x-first-death-reason").cloned();
        seen.push(format!("dead: {} of {reason:?}", show(&letter)?));
        letter.settle(Outcome::Ack);
    }
    seen.extend(rest(ground, &queue, 2).await?);
    Ok(seen)
}

/// How long to wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);
