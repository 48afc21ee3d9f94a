//! What the program declared by hand is there before the next message is published.

use std::{sync::Arc, time::Duration};

use enoki_core::{
    Broker, ErrorKind, Publisher, Purpose, Route, TemporaryQueue, Topic, Topology,
    transport::{Change, PublishOutcome},
};
use tokio::time::{Instant, sleep};

use crate::script::{Script, ScriptedSession, Trouble, broken, in_time};

const SHOP: Topic = Topic::new("shop");
const ANSWERS: TemporaryQueue<String> =
    TemporaryQueue::new("answers").bind(&[SHOP.pattern("answer")]);
const ANSWER: Route<String> = SHOP.route("answer");

/// A publisher to a queue that was declared by hand, and both sessions.
async fn publisher() -> (Publisher<String>, [Arc<ScriptedSession>; 2], Broker, Arc<Script>) {
    let (broker, script) = Script::broker().await;
    broker.declare(&Topology::new().with_queue(&ANSWERS)).await.unwrap();
    let publisher = broker.publisher(&ANSWER).await.unwrap();
    let first = publisher.enqueue(&"first".to_owned()).await.unwrap();
    let publishing = script.session(Purpose::Publish, 0).await;
    publishing.nth_sender(0).await.took(1).await;
    publishing.nth_sender(0).await.confirm(0..1);
    first.await.unwrap();
    let consuming = script.session(Purpose::Consume, 0).await;
    (publisher, [publishing, consuming], broker, script)
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_is_back_first_waits_for_what_was_declared_by_hand() {
    let (publisher, [publishing, consuming], _broker, script) = publisher().await;
    consuming.break_off();
    // It connects while that hangs.
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Hangs));
    sleep(Duration::from_secs(1)).await;
    publishing.break_off();
    let message = publisher.enqueue(&"1".to_owned()).await.unwrap();
    let back = script.session(Purpose::Publish, 1).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(back.applied(), [], "it is not even asked for what it needs");
    let declared = script.session(Purpose::Consume, 1).await;
    let sender = back.nth_sender(0).await;
    let applied = declared.applied();
    assert!(applied.iter().any(|it| matches!(it, Change::DeclareQueue(_))), "{applied:?}");
    sender.took(1).await;
    sender.confirm(0..1);
    message.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_publisher_does_not_wait_for_ever_for_what_was_declared_by_hand() {
    let (publisher, [publishing, consuming], _broker, script) = publisher().await;
    consuming.break_off();
    let hangs = || std::iter::repeat_n(Trouble::Hangs, 10);
    script.state.change(|state| state.connect_trouble.extend(hangs()));
    sleep(Duration::from_secs(1)).await;
    script.state.change(|state| state.connect_trouble.clear());
    publishing.break_off();
    let message = publisher.enqueue(&"1".to_owned()).await.unwrap();
    script.session(Purpose::Publish, 1).await;
    script.state.change(|state| state.connect_trouble.extend(hangs()));
    let began = Instant::now();
    let sender = script.session(Purpose::Publish, 1).await.nth_sender(0).await;
    sender.took(1).await;
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(9) && waited <= Duration::from_secs(11), "{waited:?}");
    sender.confirm(0..1);
    message.await.unwrap();
}

/// The publisher's own connection did not break, or is back: it cannot tell.
#[tokio::test(start_paused = true)]
async fn a_message_that_finds_no_queue_while_it_is_away_is_published_again_with_its_id() {
    let (publisher, [publishing, consuming], _broker, script) = publisher().await;
    let sender = publishing.nth_sender(0).await;
    let message = publisher.enqueue(&"1".to_owned()).await.unwrap();
    sender.took(2).await;
    script.state.change(|state| {
        state.connect_trouble.extend((0..5).map(|_| Trouble::Fails(broken())));
    });
    consuming.break_off();
    sender.tell(1, PublishOutcome::Unroutable);
    sender.took(3).await;
    sender.tell(2, PublishOutcome::Unroutable);
    script.session(Purpose::Consume, 1).await;
    sender.took(4).await;
    sender.tell(3, PublishOutcome::Confirmed);
    in_time(message).await.unwrap();
    let ids = sender.change(|state| {
        let ids = state.taken.iter().map(|sent| sent.message.properties.message_id.clone());
        ids.skip(1).collect::<std::collections::HashSet<_>>()
    });
    assert_eq!(ids.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_finds_no_queue_when_it_is_back_is_unroutable() {
    let (publisher, [publishing, consuming], _broker, script) = publisher().await;
    let sender = publishing.nth_sender(0).await;
    // Nothing is away.
    let message = publisher.enqueue(&"1".to_owned()).await.unwrap();
    sender.took(2).await;
    sender.tell(1, PublishOutcome::Unroutable);
    assert_eq!(in_time(message).await.unwrap_err().kind(), ErrorKind::Unroutable);
    // It was away when this one was sent.
    consuming.break_off();
    let message = publisher.enqueue(&"2".to_owned()).await.unwrap();
    sender.took(3).await;
    script.session(Purpose::Consume, 1).await;
    sleep(Duration::from_secs(1)).await;
    sender.tell(2, PublishOutcome::Unroutable);
    sender.took(4).await;
    sender.tell(3, PublishOutcome::Unroutable);
    assert_eq!(in_time(message).await.unwrap_err().kind(), ErrorKind::Unroutable);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(sender.bodies().len(), 4);
}

/// Nothing brings it back, and nothing was declared by hand that could come back.
#[tokio::test(start_paused = true)]
async fn without_anything_declared_by_hand_no_queue_is_no_queue() {
    let (broker, script) = Script::broker().await;
    let publisher = broker.publisher(&ANSWER).await.unwrap();
    broker.declare(&Topology::new()).await.unwrap();
    script.session(Purpose::Consume, 0).await.break_off();
    let message = publisher.enqueue(&"1".to_owned()).await.unwrap();
    let sender = script.sender(0).await;
    sender.took(1).await;
    sender.tell(0, PublishOutcome::Unroutable);
    assert_eq!(in_time(message).await.unwrap_err().kind(), ErrorKind::Unroutable);
}

fn node_is_down(change: &Change) -> Option<Trouble> {
    let Change::DeclareQueue(_) = change else { return None };
    let down = enoki_core::Error::new(ErrorKind::Connection, "declare").because("its node is down");
    Some(Trouble::Fails(down))
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_declared_again_yet_is_declared_later_on_the_same_connection() {
    let (broker, script) = Script::broker().await;
    broker.declare(&Topology::new().with_queue(&ANSWERS)).await.unwrap();
    script.state.change(|state| state.apply_trouble = Some(node_is_down));
    script.session(Purpose::Consume, 0).await.break_off();
    let next = script.session(Purpose::Consume, 1).await;
    let queues = |applied: &[Change]| {
        applied.iter().filter(|change| matches!(change, Change::DeclareQueue(_))).count()
    };
    next.state.until("it is declared again", |state| queues(&state.applied) >= 3).await;
    // The program does not want it any more.
    let name = broker.queue_name(&ANSWERS).unwrap();
    broker.apply(&Change::DeleteQueue(name)).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let applied = next.applied().len();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(next.applied().len(), applied);
}
