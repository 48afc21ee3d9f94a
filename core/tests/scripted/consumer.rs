//! Handlers: what becomes of a delivery when one returns, fails, panics or never sees it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use enoki_core::{
    Attempt, Body, Broker, Codecs, Context, Delivery, Envelope, Error, ErrorKind, Failure,
    FromDelivery, Handler, Incoming, Json, Message, OnError, Outcome, Provided, Provider,
    Publisher, Purpose, Queue, QueueSpec, Raw, Result, Route, RunningService, Service, ShortStr,
    State, Topic, Topology, Value, WorkQueue, WorkerInfo,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::sleep,
};

use crate::script::{ReceiverState, Script, Watched, in_time};

const BILLING: WorkQueue<String> = WorkQueue::new("billing");

type ReceiverHandle = Arc<Watched<ReceiverState>>;

/// A service of this one handler, running.
async fn run<S: Send + Sync + 'static, A: 'static>(
    state: S,
    handler: impl Handler<String, S, A>,
) -> (RunningService, ReceiverHandle) {
    let (broker, script) = Script::broker().await;
    let service = Service::new("office", broker).state(state).consume(&BILLING, handler);
    let running = service.start().await.unwrap();
    (running, script.receiver(0).await)
}

/// What a handler's return comes to for its one delivery.
async fn outcome<A: 'static>(handler: impl Handler<String, (), A>) -> Outcome {
    let (_running, receiver) = run((), handler).await;
    receiver.deliver("order");
    receiver.settles(1).await;
    receiver.settlements()[0].1
}

async fn fails(_: Body<String>) -> Result<(), Failure> {
    Err(Failure::new("no"))
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_returns_settles_its_delivery() {
    async fn nothing() {}
    async fn fine(Body(_): Body<String>) -> Result<(), Failure> {
        Ok(())
    }
    async fn release(Body(_): Body<String>) -> Outcome {
        Outcome::Release
    }
    async fn reject() -> Result<Outcome, std::num::ParseIntError> {
        "x".parse::<u8>().map(|_| Outcome::Ack).or(Ok(Outcome::Reject))
    }
    assert_eq!(outcome(nothing).await, Outcome::Ack);
    assert_eq!(outcome(fine).await, Outcome::Ack);
    assert_eq!(outcome(release).await, Outcome::Release);
    assert_eq!(outcome(reject).await, Outcome::Reject);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_handler_comes_to_what_the_program_chose() {
    assert_eq!(outcome(fails).await, Outcome::Requeue);
    assert_eq!(outcome(fails.on_error(OnError::requeue())).await, Outcome::Requeue);
    assert_eq!(outcome(fails.on_error(OnError::reject())).await, Outcome::Reject);
    assert_eq!(outcome(fails.on_error(OnError::ack())).await, Outcome::Ack);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_handler_requeues_its_delivery_and_its_worker_lives_on() {
    async fn shaky(Body(order): Body<String>) {
        assert_ne!(order, "bad", "the test says so");
    }
    let (_running, receiver) = run((), shaky.concurrency(1).on_error(OnError::ack())).await;
    for order in ["bad", "good", "bad", "good"] {
        receiver.deliver(order);
    }
    receiver.settles(4).await;
    assert_eq!(
        receiver.settlements(),
        [(1, Outcome::Requeue), (2, Outcome::Ack), (3, Outcome::Requeue), (4, Outcome::Ack)]
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_rejected_and_no_handler_sees_it() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    async fn count(Body(_): Body<String>) {
        CALLS.fetch_add(1, Ordering::SeqCst);
    }
    let (_running, receiver) = run((), count.concurrency(1)).await;
    let json = Some(ShortStr::from_static("application/json"));
    for (body, content_type) in [
        (&b"{"[..], json.clone()),
        (b"", json.clone()),
        (b"7", json.clone()),
        (b"\"text\"", None),
        (b"\"text\"", Some(ShortStr::from_static("application/x-python-serialize"))),
    ] {
        let mut message = Message::new(body.to_vec());
        message.properties.content_type = content_type;
        receiver.deliver_message(message);
    }
    receiver.deliver("readable");
    receiver.change(|state| {
        state.deliveries.back_mut().unwrap().undecodable = Some("a header is not UTF-8".into());
    });
    receiver.settles(6).await;
    let expected: Vec<_> = (1..=6).map(|tag| (tag, Outcome::Reject)).collect();
    assert_eq!(receiver.settlements(), expected);
    assert_eq!(CALLS.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_handler_of_raw_bodies_takes_every_content_type() {
    const UPLOADS: WorkQueue<Raw> = WorkQueue::new("uploads");
    let (broker, script) = Script::broker().await;
    let (seen, mut bodies) = mpsc::unbounded_channel();
    let keep = move |Body(upload): Body<Raw>| {
        let seen = seen.clone();
        async move { drop(seen.send(upload)) }
    };
    let _running = Service::new("office", broker).consume(&UPLOADS, keep).start().await.unwrap();
    let receiver = script.receiver(0).await;
    receiver.deliver_message(Message::new(&b"\xff"[..]));
    let upload = in_time(bodies.recv()).await.unwrap();
    assert_eq!((&upload.body[..], upload.content_type), (&b"\xff"[..], None));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_may_accept_other_encodings_than_its_broker() {
    #[derive(Debug)]
    struct Loud;
    impl enoki_core::Codec for Loud {
        fn content_type(&self) -> ShortStr {
            ShortStr::from_static("text/loud")
        }
        fn encode(
            &self,
            value: &dyn erased_serde::Serialize,
        ) -> Result<bytes::Bytes, enoki_core::CodecError> {
            Json.encode(value)
        }
        fn decode(
            &self,
            body: &[u8],
            visit: &mut enoki_core::Visit<'_>,
        ) -> Result<(), enoki_core::CodecError> {
            Json.decode(&body.to_ascii_uppercase(), visit)
        }
    }
    let (seen, mut bodies) = mpsc::unbounded_channel();
    let keep = move |Body(order): Body<String>| {
        let seen = seen.clone();
        async move { drop(seen.send(order)) }
    };
    let (_running, receiver) = run((), keep.accept(Codecs::only(Json).and(Loud))).await;
    let mut message = Message::new(&b"\"quiet\""[..]);
    message.properties.content_type = Some(ShortStr::from_static("text/loud"));
    receiver.deliver_message(message);
    assert_eq!(in_time(bodies.recv()).await.unwrap(), "QUIET");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_the_delivery_settles_it_itself() {
    async fn reject(delivery: Delivery) {
        sleep(Duration::from_secs(1)).await;
        delivery.settle(Outcome::Reject);
    }
    async fn forget(_: Delivery) -> Outcome {
        Outcome::Ack
    }
    assert_eq!(outcome(reject).await, Outcome::Reject);
    assert_eq!(outcome(forget).await, Outcome::Requeue, "dropped, whatever the handler returns");
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_keep_the_delivery_beyond_its_return() {
    let (kept, mut deliveries) = mpsc::unbounded_channel();
    let keep = move |delivery: Delivery| {
        let kept = kept.clone();
        async move { drop(kept.send(delivery)) }
    };
    let (_running, receiver) = run((), keep).await;
    receiver.deliver("order");
    let delivery = in_time(deliveries.recv()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.settlements(), []);
    delivery.settle(Outcome::Ack);
    receiver.settles(1).await;
}

/// Otherwise it would be requeued and come back at once, for ever.
#[tokio::test(start_paused = true)]
async fn arguments_after_the_delivery_are_taken_out_all_the_same() {
    async fn reject(
        delivery: Delivery,
        Body(_): Body<String>,
        _: Attempt,
        _: Envelope,
        _: Context,
    ) {
        delivery.settle(Outcome::Reject);
    }
    assert_eq!(outcome(reject).await, Outcome::Reject);
}

#[tokio::test(start_paused = true)]
async fn no_more_handlers_run_at_a_time_than_the_concurrency_says() {
    for concurrency in [1_u16, 3] {
        let gate = Arc::new((Semaphore::new(0), AtomicUsize::new(0), AtomicUsize::new(0)));
        let handler = {
            let gate = gate.clone();
            move || {
                let gate = gate.clone();
                async move {
                    let running = gate.1.fetch_add(1, Ordering::SeqCst) + 1;
                    gate.2.fetch_max(running, Ordering::SeqCst);
                    gate.0.acquire().await.unwrap().forget();
                    gate.1.fetch_sub(1, Ordering::SeqCst);
                }
            }
        };
        let (_running, receiver) = run((), handler.concurrency(concurrency).prefetch(8)).await;
        (0..8).for_each(|n| receiver.deliver(&n.to_string()));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(gate.1.load(Ordering::SeqCst), usize::from(concurrency));
        gate.0.add_permits(8);
        receiver.settles(8).await;
        assert_eq!(gate.2.load(Ordering::SeqCst), usize::from(concurrency));
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_concurrency_of_one_deliveries_are_handled_in_order() {
    let (seen, mut orders) = mpsc::unbounded_channel();
    let handler = move |Body(order): Body<String>| {
        let seen = seen.clone();
        async move {
            // The earlier, the slower.
            sleep(Duration::from_millis(100 - 10 * order.parse::<u64>().unwrap())).await;
            drop(seen.send(order));
        }
    };
    let (_running, receiver) = run((), handler.concurrency(1).prefetch(10)).await;
    (0..10).for_each(|n| receiver.deliver(&n.to_string()));
    for n in 0..10 {
        assert_eq!(in_time(orders.recv()).await.unwrap(), n.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn the_prefetch_is_the_concurrency_unless_said_otherwise() {
    async fn handler() {}
    let prefetch = |receiver: ReceiverHandle| receiver.change(|state| state.prefetch);
    assert_eq!(prefetch(run((), handler).await.1), 10);
    assert_eq!(prefetch(run((), handler.concurrency(3)).await.1), 3);
    assert_eq!(prefetch(run((), handler.concurrency(3).prefetch(300)).await.1), 300);
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_or_prefetch_that_makes_no_sense_fails_the_start() {
    async fn handler() {}
    for (handler, expected) in [
        (handler.concurrency(0), "a concurrency of 0"),
        (handler.prefetch(0), "a prefetch of 0"),
        (handler.concurrency(16).prefetch(8), "a prefetch of 8 cannot keep 16 handlers busy"),
    ] {
        let (broker, script) = Script::broker().await;
        let service = Service::new("office", broker).consume(&BILLING, handler);
        let error = service.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("queue \"billing\""), "{error}");
        assert_eq!(script.connects(Purpose::Consume), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn extractors_take_the_delivery_apart() {
    #[derive(Clone)]
    struct Rates(u32);
    struct Region(String);
    impl<M, S: Sync> FromDelivery<M, S> for Region {
        async fn from_delivery(incoming: &mut Incoming<'_>, _: &S) -> Result<Self, Failure> {
            let region = incoming.message()?.headers.get("region").and_then(Value::as_str);
            Ok(Self(region.unwrap_or("nowhere").to_owned()))
        }
    }
    let (seen, mut told) = mpsc::unbounded_channel();
    let handler = move |State(rates): State<Rates>,
                        Body(order): Body<String>,
                        Region(region): Region,
                        attempt: Attempt,
                        envelope: Envelope| {
        let seen = seen.clone();
        async move {
            let told = format!(
                "{order} at {} in {region}, attempt {}, by {:?}",
                rates.0, attempt.number, envelope.routing_key
            );
            drop(seen.send(told));
        }
    };
    let (_running, receiver) = run(Rates(7), handler).await;
    let mut message = Message::new(&b"\"tea\""[..]);
    message.properties.content_type = Some("application/json".try_into().unwrap());
    message.headers.insert("region", "eu").unwrap();
    receiver.deliver_message(message);
    assert_eq!(in_time(told.recv()).await.unwrap(), "tea at 7 in eu, attempt 1, by \"billing\"");
}

/// Who may order, as an argument.
struct Tenant;

impl<M, S: Sync> FromDelivery<M, S> for Tenant {
    async fn from_delivery(incoming: &mut Incoming<'_>, _: &S) -> Result<Self, Failure> {
        match incoming.message()?.headers.get("tenant").and_then(Value::as_str) {
            Some("ours") => Ok(Self),
            Some("unreadable") => Err(Error::new(ErrorKind::Codec, "read the tenant").into()),
            Some("away") => Err("the list of tenants is away".into()),
            _ => Err(Failure::new("not ours").outcome(Outcome::Release)),
        }
    }
}

/// A provider that notes what it is told.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

#[async_trait::async_trait]
impl Provider for Diary {
    type Handle = ();

    async fn provide(&self, _: &WorkerInfo) -> Result<(), Failure> {
        Ok(())
    }

    async fn result(
        &self,
        _: &WorkerInfo,
        _: &(),
        result: Result<Outcome, &Failure>,
    ) -> Result<(), Failure> {
        let told = result.map_or_else(|failure| failure.to_string(), |it| it.to_string());
        self.0.lock().unwrap().push(told);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_argument_may_refuse_a_message_and_say_what_becomes_of_it() {
    async fn bill(_: Provided<Diary>, _: Tenant, Body(_): Body<String>) {}
    for (tenant, outcome, told) in [
        ("ours", Outcome::Ack, &["ack"][..]),
        ("theirs", Outcome::Release, &["not ours"]),
        // What it does not say is for the consumer to say, as for a handler.
        ("away", Outcome::Ack, &["the list of tenants is away"]),
        // No provider is told of a message that cannot be decoded, since there was nothing to handle.
        ("unreadable", Outcome::Reject, &[]),
    ] {
        let diary = Diary::default();
        let handler = bill.on_error(OnError::ack());
        let (_running, receiver) = run(diary.clone(), handler).await;
        let mut message = Message::new(&b"\"tea\""[..]);
        message.properties.content_type = Some("application/json".try_into().unwrap());
        message.headers.insert("tenant", tenant).unwrap();
        receiver.deliver_message(message);
        receiver.settles(1).await;
        assert_eq!(receiver.settlements(), [(1, outcome)], "{tenant}");
        assert_eq!(*diary.0.lock().unwrap(), told, "{tenant}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_fail_with_an_outcome_and_with_any_error() {
    async fn refuse(Body(_): Body<String>) -> Result<(), Failure> {
        Err(Failure::new("not today").outcome(Outcome::Release))
    }
    async fn any(Body(_): Body<String>) -> anyhow::Result<()> {
        anyhow::bail!("no");
    }
    async fn boxed(
        Body(_): Body<String>,
    ) -> Result<Outcome, Box<dyn std::error::Error + Send + Sync>> {
        Err("no".into())
    }
    async fn text(Body(_): Body<String>) -> Result<(), String> {
        Err("no".to_owned())
    }
    assert_eq!(outcome(refuse.on_error(OnError::reject())).await, Outcome::Release);
    assert_eq!(outcome(any.on_error(OnError::reject())).await, Outcome::Reject);
    assert_eq!(outcome(boxed.on_error(OnError::reject())).await, Outcome::Reject);
    assert_eq!(outcome(text.on_error(OnError::reject())).await, Outcome::Reject);
}

const SHOP: Topic = Topic::new("shop");
const RECEIPTS: Route<String> = SHOP.route("receipt.created");

#[tokio::test(start_paused = true)]
async fn what_a_handler_publishes_carries_its_context_on() {
    async fn bill(
        State(receipts): State<Publisher<String>>,
        context: Context,
        Body(order): Body<String>,
    ) -> Result<(), Failure> {
        assert_eq!(Context::current(), Some(context));
        receipts.publish(&order).await?;
        Ok(())
    }
    let script = Script::new();
    script.state.change(|state| state.confirms = true);
    let broker = Broker::connect(script.clone()).await.unwrap();
    let receipts = broker.publisher(&RECEIPTS).await.unwrap();
    let service = Service::new("billing", broker).state(receipts).consume(&BILLING, bill);
    let running = service.start().await.unwrap();
    let receiver = script.receiver(0).await;
    let mut message = Message::new(&b"\"tea\""[..]);
    message.properties.content_type = Some("application/json".try_into().unwrap());
    let parents = vec![Value::from("shop.order.1")];
    message.headers.insert("nameko.call_id_stack", parents).unwrap();
    message.headers.insert("nameko.language", "fi").unwrap();
    message.headers.insert("traceparent", "foreign").unwrap();
    receiver.deliver_message(message);
    receiver.settles(1).await;
    assert_eq!(receiver.settlements(), [(1, Outcome::Ack)]);
    let sent = script.sender(0).await.change(|state| state.taken[0].message.headers.clone());
    assert_eq!(sent.get("nameko.language").and_then(Value::as_str), Some("fi"));
    assert!(!sent.contains("traceparent") && !sent.contains("nameko.traceparent"), "{sent:?}");
    let stack = sent.get("nameko.call_id_stack").and_then(Value::as_list).unwrap();
    assert_eq!(stack[0].as_str(), Some("shop.order.1"));
    assert!(stack[1].as_str().unwrap().starts_with("billing.bill."), "{stack:?}");
    assert_eq!(stack.len(), 2);
    running.kill().await;
}

/// A queue of a program's own that brings another one along.
#[derive(Debug)]
struct WithItsGrave;

impl Queue for WithItsGrave {
    type Message = String;

    fn spec(&self) -> QueueSpec {
        QueueSpec::new("living").unwrap()
    }

    fn describe(&self, topology: &mut Topology) {
        topology.add_queue(self.spec());
        topology.add_queue(QueueSpec::new("dead").unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_brings_others_along_is_the_one_that_is_consumed_from() {
    async fn handler() {}
    let (broker, script) = Script::broker().await;
    let _running = Service::new("office", broker).consume(&WithItsGrave, handler).start().await;
    assert_eq!(script.receiver(0).await.change(|state| state.queue.clone()), "living");
}

/// What was logged about failed handlers, by level.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<tracing::Level>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if event.metadata().fields().field("failure").is_some() {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_expected_is_a_warning_and_settles_the_same() {
    async fn parse(Body(order): Body<String>) -> Result<(), Failure> {
        let _: u32 = order.parse()?;
        Err(Failure::new("sold out"))
    }
    let log = Log::default();
    let _guard = crate::log::hear(log.clone());
    let handler = Handler::<String, (), (Body<String>,)>::expects::<std::num::ParseIntError>(parse)
        .on_error(OnError::reject());
    let (_running, receiver) = run((), handler).await;
    receiver.deliver("x");
    receiver.deliver("7");
    receiver.settles(2).await;
    assert_eq!(receiver.settlements(), [(1, Outcome::Reject), (2, Outcome::Reject)]);
    assert_eq!(*log.0.lock().unwrap(), [tracing::Level::WARN, tracing::Level::ERROR]);
}
