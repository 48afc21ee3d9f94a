//! What the program is told of its connections, deliveries and messages, and what is tried again behind it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use enoki_core::{
    Attempt, Broker, Codecs, Delivery, Envelope, Error, ErrorKind, Fanout, Handler, Health,
    Message, OnCancel, Outcome, PublisherOptions, Purpose, RetryPolicy, Route, Service, ShortStr,
    State, Topic, Topology, WorkQueue,
    transport::{Change, Delivered, End, PublishOutcome},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::script::{Script, Trouble, broken, in_time};

const SHOP: Topic = Topic::new("shop");
const NEWS: Fanout = Fanout::new("news");
const PLACED: Route<String> = SHOP.route("order.placed");
const BILLING: WorkQueue<String> = WorkQueue::new("billing");

fn text(text: &str) -> String {
    text.to_owned()
}

fn delivered(tag: u64, redelivered: bool, undecodable: Option<&str>) -> Delivered {
    Delivered {
        tag,
        message: Arc::new(Message::default()),
        exchange: ShortStr::EMPTY,
        routing_key: ShortStr::from_static("billing"),
        redelivered,
        attempt: Attempt::from_flag(redelivered),
        undecodable: undecodable.map(Into::into),
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_never_open_is_connecting_and_not_reconnecting() {
    let (broker, script) = Script::broker().await;
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Fails(broken())));
    let subscribing = tokio::spawn({
        let broker = broker.clone();
        async move { broker.subscribe(&BILLING, 1).await }
    });
    let mut health = broker.health();
    let failed = |health: &Health| matches!(health, Health::Connecting { reason: Some(_) });
    in_time(health.wait_for(|health| failed(&health.consuming))).await.unwrap();
    let _subscription = in_time(subscribing).await.unwrap().unwrap();
    // From then on it is the connection of before that is wanted again.
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Fails(broken())));
    script.session(Purpose::Consume, 0).await.break_off();
    let again = |health: &Health| matches!(health, Health::Reconnecting { .. });
    in_time(health.wait_for(|health| again(&health.consuming))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_finds_no_room_is_told_that_the_connection_is_down_and_why() {
    let (broker, script) = Script::broker().await;
    let options = PublisherOptions::new().window(1).codecs(Codecs::default());
    let publisher = broker.publisher_with(&PLACED, options).await.unwrap();
    script.state.change(|state| {
        state.connect_trouble.extend(std::iter::repeat_n(Trouble::Fails(broken()), 1000));
    });
    script.session(Purpose::Publish, 0).await.break_off();
    let _takes_the_room = publisher.enqueue(&text("1")).await.unwrap();
    let timeout = Duration::from_secs(3);
    let message = publisher.message(&text("2")).unwrap().timeout(timeout);
    let error = message.publish().await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("no room in the window of 1"), "{said}");
    assert!(said.contains("the connection is down") && said.contains("the line is dead"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_dropped_has_stopped_at_once_and_says_so() {
    let (broker, _script) = Script::broker().await;
    let subscription = broker.subscribe(&BILLING, 4).await.unwrap();
    let mut health = subscription.health();
    health.borrow_and_update();
    drop(subscription);
    assert!(health.has_changed().unwrap_or(true), "it is told");
    assert!(matches!(health.borrow_and_update().health, Health::Stopped { reason: None }));
}

/// The reason that it ended for is kept.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_ended_for_a_reason_keeps_it_when_it_is_dropped() {
    let (broker, script) = Script::broker().await;
    let mut subscription = broker.subscribe_with(&BILLING, 4, OnCancel::Fail).await.unwrap();
    let mut health = subscription.health();
    let gone = || End::Cancelled(Error::new(ErrorKind::NotFound, "consume"));
    script.receiver(0).await.change(|state| state.end = Some(gone));
    in_time(subscription.next()).await.unwrap_err();
    let was = health.borrow_and_update().clone();
    assert!(matches!(was.health, Health::Stopped { reason: Some(_) }), "{was:?}");
    drop(subscription);
    assert!(!health.has_changed().unwrap_or(false));
    assert!(matches!(health.borrow().health, Health::Stopped { reason: Some(_) }));
}

#[tokio::test(start_paused = true)]
async fn whether_a_message_may_have_been_delivered_before_is_told_as_the_broker_tells_it() {
    let (broker, script) = Script::broker().await;
    let mut subscription = broker.subscribe(&BILLING, 4).await.unwrap();
    let receiver = script.receiver(0).await;
    receiver.change(|state| {
        state.deliveries.extend([delivered(1, false, None), delivered(2, true, None)]);
    });
    for expected in [false, true] {
        let delivery: Delivery = in_time(subscription.next()).await.unwrap().unwrap();
        assert_eq!(delivery.redelivered(), expected);
        assert_eq!(delivery.envelope().redelivered, expected);
        delivery.settle(Outcome::Ack);
    }
}

async fn look(State(seen): State<mpsc::UnboundedSender<ShortStr>>, envelope: Envelope) {
    seen.send(envelope.routing_key).unwrap();
}

/// Also by a handler that would not read its body.
#[tokio::test(start_paused = true)]
async fn what_the_transport_cannot_read_is_rejected_before_a_handler_begins() {
    let (broker, script) = Script::broker().await;
    let (seen, mut handled) = mpsc::unbounded_channel();
    let service = Service::new("office", broker).state(seen);
    let running = service.consume(&BILLING, look.concurrency(1)).start().await.unwrap();
    let receiver = script.receiver(0).await;
    receiver.change(|state| {
        state.deliveries.extend([delivered(1, false, Some("torn")), delivered(2, false, None)]);
    });
    receiver.settles(2).await;
    assert_eq!(receiver.settlements(), [(1, Outcome::Reject), (2, Outcome::Ack)]);
    handled.try_recv().unwrap();
    assert!(handled.try_recv().is_err(), "it saw what cannot be read");
    in_time(running.stop(Duration::from_secs(10))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_message_has_an_id_that_no_other_has() {
    let (broker, _script) = Script::broker().await;
    let publisher = broker.publisher(&PLACED).await.unwrap();
    let mut ids = HashSet::new();
    for _ in 0..100 {
        let confirm = publisher.enqueue(&text("1")).await.unwrap();
        assert!(!confirm.message_id().is_empty());
        ids.insert(confirm.message_id().clone());
    }
    assert_eq!(ids.len(), 100);
}

/// Breaks the consuming connection, which does not come back, then the publishing one; whether a message is
/// published on the next session within a second.
async fn is_published_while_the_other_connection_is_away(broker: Broker, script: &Script) -> bool {
    let publisher = broker.publisher(&PLACED).await.unwrap();
    let _first = publisher.enqueue(&text("first")).await.unwrap();
    script.sender(0).await.took(1).await;
    script.sender(0).await.confirm(0..1);
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Hangs));
    script.session(Purpose::Consume, 0).await.break_off();
    sleep(Duration::from_secs(1)).await;
    script.session(Purpose::Publish, 0).await.break_off();
    let _second = publisher.enqueue(&text("second")).await.unwrap();
    let began = Instant::now();
    let sender = script.session(Purpose::Publish, 1).await.nth_sender(0).await;
    sender.took(1).await;
    began.elapsed() < Duration::from_secs(1)
}

#[tokio::test(start_paused = true)]
async fn a_publisher_waits_for_the_other_connection_only_where_the_program_declared_on_it() {
    let (broker, script) = Script::broker().await;
    let subscription = broker.subscribe(&BILLING, 1).await.unwrap();
    assert!(is_published_while_the_other_connection_is_away(broker, &script).await);
    drop(subscription);
    // An exchange is enough.
    let (broker, script) = Script::broker().await;
    broker.declare(&Topology::new().with_exchange(&NEWS)).await.unwrap();
    assert!(!is_published_while_the_other_connection_is_away(broker, &script).await);
}

fn is_about(change: &Change, name: &str) -> bool {
    matches!(change, Change::DeclareExchange(exchange) if exchange.name == name)
}

fn refused(transient: bool) -> Option<Trouble> {
    let error = Error::new(ErrorKind::Conflict, "declare").because("it is other");
    Some(Trouble::Fails(error.transient(transient)))
}

async fn declared(script: &Script, broker: &Broker, trouble: fn(&Change) -> Option<Trouble>) {
    broker.declare(&Topology::new().with_exchange(&NEWS).with_exchange(&SHOP)).await.unwrap();
    script.state.change(|state| state.apply_trouble = Some(trouble));
    script.session(Purpose::Consume, 0).await.break_off();
    let mut health = broker.health();
    in_time(health.wait_for(|health| health.consuming_opened == 2)).await.unwrap();
    sleep(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_declared_again_is_tried_once() {
    let (broker, script) = Script::broker().await;
    declared(&script, &broker, |change| refused(false).filter(|_| is_about(change, "news"))).await;
    let applied = script.session(Purpose::Consume, 1).await.applied();
    assert_eq!(applied.iter().filter(|change| is_about(change, "news")).count(), 1);
    assert_eq!(applied.iter().filter(|change| is_about(change, "shop")).count(), 1);
}

/// What comes later may fail for want of what came before, so it is tried again with that.
#[tokio::test(start_paused = true)]
async fn what_fails_behind_something_that_passes_is_tried_again_less_and_less_often() {
    let (broker, script) = Script::broker().await;
    declared(&script, &broker, |change| refused(is_about(change, "news"))).await;
    let applied = script.session(Purpose::Consume, 1).await.applied();
    for name in ["news", "shop"] {
        let tries = applied.iter().filter(|change| is_about(change, name)).count();
        // After 0.1, 0.2, 0.4, 0.8, 1.6, and then each 2 seconds.
        assert!((25..=40).contains(&tries), "{name}: {tries}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_published_together_are_told_as_soon_as_all_have_their_outcome() {
    let (broker, script) = Script::broker().await;
    script.state.change(|state| state.confirms = true);
    script.session(Purpose::Publish, 0).await.break_off();
    let publisher = broker.publisher(&PLACED).await.unwrap();
    let began = Instant::now();
    let messages = ["1", "2", "3"].map(text);
    let told = publisher.publish_all(&messages).await;
    assert!(told.iter().all(Result::is_ok), "{told:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Twice as long, each time, with some jitter.
#[tokio::test(start_paused = true)]
async fn a_refused_message_waits_longer_before_each_try() {
    let (broker, script) = Script::broker().await;
    let second = Duration::from_secs(1);
    let policy = RetryPolicy::new().also_refused().backoff(second, 100 * second);
    let options = PublisherOptions::new().retry(policy).timeout(60 * second);
    let publisher = broker.publisher_with(&PLACED, options).await.unwrap();
    let _message = publisher.enqueue(&text("1")).await.unwrap();
    let sender = script.sender(0).await;
    sender.took(1).await;
    for (n, least) in [(0, second), (1, 2 * second), (2, 4 * second)] {
        let began = Instant::now();
        let full = Error::new(ErrorKind::Refused, "publish").because("it is full");
        sender.tell(n, PublishOutcome::Rejected(full));
        sender.took(n + 2).await;
        let waited = began.elapsed();
        assert!(waited >= least && waited <= 2 * least + second, "{n}: {waited:?}");
    }
}

/// A caller has to hear of it by then, and everything else is time to be sent in.
#[tokio::test(start_paused = true)]
async fn a_message_is_given_up_a_twentieth_of_its_time_before_its_deadline() {
    let (broker, script) = Script::broker().await;
    let publisher = broker.publisher(&PLACED).await.unwrap();
    script.state.change(|state| {
        state.connect_trouble.extend(std::iter::repeat_n(Trouble::Fails(broken()), 1000));
    });
    script.session(Purpose::Publish, 0).await.break_off();
    for (millis, least) in [(1000, 940), (2000, 1890), (20, 10), (60_000, 59_700)] {
        let timeout = Duration::from_millis(millis);
        let began = Instant::now();
        let message = publisher.message(&text("1")).unwrap().timeout(timeout);
        let error = message.publish().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(least) && waited <= timeout, "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_publisher_needs_is_declared_again_where_a_sender_is_refused() {
    let (broker, script) = Script::broker().await;
    let publisher = broker.publisher(&PLACED).await.unwrap();
    let first = publisher.enqueue(&text("1")).await.unwrap();
    script.sender(0).await.took(1).await;
    script.sender(0).await.confirm(0..1);
    first.await.unwrap();
    for (is_passing, is_declared_again) in [(false, true), (true, false)] {
        let n = script.connects(Purpose::Publish);
        let kind = if is_passing { ErrorKind::Timeout } else { ErrorKind::Denied };
        let error = Error::new(kind, "open a sender").transient(is_passing);
        script.state.change(|state| state.sender_trouble = Some(Trouble::Fails(error)));
        script.session(Purpose::Publish, n - 1).await.break_off();
        let message = publisher.message(&text("2")).unwrap().timeout(Duration::from_secs(20));
        message.publish().await.unwrap_err();
        let applied = script.session(Purpose::Publish, n).await.applied();
        let times = applied.iter().filter(|change| is_about(change, "shop")).count();
        assert_eq!(times > 1, is_declared_again, "{times} times");
    }
}

/// Failures in a row are those without an outcome between them.
#[tokio::test(start_paused = true)]
async fn a_sender_that_told_an_outcome_is_replaced_soon_however_many_failed_before() {
    let (broker, script) = Script::broker().await;
    let publisher = broker.publisher(&PLACED).await.unwrap();
    for n in 0..20 {
        let began = Instant::now();
        let message = publisher.enqueue(&text("1")).await.unwrap();
        let sender = script.sender(n).await;
        sender.took(1).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{n}: {:?}", began.elapsed());
        sender.confirm(0..1);
        message.await.unwrap();
        sender.change(|state| state.failure = Some(broken()));
        sender.until("it was dropped", |state| state.dropped).await;
    }
}
