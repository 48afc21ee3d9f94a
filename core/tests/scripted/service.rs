//! The life of a service: it starts whole or not at all, and ends when it is told to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use enoki_core::{
    Body, Broker, BrokerOptions, Entrypoint, Error, ErrorKind, Failure, Handler, OnCancel, Outcome,
    Publisher, Purpose, Result, Route, Scope, Service, State, Topic, WorkQueue,
    transport::{Change, End},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::script::{Script, Trouble, broken, in_time};

const BILLING: WorkQueue<String> = WorkQueue::new("billing");
const SHIPPING: WorkQueue<String> = WorkQueue::new("shipping");
const SHOP: Topic = Topic::new("shop");
const RECEIPTS: Route<String> = SHOP.route("receipt.created");

async fn ack(_: Body<String>) {}

/// Runs for ten seconds, and counts how often it began and how often it ended.
#[derive(Clone, Default)]
struct Slow(Arc<(AtomicUsize, AtomicUsize)>);

impl Slow {
    fn counts(&self) -> (usize, usize) {
        (self.0.0.load(Ordering::SeqCst), self.0.1.load(Ordering::SeqCst))
    }
}

async fn slow(State(slow): State<Slow>, _: Body<String>) {
    slow.0.0.fetch_add(1, Ordering::SeqCst);
    sleep(Duration::from_secs(10)).await;
    slow.0.1.fetch_add(1, Ordering::SeqCst);
}

fn in_seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_stops_what_had_started_and_closes() {
    let script = Script::new();
    script.state.change(|state| {
        state.apply_trouble = Some(|change| match change {
            Change::DeclareQueue(queue) if queue.name == "shipping" => {
                Some(Trouble::Fails(Error::new(ErrorKind::Conflict, "declare").on(queue.subject())))
            }
            _ => None,
        });
    });
    let broker = Broker::connect(script.clone()).await.unwrap();
    let receipts = broker.publisher(&RECEIPTS).await.unwrap();
    let service = Service::new("office", broker).state(receipts);
    let service = service.consume(&BILLING, ack).consume(&SHIPPING, ack);
    let error = service.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("queue \"shipping\""), "{error}");
    script.receiver(0).await.change(|state| assert!(state.stopped && state.closed));
    assert!(script.session(Purpose::Consume, 0).await.is_closed());
    assert!(script.session(Purpose::Publish, 0).await.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_start_ends_at_its_deadline_whatever_hangs() {
    let hanging: [fn(&Script); 3] = [
        |script| script.state.change(|state| state.connect_trouble.push_back(Trouble::Hangs)),
        |script| script.state.change(|state| state.apply_trouble = Some(|_| Some(Trouble::Hangs))),
        |script| script.state.change(|state| state.receiver_trouble = Some(Trouble::Hangs)),
    ];
    for hang in hanging {
        let (broker, script) = Script::broker().await;
        hang(&script);
        let service = Service::new("office", broker)
            .consume(&BILLING, ack)
            .start_within(Duration::from_secs(2))
            .stop_within(Duration::from_secs(3));
        let began = Instant::now();
        let error = service.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let text = error.to_string();
        assert!(text.contains("scripted") || text.contains("queue \"billing\""), "{text}");
        assert!(began.elapsed() <= Duration::from_secs(2 + 3 + 1), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_cannot_open_its_queue_in_time_fails_the_start_with_that() {
    let script = Script::new();
    script.state.change(|state| state.receiver_trouble = Some(Trouble::Hangs));
    let options = BrokerOptions::new()
        .connect_timeout(Duration::from_secs(1))
        .declare_timeout(Duration::from_secs(1));
    let broker = Broker::connect_with(script, options).await.unwrap();
    let began = Instant::now();
    let service = Service::new("office", broker).consume(&BILLING, ack);
    let error = service.start_within(Duration::from_secs(7)).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("queue \"billing\""), "{error}");
    assert!(began.elapsed() <= Duration::from_secs(7 + 1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_running_handlers_finish_and_releases_the_rest() {
    let (broker, script) = Script::broker().await;
    let handled = Slow::default();
    let service = Service::new("office", broker)
        .state(handled.clone())
        .consume(&BILLING, slow.concurrency(2).prefetch(5));
    let running = service.start().await.unwrap();
    let receiver = script.receiver(0).await;
    (0..5).for_each(|n| receiver.deliver(&n.to_string()));
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    in_time(running.stop(in_seconds(30))).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(9));
    assert_eq!(handled.counts(), (2, 2));
    let release = Outcome::Release;
    assert_eq!(
        receiver.settlements(),
        [(1, Outcome::Ack), (2, Outcome::Ack), (3, release), (4, release), (5, release)]
    );
    receiver.change(|state| assert!(state.stopped && state.closed));
    assert!(script.session(Purpose::Consume, 0).await.is_closed());
}

#[tokio::test(start_paused = true)]
async fn no_handler_begins_while_the_broker_is_slow_to_stop() {
    let script = Script::new();
    script.state.change(|state| state.stop_hangs = true);
    let broker = Broker::connect(script.clone()).await.unwrap();
    let handled = Slow::default();
    let service = Service::new("office", broker)
        .state(handled.clone())
        .consume(&BILLING, slow.concurrency(1).prefetch(5));
    let running = service.start().await.unwrap();
    let receiver = script.receiver(0).await;
    (0..5).for_each(|n| receiver.deliver(&n.to_string()));
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    assert_eq!(in_time(running.stop(in_seconds(30))).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(began.elapsed() <= Duration::from_secs(31), "{:?}", began.elapsed());
    assert_eq!(handled.counts(), (1, 1));
    let release = Outcome::Release;
    let expected = [(1, Outcome::Ack), (2, release), (3, release), (4, release), (5, release)];
    assert_eq!(receiver.settlements(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_outlives_the_deadline_is_abandoned_and_said_so() {
    let (broker, script) = Script::broker().await;
    let handled = Slow::default();
    let service = Service::new("office", broker).state(handled.clone()).consume(&BILLING, slow);
    let running = service.start().await.unwrap();
    let receiver = script.receiver(0).await;
    receiver.deliver("long");
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    let error = in_time(running.stop(in_seconds(3))).await.unwrap_err();
    assert!(began.elapsed() <= Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("queue \"billing\""), "{error}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(handled.counts(), (1, 0));
    assert!(!receiver.settlements().contains(&(1, Outcome::Ack)));
    receiver.is_dropped().await;
}

#[tokio::test(start_paused = true)]
async fn stopping_and_killing_end_in_time_when_the_broker_answers_nothing_any_more() {
    for kill in [false, true] {
        let script = Script::new();
        script.state.change(|state| (state.stop_hangs, state.close_hangs) = (true, true));
        let broker = Broker::connect(script.clone()).await.unwrap();
        let receipts = broker.publisher(&RECEIPTS).await.unwrap();
        let stuck = receipts.enqueue(&"stuck".to_owned()).await.unwrap();
        let service = Service::new("office", broker).state(receipts).consume(&BILLING, ack);
        let running = service.consume(&SHIPPING, ack).start().await.unwrap();
        drop(stuck);
        let began = Instant::now();
        if kill {
            in_time(running.kill()).await;
            assert!(began.elapsed() <= Duration::from_secs(1), "{:?}", began.elapsed());
        } else {
            assert!(in_time(running.stop(in_seconds(5))).await.is_err());
            assert!(began.elapsed() <= Duration::from_secs(7), "{:?}", began.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn killing_abandons_running_handlers_and_their_deliveries_go_back() {
    let (broker, script) = Script::broker().await;
    let handled = Slow::default();
    let service = Service::new("office", broker).state(handled.clone()).consume(&BILLING, slow);
    let running = service.start().await.unwrap();
    let receiver = script.receiver(0).await;
    receiver.deliver("long");
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    in_time(running.kill()).await;
    assert!(began.elapsed() <= Duration::from_secs(1), "{:?}", began.elapsed());
    receiver.is_dropped().await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(handled.counts(), (1, 0));
    assert_eq!(receiver.settlements(), []);
    assert!(script.session(Purpose::Consume, 0).await.is_closed());
}

/// Who consumes next would get what comes after the deliveries that the first one still holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_was_killed_holds_no_delivery_any_more() {
    let (broker, script) = Script::broker().await;
    let running = Service::new("office", broker).consume(&BILLING, ack).start().await.unwrap();
    let receiver = script.receiver(0).await;
    receiver.change(|state| state.drops_slowly = Duration::from_millis(50));
    in_time(running.kill()).await;
    assert!(receiver.change(|state| state.dropped));
}

#[tokio::test(start_paused = true)]
async fn a_running_service_that_is_dropped_lets_go_of_everything() {
    let (broker, script) = Script::broker().await;
    let handled = Slow::default();
    let service = Service::new("office", broker).state(handled.clone()).consume(&BILLING, slow);
    let running = service.start().await.unwrap();
    let receiver = script.receiver(0).await;
    receiver.deliver("long");
    sleep(Duration::from_secs(1)).await;
    drop(running);
    receiver.is_dropped().await;
    for purpose in [Purpose::Consume, Purpose::Publish] {
        script.session(purpose, 0).await.state.until("it closes", |state| state.closed).await;
    }
    assert_eq!(handled.counts(), (1, 0));
}

/// A message that was handed over but not waited for is still a promise.
#[tokio::test(start_paused = true)]
async fn the_connection_stays_until_what_handlers_published_has_its_outcome() {
    async fn bill(
        State(receipts): State<Publisher<String>>,
        Body(order): Body<String>,
    ) -> Result<(), Failure> {
        drop(receipts.enqueue(&order).await?);
        Ok(())
    }
    let (broker, script) = Script::broker().await;
    let receipts = broker.publisher(&RECEIPTS).await.unwrap();
    let service = Service::new("office", broker).state(receipts).consume(&BILLING, bill);
    let running = service.start().await.unwrap();
    let receiver = script.receiver(0).await;
    receiver.deliver("tea");
    receiver.settles(1).await;
    let sender = script.sender(0).await;
    let session = script.session(Purpose::Publish, 0).await;
    let stopping = tokio::spawn(running.stop(in_seconds(30)));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(sender.bodies(), ["tea"]);
    assert!(!session.is_closed());
    sender.confirm(0..1);
    stopping.await.unwrap().unwrap();
    assert!(session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_others_hold_stays_open_when_a_service_stops() {
    let (broker, script) = Script::broker().await;
    let service = Service::new("office", broker.clone()).consume(&BILLING, ack);
    service.start().await.unwrap().stop(in_seconds(5)).await.unwrap();
    assert!(!script.session(Purpose::Consume, 0).await.is_closed());
    broker.subscribe(&BILLING, 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_goes_on_after_its_connection_broke() {
    let (broker, script) = Script::broker().await;
    let service = Service::new("office", broker).consume(&BILLING, ack).consume(&SHIPPING, ack);
    let running = service.start().await.unwrap();
    let health = running.health().consumers();
    assert_eq!(
        health.iter().map(|(queue, _)| &**queue).collect::<Vec<_>>(),
        ["billing", "shipping"]
    );
    script.session(Purpose::Consume, 0).await.break_off();
    let next = script.session(Purpose::Consume, 1).await;
    for n in 0..2 {
        let receiver = next.nth_receiver(n).await;
        receiver.deliver("more");
        receiver.settles(1).await;
        assert_eq!(receiver.settlements(), [(1, Outcome::Ack)]);
    }
    for (_, health) in running.health().consumers() {
        assert!(health.borrow().health.is_ready());
    }
    running.stop(in_seconds(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_broker_is_tried_again_until_the_start_is_to_be_over() {
    let (broker, script) = Script::broker().await;
    script.state.change(|state| {
        state.connect_trouble.extend((0..4).map(|_| Trouble::Fails(broken())));
    });
    let running = Service::new("office", broker).consume(&BILLING, ack).start().await.unwrap();
    assert_eq!(script.connects(Purpose::Consume), 5);
    running.stop(in_seconds(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_fails_when_it_is_cancelled_fails_the_service() {
    let (broker, script) = Script::broker().await;
    let service = Service::new("office", broker)
        .consume(&BILLING, ack)
        .consume(&SHIPPING, ack.on_cancel(OnCancel::Fail));
    let running = tokio::spawn(service.run_until(std::future::pending()));
    script.receiver(1).await.change(|state| state.end = Some(|| End::Cancelled(broken())));
    let error = in_time(running).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(error.to_string().contains("queue \"shipping\""), "{error}");
    // The other one was stopped in order.
    script.receiver(0).await.change(|state| assert!(state.stopped && state.closed));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_cannot_be_resumed_fails_the_service() {
    let (broker, script) = Script::broker().await;
    let service = Service::new("office", broker).consume(&BILLING, ack);
    let running = tokio::spawn(service.run_until(std::future::pending()));
    script.receiver(0).await;
    let denied =
        || Trouble::Fails(Error::new(ErrorKind::Denied, "connect").because("access refused"));
    // That may be a broker that goes down, or a password that is changed.
    script.state.change(|state| state.connect_trouble.extend((0..12).map(|_| denied())));
    script.session(Purpose::Consume, 0).await.break_off();
    let next = script.session(Purpose::Consume, 1).await;
    next.nth_receiver(0).await;
    script.state.change(|state| state.connect_trouble.extend((0..100).map(|_| denied())));
    let began = Instant::now();
    next.break_off();
    let error = in_time(running).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("access refused"), "{error}");
    assert!(error.to_string().contains("it was tried for 3"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Denied);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(300) && took <= Duration::from_secs(331), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_runs_until_its_signal_and_stops_in_order() {
    let (broker, script) = Script::broker().await;
    let handled = Slow::default();
    let (signal, signalled) = oneshot::channel::<()>();
    let service = Service::new("office", broker).state(handled.clone()).consume(&BILLING, slow);
    let running = tokio::spawn(service.run_until(async { drop(signalled.await) }));
    let receiver = script.receiver(0).await;
    receiver.deliver("tea");
    sleep(Duration::from_secs(1)).await;
    signal.send(()).unwrap();
    in_time(running).await.unwrap().unwrap();
    assert_eq!(handled.counts(), (1, 1));
    assert_eq!(receiver.settlements(), [(1, Outcome::Ack)]);
}

#[tokio::test(start_paused = true)]
async fn a_signal_during_the_start_ends_it_and_stops_what_had_started() {
    let (broker, script) = Script::broker().await;
    script.state.change(|state| {
        state.apply_trouble = Some(|change| match change {
            Change::DeclareQueue(queue) if queue.name == "shipping" => Some(Trouble::Hangs),
            _ => None,
        });
    });
    let service = Service::new("office", broker).consume(&BILLING, ack).consume(&SHIPPING, ack);
    let began = Instant::now();
    let signal = sleep(Duration::from_secs(2));
    in_time(service.run_until(signal)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    script.receiver(0).await.change(|state| assert!(state.stopped && state.closed));
}

/// Nothing but its name: what it does is that of the closures.
struct Own {
    starts: fn(&Scope) -> Result<()>,
    hangs: bool,
}

#[async_trait]
impl Entrypoint for Own {
    fn name(&self) -> &str {
        "own"
    }

    async fn start(&mut self, scope: Scope) -> Result<()> {
        (self.starts)(&scope)
    }

    async fn stop(&mut self, _: Instant) -> Result<()> {
        self.kill().await;
        Ok(())
    }

    async fn kill(&mut self) {
        if self.hangs {
            std::future::pending::<()>().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_entrypoint_that_fails_later_stops_the_service_with_its_error() {
    let (broker, script) = Script::broker().await;
    let own = Own {
        starts: |scope| {
            scope.fail(Error::new(ErrorKind::Unexpected, "tick").because("the clock stopped"));
            scope.fail(Error::new(ErrorKind::Timeout, "tick").because("only the first counts"));
            Ok(())
        },
        hangs: false,
    };
    let service = Service::new("office", broker).consume(&BILLING, ack).entrypoint(own);
    let error = service.run_until(std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("the clock stopped"), "{error}");
    script.receiver(0).await.change(|state| assert!(state.stopped && state.closed));
}

#[tokio::test(start_paused = true)]
async fn an_entrypoint_that_never_stops_holds_up_nobody() {
    for kill in [false, true] {
        let (broker, script) = Script::broker().await;
        let own = Own { starts: |_| Ok(()), hangs: true };
        let service = Service::new("office", broker).entrypoint(own).consume(&BILLING, ack);
        let running = service.start().await.unwrap();
        let began = Instant::now();
        if kill {
            in_time(running.kill()).await;
        } else {
            let error = in_time(running.stop(in_seconds(5))).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert!(error.to_string().contains("\"own\""), "{error}");
        }
        assert!(began.elapsed() <= Duration::from_secs(11), "{:?}", began.elapsed());
        script.receiver(0).await.is_dropped().await;
    }
}

/// It cannot be aborted; but the rest of the program has to go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_blocks_its_thread_holds_up_neither_stop_nor_kill() {
    for kill in [false, true] {
        let (broker, script) = Script::broker().await;
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let (began, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let block = move || {
            began.send(()).unwrap();
            let gate = gate.clone();
            async move {
                // Should it hold up the test all the same, then not for ever.
                let _ = gate.lock().unwrap().recv_timeout(Duration::from_secs(10));
            }
        };
        let service = Service::new("office", broker).consume(&BILLING, block);
        let running = service.start().await.unwrap();
        script.receiver(0).await.deliver("blocks");
        begun.recv().await.unwrap();
        let began = Instant::now();
        if kill {
            in_time(running.kill()).await;
        } else {
            let _ = in_time(running.stop(Duration::ZERO)).await;
        }
        let elapsed = began.elapsed();
        let _ = go.send(());
        assert!(elapsed <= Duration::from_millis(2800), "{elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_health_of_a_service_is_told_to_those_who_do_not_hold_it() {
    let (broker, script) = Script::broker().await;
    let service = Service::new("office", broker).consume(&BILLING, ack).consume(&SHIPPING, ack);
    let mut health = service.health();
    assert!(!health.is_ready() && health.consumers().is_empty());
    let (signal, signalled) = oneshot::channel::<()>();
    let running = tokio::spawn(service.run_until(async { drop(signalled.await) }));
    in_time(health.ready()).await;
    assert!(health.is_ready());
    let mut consumers = health.clone().consumers();
    assert_eq!(
        consumers.iter().map(|(queue, _)| &**queue).collect::<Vec<_>>(),
        ["billing", "shipping"]
    );
    script.session(Purpose::Consume, 0).await.break_off();
    for (_, consumer) in &mut consumers {
        in_time(consumer.wait_for(|now| !now.health.is_ready())).await.unwrap();
    }
    assert!(!health.is_ready());
    in_time(health.ready()).await;
    assert!(consumers.iter().all(|(_, consumer)| consumer.borrow().subscribed == 2));
    signal.send(()).unwrap();
    in_time(running).await.unwrap().unwrap();
    assert!(!health.is_ready() && health.consumers().is_empty());
}
