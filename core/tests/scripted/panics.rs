//! What panics costs as little as it can, and is never silent: no task ends for it.

use std::{
    error::Error as StdError,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use enoki_core::{
    Body, Broker, BrokerOptions, ErrorKind, Failure, Handler, Health, OnError, Outcome, Provided,
    Provider, PublisherOptions, Purpose, RetryPolicy, Route, Service, State, Topic, WorkQueue,
    WorkerInfo,
};
use tracing::{Event, Metadata, Subscriber, span};

use crate::script::{Script, Trouble, in_time};

const BILLING: WorkQueue<String> = WorkQueue::new("billing");
const SHOP: Topic = Topic::new("shop");
const PLACED: Route<String> = SHOP.route("order.placed");

#[tokio::test(start_paused = true)]
async fn a_receiver_that_panics_is_replaced() {
    let (broker, script) = Script::broker().await;
    let mut subscription = broker.subscribe(&BILLING, 2).await.unwrap();
    let mut health = subscription.health();
    let receiver = script.receiver(0).await;
    receiver.deliver("unstarted");
    receiver.until("it gave its delivery", |state| state.deliveries.is_empty()).await;
    receiver.change(|state| state.panics = true);
    let is_told = |now: &enoki_core::ConsumerHealth| match &now.health {
        Health::Reconnecting { reason } => reason.kind() == ErrorKind::Unexpected,
        _ => false,
    };
    in_time(health.wait_for(is_told)).await.unwrap();
    script.receiver(1).await.deliver("order");
    let delivery = in_time(subscription.next()).await.unwrap().unwrap();
    assert_eq!(delivery.decode::<String>().unwrap(), "order");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_panics_when_it_is_consumed_from_is_tried_again() {
    let (broker, script) = Script::broker().await;
    let mut subscription = broker.subscribe(&BILLING, 2).await.unwrap();
    let panics = |state: &mut crate::script::ScriptState| {
        state.receiver_trouble = Some(Trouble::Panics);
    };
    script.state.change(panics);
    script.session(Purpose::Consume, 0).await.break_off();
    script.session(Purpose::Consume, 1).await;
    script.state.change(|state| state.receiver_trouble = None);
    script.session(Purpose::Consume, 1).await.break_off();
    let session = script.session(Purpose::Consume, 2).await;
    session.nth_receiver(0).await.deliver("order");
    let delivery = in_time(subscription.next()).await.unwrap().unwrap();
    assert_eq!(delivery.decode::<String>().unwrap(), "order");
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_panics_costs_what_it_took_and_is_replaced() {
    let (broker, script) = Script::broker().await;
    let options = PublisherOptions::new().window(2).retry(RetryPolicy::new());
    let orders = broker.publisher_with(&PLACED, options).await.unwrap();
    let order = "order".to_owned();
    let taken = orders.enqueue(&order).await.unwrap();
    let sender = script.sender(0).await;
    sender.took(1).await;
    sender.change(|state| state.panics = true);
    let caught = orders.enqueue(&order).await.unwrap();
    for confirm in [taken, caught] {
        let error = in_time(confirm).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
        assert!(error.to_string().contains("panicked"), "{error}");
    }
    // As many as the window has room for: what was lost has given its room back.
    let confirms =
        [orders.enqueue(&order).await.unwrap(), in_time(orders.enqueue(&order)).await.unwrap()];
    let next = script.sender(1).await;
    next.took(2).await;
    next.confirm(0..2);
    for confirm in confirms {
        in_time(confirm).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_panics_when_it_connects_is_tried_again() {
    let script = Script::new();
    script.state.change(|state| state.connect_trouble.extend([Trouble::Panics, Trouble::Panics]));
    in_time(Broker::connect(script.clone())).await.unwrap();
    assert_eq!(script.connects(Purpose::Publish), 3);
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Panics));
    let once = BrokerOptions::new().reach_within(Duration::ZERO);
    let error = in_time(Broker::connect_with(script, once)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_panics_is_replaced() {
    let (broker, script) = Script::broker().await;
    let mut subscription = broker.subscribe(&BILLING, 2).await.unwrap();
    let session = script.session(Purpose::Consume, 0).await;
    session.panic_on_end();
    session.break_off();
    let next = script.session(Purpose::Consume, 1).await;
    next.nth_receiver(0).await.deliver("order");
    assert!(in_time(subscription.next()).await.unwrap().is_some());
    in_time(broker.close(Duration::from_secs(5))).await;
    assert!(next.is_closed());
}

/// An error that panics when it is asked what it is.
#[derive(Debug)]
struct Trap;

impl fmt::Display for Trap {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("the test says so")
    }
}

impl StdError for Trap {}

/// An error that is its own cause.
#[derive(Debug)]
struct Cycle;

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("again")
    }
}

impl StdError for Cycle {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self)
    }
}

async fn shaky(Body(order): Body<String>) -> Result<(), Failure> {
    match &*order {
        "trap" => Err(Trap.into()),
        "cycle" => Err(Cycle.into()),
        "panic" => panic!("the test says so"),
        _ => Ok(()),
    }
}

/// A log that keeps every line, and may panic on each.
#[derive(Debug, Default)]
pub(crate) struct Log {
    panics: bool,
    pub(crate) lines: Arc<Mutex<Vec<String>>>,
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                self.0 += &format!("{}={value:?} ", field.name());
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.lines.lock().unwrap().push(format!("{} {}", event.metadata().level(), line.0));
        assert!(!self.panics, "the test says so");
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

const TROUBLE: [&str; 4] = ["trap", "cycle", "panic", "good"];

/// One worker, and each failure has its outcome: the worker, and the log, survive them all.
#[tokio::test(start_paused = true)]
async fn an_error_that_cannot_be_told_is_a_failure_like_any_other() {
    for panics in [false, true] {
        let log = Log { panics, ..Log::default() };
        let lines = log.lines.clone();
        let _guard = crate::log::hear(log);
        let (broker, script) = Script::broker().await;
        let handler = shaky.concurrency(1).on_error(OnError::reject());
        let service = Service::new("office", broker).consume(&BILLING, handler);
        let _running = service.start().await.unwrap();
        let receiver = script.receiver(0).await;
        TROUBLE.iter().for_each(|order| receiver.deliver(order));
        receiver.settles(4).await;
        let outcomes = [Outcome::Reject, Outcome::Reject, Outcome::Requeue, Outcome::Ack];
        let settled: Vec<_> = receiver.settlements().into_iter().map(|(_, what)| what).collect();
        assert_eq!(settled, outcomes);
        let lines = lines.lock().unwrap();
        assert_eq!(
            lines.iter().filter(|line| line.contains("the handler")).count(),
            3,
            "{lines:?}"
        );
    }
}

/// A dependency that panics in one of its hooks.
#[derive(Clone)]
struct Fragile(&'static str);

impl Fragile {
    fn check(&self, hook: &str) {
        assert_ne!(self.0, hook, "the test says so");
    }
}

#[derive(Clone)]
struct Made(Fragile);

impl Drop for Made {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.check("drop");
        }
    }
}

#[async_trait::async_trait]
impl Provider for Fragile {
    type Handle = Made;

    async fn provide(&self, _: &WorkerInfo) -> Result<Made, Failure> {
        self.check("provide");
        Ok(Made(self.clone()))
    }

    async fn setup(&self, _: &WorkerInfo, _: &Made) -> Result<(), Failure> {
        self.check("setup");
        Ok(())
    }

    async fn result(
        &self,
        _: &WorkerInfo,
        _: &Made,
        _: Result<Outcome, &Failure>,
    ) -> Result<(), Failure> {
        self.check("result");
        Ok(())
    }

    async fn teardown(&self, _: &WorkerInfo, _: Made) -> Result<(), Failure> {
        self.check("teardown");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_anywhere_fails_its_message_and_no_worker() {
    async fn bill(Provided(_made): Provided<Fragile>, State(_state): State<Fragile>) {}
    for hook in ["provide", "setup", "result", "teardown", "drop"] {
        let (broker, script) = Script::broker().await;
        let service = Service::new("office", broker).state(Fragile(hook));
        let service = service.consume(&BILLING, bill.concurrency(1));
        let _running = service.start().await.unwrap();
        let receiver = script.receiver(0).await;
        receiver.deliver("first");
        receiver.deliver("second");
        receiver.settles(2).await;
        let settled: Vec<_> = receiver.settlements().into_iter().map(|(_, what)| what).collect();
        assert_eq!(settled, [Outcome::Requeue; 2], "{hook}");
    }
}
