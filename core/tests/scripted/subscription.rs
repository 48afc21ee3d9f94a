//! Deliveries: each is settled once, and those that were not settled go back.

use std::{sync::Arc, time::Duration};

use enoki_core::{
    Broker, BrokerOptions, Delivery, Error, ErrorKind, Health, OnCancel, Outcome, Purpose, Settled,
    Subscription, TemporaryQueue, WorkQueue,
    transport::{Change, End, Settle},
};
use tokio::time::{Instant, sleep};

use crate::panics::Log;
use crate::script::{ReceiverState, Script, Trouble, Watched, broken, in_time};

const BILLING: WorkQueue<String> = WorkQueue::new("billing");

type ReceiverHandle = Arc<Watched<ReceiverState>>;

async fn subscribe(prefetch: u16) -> (Subscription, ReceiverHandle, Broker, Arc<Script>) {
    subscribe_to(Script::new(), prefetch).await
}

async fn subscribe_to(
    script: Arc<Script>,
    prefetch: u16,
) -> (Subscription, ReceiverHandle, Broker, Arc<Script>) {
    let broker = Broker::connect(script.clone()).await.unwrap();
    let subscription = broker.subscribe(&BILLING, prefetch).await.unwrap();
    let receiver = script.receiver(0).await;
    (subscription, receiver, broker, script)
}

async fn next(subscription: &mut Subscription) -> Delivery {
    in_time(subscription.next()).await.unwrap().expect("a delivery")
}

fn in_seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_declared_before_it_is_consumed_from() {
    let (_subscription, receiver, _broker, script) = subscribe(7).await;
    let applied = script.session(Purpose::Consume, 0).await.applied();
    assert!(matches!(&applied[..], [Change::DeclareQueue(queue)] if queue.name == "billing"));
    receiver.change(|state| assert_eq!((&*state.queue, state.prefetch), ("billing", 7)));
}

#[tokio::test(start_paused = true)]
async fn deliveries_come_in_the_order_of_the_queue() {
    let (mut subscription, receiver, _broker, _script) = subscribe(3).await;
    for n in 0..10 {
        receiver.deliver(&n.to_string());
    }
    for n in 0..10 {
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.decode::<String>().unwrap(), n.to_string());
        assert_eq!(delivery.settle(Outcome::Ack), Settled::Queued);
        receiver.settles(n + 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn settlements_that_belong_together_go_together() {
    let (mut subscription, receiver, _broker, _script) = subscribe(8).await;
    for n in 0..8 {
        receiver.deliver(&n.to_string());
    }
    let mut deliveries = Vec::new();
    for _ in 0..8 {
        deliveries.push(next(&mut subscription).await);
    }
    for delivery in deliveries {
        delivery.settle(Outcome::Ack);
    }
    receiver.settles(8).await;
    let batches = receiver.change(|state| state.settled.clone());
    let all: Vec<_> = (1..=8).map(|tag| Settle::new(tag, Outcome::Ack)).collect();
    assert_eq!(batches, [all]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_dropped_is_requeued() {
    let (mut subscription, receiver, _broker, _script) = subscribe(2).await;
    receiver.deliver("a");
    drop(next(&mut subscription).await);
    receiver.settles(1).await;
    assert_eq!(receiver.settlements(), [(1, Outcome::Requeue)]);
}

#[tokio::test(start_paused = true)]
async fn each_outcome_reaches_the_receiver_as_it_is() {
    let (mut subscription, receiver, _broker, _script) = subscribe(4).await;
    let outcomes = [Outcome::Reject, Outcome::Release, Outcome::Requeue, Outcome::Ack];
    for outcome in outcomes {
        receiver.deliver("a");
        next(&mut subscription).await.settle(outcome);
    }
    receiver.settles(4).await;
    let expected: Vec<_> = (1..).zip(outcomes).collect();
    assert_eq!(receiver.settlements(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_settled_after_its_connection_broke_is_stale() {
    let (mut subscription, receiver, _broker, script) = subscribe(2).await;
    receiver.deliver("a");
    let delivery = next(&mut subscription).await;
    script.session(Purpose::Consume, 0).await.break_off();
    receiver.is_dropped().await;
    assert_eq!(delivery.settle(Outcome::Ack), Settled::Stale);
    assert_eq!(receiver.settlements(), []);
}

/// Tags begin again at 1 with every channel.
#[tokio::test(start_paused = true)]
async fn a_stale_delivery_settles_no_other_of_the_same_tag() {
    let (mut subscription, first, _broker, script) = subscribe(2).await;
    first.deliver("old");
    let old = next(&mut subscription).await;
    script.session(Purpose::Consume, 0).await.break_off();
    first.is_dropped().await;
    let second = script.session(Purpose::Consume, 1).await.nth_receiver(0).await;
    second.deliver("new");
    let new = next(&mut subscription).await;
    assert_eq!(old.settle(Outcome::Ack), Settled::Stale);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(second.settlements(), []);
    assert_eq!(subscription.health().borrow().stale, 1);
    new.settle(Outcome::Reject);
    second.settles(1).await;
    assert_eq!(second.settlements(), [(1, Outcome::Reject)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_delivered_beyond_the_prefetch_goes_back_and_nothing_is_lost() {
    for prefetch in [1, 2, 3] {
        let (mut subscription, receiver, _broker, _script) = subscribe(prefetch).await;
        receiver.change(|state| state.overflows = true);
        // Taken, so that the queue to the handlers is empty; but not settled.
        receiver.deliver("held");
        let mut held = vec![next(&mut subscription).await];
        for n in 0..20 {
            receiver.deliver(&n.to_string());
        }
        sleep(Duration::from_secs(1)).await;
        while held.len() < prefetch.into() {
            held.push(next(&mut subscription).await);
        }
        receiver.settles(21 - usize::from(prefetch)).await;
        for delivery in held {
            assert_eq!(delivery.settle(Outcome::Ack), Settled::Queued, "prefetch {prefetch}");
        }
        receiver.settles(21).await;
        let settlements = receiver.settlements();
        assert_eq!(settlements.len(), 21, "each once");
        for (tag, outcome) in settlements {
            let kept = tag <= prefetch.into();
            assert_eq!(outcome, if kept { Outcome::Ack } else { Outcome::Release }, "{tag}");
        }
    }
}

type MakeEnd = fn() -> End;

fn cancelled() -> End {
    End::Cancelled(Error::new(ErrorKind::NotFound, "consume").because("basic.cancel"))
}

#[tokio::test(start_paused = true)]
async fn after_an_end_that_nobody_asked_for_it_consumes_again_and_is_never_silent_about_it() {
    let ends: [MakeEnd; 3] = [|| End::Stopped, cancelled, || End::Lost(broken())];
    let reasons = ["the broker ended it", "basic.cancel", "the line is dead"];
    for (end, expected) in ends.into_iter().zip(reasons) {
        let (mut subscription, first, _broker, script) = subscribe(2).await;
        let mut health = subscription.health();
        assert!(health.borrow_and_update().health.is_ready());
        first.change(|state| state.end = Some(end));
        health.changed().await.unwrap();
        let text = health.borrow_and_update().health.to_string();
        assert!(text.starts_with("reconnecting") && text.contains(expected), "{text}");
        assert!(text.contains("queue \"billing\""), "{text}");
        let second = script.receiver(1).await;
        second.deliver("more");
        next(&mut subscription).await.settle(Outcome::Ack);
        second.settles(1).await;
        let now = health.borrow_and_update().clone();
        assert!(now.health.is_ready());
        assert_eq!(now.subscribed, 2);
        let declared = script.session(Purpose::Consume, 0).await.applied().len();
        assert_eq!(declared, 2, "again, since it may be what was deleted");
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_to_fail_when_it_is_cancelled_says_so_again_and_again() {
    let (broker, script) = Script::broker().await;
    let mut subscription = broker.subscribe_with(&BILLING, 2, OnCancel::Fail).await.unwrap();
    script.receiver(0).await.change(|state| state.end = Some(cancelled));
    for _ in 0..2 {
        let error = in_time(subscription.next()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connection);
        assert!(!error.is_transient());
        let text = error.to_string();
        assert!(text.contains("basic.cancel") && text.contains("queue \"billing\""), "{text}");
    }
    assert!(matches!(&subscription.health().borrow().health, Health::Stopped { reason: Some(_) }));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_handler_when_the_broker_cancels_is_released() {
    let (mut subscription, first, _broker, script) = subscribe(3).await;
    for n in 0..3 {
        first.deliver(&n.to_string());
    }
    let taken = next(&mut subscription).await;
    first.change(|state| state.end = Some(cancelled));
    first.settles(2).await;
    assert_eq!(taken.settle(Outcome::Ack), Settled::Queued, "its channel is still there");
    first.settles(3).await;
    assert_eq!(
        first.settlements(),
        [(1, Outcome::Ack), (2, Outcome::Release), (3, Outcome::Release)]
    );
    script.receiver(1).await;
}

fn other(change: &Change) -> Option<Trouble> {
    let Change::DeclareQueue(queue) = change else { return None };
    let error = Error::new(ErrorKind::Conflict, "declare").on(queue.subject());
    Some(Trouble::Fails(error.because("it is other")))
}

/// A queue that was deleted and made anew by another program, for instance.
#[tokio::test(start_paused = true)]
async fn a_consumer_that_cannot_be_resumed_says_why_and_for_how_long_it_tried() {
    let (mut subscription, _, _broker, script) = subscribe(2).await;
    script.state.change(|state| state.apply_trouble = Some(other));
    let began = Instant::now();
    script.session(Purpose::Consume, 0).await.break_off();
    let error = in_time(subscription.next()).await.unwrap_err();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(300) && took <= Duration::from_secs(331), "{took:?}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let text = error.to_string();
    for part in ["it is other", "queue \"billing\"", "it was tried for 3"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(script.connects(Purpose::Consume), 2, "the connection is sound");
    let health = subscription.health().borrow().clone();
    assert!(matches!(health.health, Health::Stopped { reason: Some(_) }), "{health}");
}

#[tokio::test(start_paused = true)]
async fn what_consumed_once_goes_on_trying_whatever_it_is_told() {
    const KINDS: [ErrorKind; 6] = [
        ErrorKind::NotFound,
        ErrorKind::Denied,
        ErrorKind::Conflict,
        ErrorKind::Configuration,
        ErrorKind::Unexpected,
        ErrorKind::Refused,
    ];
    for kind in KINDS {
        let (mut subscription, first, _broker, script) = subscribe(2).await;
        let refusal = Error::new(kind, "consume").because("process is stopped by supervisor");
        script.state.change(|state| state.receiver_trouble = Some(Trouble::Fails(refusal)));
        script.session(Purpose::Consume, 0).await.break_off();
        first.is_dropped().await;
        let mut health = subscription.health();
        let told = health.wait_for(|now| now.health.to_string().contains("supervisor")).await;
        assert!(matches!(told.unwrap().health, Health::Reconnecting { .. }), "{kind:?}");
        sleep(Duration::from_secs(240)).await;
        script.state.change(|state| state.receiver_trouble = None);
        // The script's session goes on as it began.
        script.session(Purpose::Consume, 1).await.break_off();
        let second = script.session(Purpose::Consume, 2).await.nth_receiver(0).await;
        second.deliver("more");
        next(&mut subscription).await.settle(Outcome::Ack);
        assert!(health.borrow().health.is_ready(), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_until_a_consumer_gives_up_can_be_set() {
    let script = Script::new();
    let options = BrokerOptions::new().give_up_after(Duration::from_secs(20));
    let broker = Broker::connect_with(script.clone(), options).await.unwrap();
    let mut subscription = broker.subscribe(&BILLING, 2).await.unwrap();
    script.state.change(|state| state.apply_trouble = Some(other));
    let began = Instant::now();
    script.session(Purpose::Consume, 0).await.break_off();
    let error = in_time(subscription.next()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(20) && took <= Duration::from_secs(51), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_first_start_believes_a_refusal_unless_its_session_ended_meanwhile() {
    let denied = || Error::new(ErrorKind::Denied, "consume").because("access refused");
    let script = Script::new();
    script.state.change(|state| state.receiver_trouble = Some(Trouble::Fails(denied())));
    let broker = Broker::connect(script.clone()).await.unwrap();
    let began = Instant::now();
    let error = broker.subscribe(&BILLING, 2).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Denied, Duration::ZERO));
    assert!(!error.is_transient());

    let script = Script::new();
    let trouble = Trouble::BreaksSaying(denied());
    script.state.change(|state| state.receiver_trouble = Some(trouble));
    let broker = Broker::connect(script.clone()).await.unwrap();
    let subscribing = tokio::spawn(async move { broker.subscribe(&BILLING, 2).await });
    script.session(Purpose::Consume, 0).await.is_over().await;
    script.state.change(|state| state.receiver_trouble = None);
    in_time(subscribing).await.unwrap().unwrap();
}

/// The connection has pauses of its own, and those of the consumer are not added to them.
#[tokio::test(start_paused = true)]
async fn a_consumer_is_back_as_soon_as_its_connection_is_however_long_that_took() {
    let (mut subscription, _, broker, script) = subscribe(2).await;
    let trouble = std::iter::repeat_n(Trouble::Fails(broken()), 300);
    script.state.change(|state| state.connect_trouble.extend(trouble));
    script.session(Purpose::Consume, 0).await.break_off();
    let mut health = broker.health();
    health.wait_for(|health| !health.consuming.is_ready()).await.unwrap();
    sleep(Duration::from_secs(100)).await;
    script.state.change(|state| state.connect_trouble.clear());
    let began = Instant::now();
    let receiver = script.session(Purpose::Consume, 1).await.nth_receiver(0).await;
    assert!(began.elapsed() <= Duration::from_millis(1200), "{:?}", began.elapsed());
    receiver.deliver("more");
    next(&mut subscription).await.settle(Outcome::Ack);
}

/// A broker may hold on to an exclusive queue until it notices that the old connection is dead.
#[tokio::test(start_paused = true)]
async fn a_queue_that_still_belongs_to_the_dead_connection_is_waited_for() {
    let (mut subscription, _, _broker, script) = subscribe(2).await;
    let locked = Error::new(ErrorKind::Conflict, "consume").because("locked").transient(true);
    script.state.change(|state| state.receiver_trouble = Some(Trouble::Fails(locked)));
    script.session(Purpose::Consume, 0).await.break_off();
    let mut health = subscription.health();
    health.wait_for(|now| now.health.to_string().contains("locked")).await.unwrap();
    // It goes with the connection here, for want of a broker that lets go.
    script.state.change(|state| state.receiver_trouble = None);
    script.session(Purpose::Consume, 1).await.break_off();
    let receiver = script.session(Purpose::Consume, 2).await.nth_receiver(0).await;
    receiver.deliver("more");
    next(&mut subscription).await.settle(Outcome::Ack);
}

#[tokio::test(start_paused = true)]
async fn stopping_while_there_is_no_connection_ends_at_once() {
    let (mut subscription, _, _broker, script) = subscribe(2).await;
    let trouble = std::iter::repeat_n(Trouble::Fails(broken()), 1000);
    script.state.change(|state| state.connect_trouble.extend(trouble));
    script.session(Purpose::Consume, 0).await.break_off();
    let mut health = subscription.health();
    health.wait_for(|now| !now.health.is_ready()).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    subscription.stop(in_seconds(10)).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(subscription.next().await.unwrap().is_none());
    assert!(matches!(health.borrow().health, Health::Stopped { reason: None }));
}

/// The broker delivers them again, whatever becomes of them here.
#[tokio::test(start_paused = true)]
async fn deliveries_that_waited_when_the_connection_broke_are_not_handed_out() {
    let (mut subscription, receiver, _broker, script) = subscribe(4).await;
    for n in 0..4 {
        receiver.deliver(&n.to_string());
    }
    let first = next(&mut subscription).await;
    script.session(Purpose::Consume, 0).await.break_off();
    receiver.is_dropped().await;
    let second = script.session(Purpose::Consume, 1).await.nth_receiver(0).await;
    second.deliver("again");
    assert_eq!(next(&mut subscription).await.decode::<String>().unwrap(), "again");
    assert_eq!(first.settle(Outcome::Ack), Settled::Stale);
}

#[tokio::test(start_paused = true)]
async fn stopping_releases_what_nobody_took_and_waits_for_the_rest() {
    let (mut subscription, receiver, _broker, _script) = subscribe(4).await;
    for n in 0..4 {
        receiver.deliver(&n.to_string());
    }
    let taken = next(&mut subscription).await;
    let settling = tokio::spawn(async move {
        sleep(Duration::from_secs(3)).await;
        taken.settle(Outcome::Ack)
    });
    let began = Instant::now();
    subscription.stop(in_seconds(10)).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(settling.await.unwrap(), Settled::Queued);
    receiver.change(|state| assert!(state.stopped && state.closed));
    assert_eq!(
        receiver.settlements(),
        [(1, Outcome::Ack), (2, Outcome::Release), (3, Outcome::Release), (4, Outcome::Release)]
    );
    assert!(subscription.next().await.unwrap().is_none(), "it was asked for");
    subscription.stop(in_seconds(10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_arrive_while_it_stops_are_released() {
    let (mut subscription, receiver, _broker, _script) = subscribe(4).await;
    receiver.deliver("taken");
    let taken = next(&mut subscription).await;
    receiver.change(|state| state.late = vec!["late", "later"]);
    let releasing = receiver.clone();
    tokio::spawn(async move {
        releasing.settles(2).await;
        taken.settle(Outcome::Ack);
    });
    subscription.stop(in_seconds(10)).await.unwrap();
    assert_eq!(
        receiver.settlements(),
        [(1, Outcome::Ack), (2, Outcome::Release), (3, Outcome::Release)]
    );
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_at_its_deadline_when_nobody_settles_what_was_taken() {
    let (mut subscription, receiver, _broker, _script) = subscribe(4).await;
    receiver.deliver("kept");
    let kept = next(&mut subscription).await;
    let began = Instant::now();
    subscription.stop(in_seconds(5)).await.unwrap();
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(kept.settle(Outcome::Ack), Settled::Stale);
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_in_time_when_the_broker_never_stops_or_never_closes() {
    for (stop_hangs, close_hangs) in [(true, false), (false, true), (true, true)] {
        let script = Script::new();
        script
            .state
            .change(|state| (state.stop_hangs, state.close_hangs) = (stop_hangs, close_hangs));
        let (mut subscription, receiver, _broker, _script) = subscribe_to(script, 4).await;
        receiver.deliver("unstarted");
        let began = Instant::now();
        let stopped = subscription.stop(in_seconds(5)).await;
        assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
        assert!(!stop_hangs || stopped.unwrap_err().kind() == ErrorKind::Timeout);
        assert_eq!(receiver.settlements(), [(1, Outcome::Release)]);
        receiver.is_dropped().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_dropped_lets_go_of_its_receiver() {
    let (subscription, receiver, _broker, _script) = subscribe(4).await;
    drop(subscription);
    receiver.is_dropped().await;
}

#[tokio::test(start_paused = true)]
async fn a_prefetch_of_zero_is_refused_before_anything_happens() {
    let (broker, script) = Script::broker().await;
    let error = broker.subscribe(&BILLING, 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("queue \"billing\""), "{error}");
    assert!(error.to_string().contains("1 to 65535"), "{error}");
    assert_eq!(script.connects(Purpose::Consume), 0);
}

#[tokio::test(start_paused = true)]
async fn each_handle_has_a_temporary_queue_of_its_own() {
    const SCREEN: TemporaryQueue<String> = TemporaryQueue::new("screen");
    let mut names = Vec::new();
    for _ in 0..2 {
        let (broker, script) = Script::broker().await;
        let _subscription = broker.subscribe(&SCREEN, 1).await.unwrap();
        let consumed = script.receiver(0).await.change(|state| state.queue.clone());
        assert_eq!(consumed, broker.queue_name(&SCREEN).unwrap());
        let applied = script.session(Purpose::Consume, 0).await.applied();
        assert!(
            matches!(&applied[..], [Change::DeclareQueue(queue)] if queue.name == consumed && !queue.unique)
        );
        names.push(consumed);
    }
    assert!(names.iter().all(|name| name.starts_with("screen.")), "{names:?}");
    assert_ne!(names[0], names[1]);
}

/// A log that warns at every deploy is not read.
#[tokio::test(start_paused = true)]
async fn closing_a_broker_with_a_subscription_open_warns_of_nothing() {
    let log = Log::default();
    let lines = log.lines.clone();
    let _guard = tracing::subscriber::set_default(log);
    let (mut subscription, _receiver, broker, script) = subscribe(2).await;
    broker.close(Duration::from_secs(5)).await;
    // What a session comes to that was closed.
    script.session(Purpose::Consume, 0).await.break_off();
    let error = in_time(subscription.next()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    let lines = lines.lock().unwrap();
    assert!(
        !lines.iter().any(|line| line.starts_with("WARN") || line.starts_with("ERROR")),
        "{lines:?}"
    );
}
