//! Dependencies that are made for each worker, and a limit for all workers of a service.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use enoki_core::{
    Body, Context, ErrorKind, Failure, FromState, Handler, OnError, Outcome, Provided, Provider,
    Purpose, Service, State, WorkQueue, WorkerInfo,
};
use tokio::sync::Notify;

use crate::script::{Script, in_time};

const BILLING: WorkQueue<String> = WorkQueue::new("billing");
const SHIPPING: WorkQueue<String> = WorkQueue::new("shipping");

fn in_seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A provider that notes what happens, and fails where it is told to.
#[derive(Clone)]
struct Noting {
    name: &'static str,
    diary: Arc<Mutex<Vec<String>>>,
    fails: &'static str,
}

impl Noting {
    fn note(&self, what: &str) -> Result<(), Failure> {
        self.diary.lock().unwrap().push(format!("{what} {}", self.name));
        assert!(self.fails != format!("panic in {what}"), "the test says so");
        if self.fails == what { Err(Failure::new(format!("no {what}"))) } else { Ok(()) }
    }
}

macro_rules! providers {
    ($($Name:ident),+) => {$(
        #[derive(Clone)]
        struct $Name(Noting);

        #[async_trait]
        impl Provider for $Name {
            type Handle = &'static str;

            async fn provide(&self, worker: &WorkerInfo) -> Result<&'static str, Failure> {
                assert_eq!(&*worker.service, "office");
                assert!(Context::current().is_some());
                self.0.note("provide").map(|()| self.0.name)
            }

            async fn setup(&self, _: &WorkerInfo, _: &&'static str) -> Result<(), Failure> {
                self.0.note("setup")
            }

            async fn result(
                &self,
                _: &WorkerInfo,
                _: &&'static str,
                result: Result<Outcome, &Failure>,
            ) -> Result<(), Failure> {
                let told = result.map_or_else(|failure| failure.to_string(), |it| it.to_string());
                self.0.diary.lock().unwrap().push(told);
                self.0.note("result")
            }

            async fn teardown(&self, _: &WorkerInfo, _: &'static str) -> Result<(), Failure> {
                self.0.note("teardown")
            }
        }

        impl FromState<Parts> for $Name {
            fn from_state(parts: &Parts) -> Self {
                parts.$Name.clone()
            }
        }
    )+};
}

#[allow(non_snake_case)]
struct Parts {
    First: First,
    Second: Second,
}

providers!(First, Second);

/// The diary of one delivery, and what became of it.
async fn handle<A: 'static>(
    first: &'static str,
    second: &'static str,
    handler: impl Handler<String, Parts, A>,
) -> (Vec<String>, Outcome) {
    let diary = Arc::new(Mutex::new(Vec::new()));
    let noting = |name, fails| Noting { name, diary: diary.clone(), fails };
    let parts = Parts { First: First(noting("a", first)), Second: Second(noting("b", second)) };
    let (broker, script) = Script::broker().await;
    let handler = handler.on_error(OnError::requeue());
    let service = Service::new("office", broker).state(parts).consume(&BILLING, handler);
    let running = service.start().await.unwrap();
    let receiver = script.receiver(0).await;
    receiver.deliver("order 1");
    receiver.settles(1).await;
    // A worker that failed lives on.
    let read = diary.lock().unwrap().clone();
    receiver.deliver("order 2");
    receiver.settles(2).await;
    running.stop(in_seconds(5)).await.unwrap();
    (read, receiver.settlements()[0].1)
}

async fn fine(Provided(a): Provided<First>, Provided(b): Provided<Second>, Body(_): Body<String>) {
    assert_eq!((a, b), ("a", "b"));
}

async fn fails(
    _: Provided<First>,
    _: Provided<Second>,
    Body(_): Body<String>,
) -> Result<(), Failure> {
    Err(Failure::new("sold out"))
}

async fn panics(_: Provided<First>, _: Provided<Second>, Body(_): Body<String>) {
    panic!("the test says so");
}

#[tokio::test(start_paused = true)]
async fn what_is_provided_is_told_the_result_in_order_before_the_delivery_is_settled() {
    let (diary, outcome) = handle("", "", fine).await;
    assert_eq!(
        diary,
        [
            "provide a",
            "provide b",
            "setup a",
            "setup b",
            "ack",
            "result a",
            "ack",
            "result b",
            "teardown b",
            "teardown a"
        ]
    );
    assert_eq!(outcome, Outcome::Ack);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_or_panics_is_told_to_what_was_provided() {
    let (diary, outcome) = handle("", "", fails).await;
    assert_eq!(diary[4..6], ["sold out", "result a"]);
    assert_eq!((diary.len(), outcome), (10, Outcome::Requeue));
    let (diary, outcome) = handle("", "", panics).await;
    assert_eq!(diary[4..6], ["the handler panicked", "result a"]);
    assert_eq!((diary.len(), outcome), (10, Outcome::Requeue));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_provider_fails_the_message_and_nothing_else() {
    for (fails, read) in [
        ("provide", vec!["provide a", "provide b", "no provide", "result a", "teardown a"]),
        (
            "setup",
            vec![
                "provide a",
                "provide b",
                "setup a",
                "setup b",
                "no setup",
                "result a",
                "no setup",
                "result b",
                "teardown b",
                "teardown a",
            ],
        ),
    ] {
        let (diary, outcome) = handle("", fails, fine).await;
        assert_eq!(
            (diary, outcome),
            (read.into_iter().map(str::to_owned).collect(), Outcome::Requeue)
        );
    }
    for fails in ["result", "teardown", "panic in result", "panic in teardown"] {
        let (diary, outcome) = handle(fails, "", fine).await;
        assert_eq!((diary.len(), outcome), (10, Outcome::Requeue), "{fails}: {diary:?}");
        // The one after it is told that the message has failed.
        let failed = diary[6].contains("no result") || diary[6].contains("panicked");
        assert_eq!(failed, fails.ends_with("result"), "{diary:?}");
    }
    let (diary, outcome) = handle("panic in provide", "", fine).await;
    assert_eq!((diary.len(), outcome), (1, Outcome::Requeue));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_decoded_is_rejected_and_what_was_provided_takes_its_leave() {
    async fn number(_: Provided<First>, Body(_): Body<String>, _: Provided<Second>) {}
    let diary = Arc::new(Mutex::new(Vec::new()));
    let noting = |name| Noting { name, diary: diary.clone(), fails: "" };
    let parts = Parts { First: First(noting("a")), Second: Second(noting("b")) };
    let (broker, script) = Script::broker().await;
    let service = Service::new("office", broker).state(parts).consume(&BILLING, number);
    let running = service.start().await.unwrap();
    let receiver = script.receiver(0).await;
    let mut message = enoki_core::Message::default();
    message.properties.content_type = Some("application/json".try_into().unwrap());
    message.body = "{".into();
    receiver.deliver_message(message);
    receiver.settles(1).await;
    assert_eq!(receiver.settlements(), [(1, Outcome::Reject)]);
    assert_eq!(*diary.lock().unwrap(), ["provide a", "teardown a"]);
    running.stop(in_seconds(5)).await.unwrap();
}

/// Handlers that wait until they are let go.
#[derive(Clone, Default)]
struct Gate {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    open: Arc<Notify>,
}

async fn wait(State(gate): State<Gate>, _: Body<String>) {
    let running = gate.running.fetch_add(1, Ordering::SeqCst) + 1;
    gate.most.fetch_max(running, Ordering::SeqCst);
    gate.open.notified().await;
    gate.running.fetch_sub(1, Ordering::SeqCst);
}

#[tokio::test(start_paused = true)]
async fn no_more_handlers_of_all_consumers_run_at_a_time_than_the_service_allows() {
    let gate = Gate::default();
    let (broker, script) = Script::broker().await;
    let running = Service::new("office", broker)
        .state(gate.clone())
        .workers(3)
        .consume(&BILLING, wait.concurrency(4))
        .consume(&SHIPPING, wait.concurrency(4))
        .start()
        .await
        .unwrap();
    for n in 0..2 {
        for order in 0..4 {
            script.receiver(n).await.deliver(&order.to_string());
        }
    }
    while gate.running.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    for _ in 0..8 {
        gate.open.notify_one();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    script.receiver(0).await.settles(4).await;
    script.receiver(1).await.settles(4).await;
    assert_eq!(gate.most.load(Ordering::SeqCst), 3);
    running.stop(in_seconds(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_waits_for_its_turn_when_the_service_stops_is_released() {
    let gate = Gate::default();
    let (broker, script) = Script::broker().await;
    let running = Service::new("office", broker)
        .state(gate.clone())
        .workers(1)
        .consume(&BILLING, wait.concurrency(2))
        .start()
        .await
        .unwrap();
    let receiver = script.receiver(0).await;
    receiver.deliver("runs");
    receiver.deliver("waits");
    while gate.running.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    let releasing = receiver.clone();
    let opening = async {
        releasing.settles(1).await;
        assert_eq!(releasing.settlements()[0].1, Outcome::Release);
        gate.open.notify_one();
    };
    let (stopped, ()) = tokio::join!(in_time(running.stop(in_seconds(30))), opening);
    stopped.unwrap();
    receiver.settles(2).await;
}

/// The broker delivers it again, whichever worker's turn it is now.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_waits_for_its_turn_when_the_connection_breaks_is_not_handled() {
    let gate = Gate::default();
    let (broker, script) = Script::broker().await;
    let running = Service::new("office", broker)
        .state(gate.clone())
        .workers(1)
        .consume(&BILLING, wait.concurrency(2))
        .start()
        .await
        .unwrap();
    let receiver = script.receiver(0).await;
    receiver.deliver("runs");
    receiver.deliver("waits");
    while gate.running.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    script.session(Purpose::Consume, 0).await.break_off();
    receiver.is_dropped().await;
    gate.open.notify_one();
    // Long enough for a turn that should not come.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(gate.running.load(Ordering::SeqCst), 0, "a handler began behind the loss");
    running.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_without_a_worker_does_not_start() {
    let (broker, _script) = Script::broker().await;
    let error = Service::new("office", broker).workers(0).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("service \"office\""), "{error}");
}
