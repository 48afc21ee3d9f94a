//! What a publisher knows of its messages, and when.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use enoki_core::{
    Broker, BrokerOptions, Error, ErrorKind, Limits, Publisher, PublisherOptions, Purpose, Result,
    RetryPolicy, Route, Topic, Topology,
    transport::{Change, PublishOutcome},
};
use tokio::time::{Instant, advance, sleep, timeout};

use crate::script::{Script, Trouble, Watched, body, broken, in_time};

const SHOP: Topic = Topic::new("shop");
const PLACED: Route<String> = SHOP.route("order.placed");

type SenderHandle = Arc<Watched<crate::script::SenderState>>;

/// A publisher with a window of so many messages that publishes nothing twice, and its sender after
/// a first message.
async fn publisher(window: u16) -> (Publisher<String>, SenderHandle, Broker, Arc<Script>) {
    let (broker, script) = Script::broker().await;
    let options = PublisherOptions::new().window(window).retry(RetryPolicy::never());
    let publisher = broker.publisher_with(&PLACED, options).await.unwrap();
    let first = publisher.enqueue(&text("first")).await.unwrap();
    let sender = script.sender(0).await;
    sender.took(1).await;
    sender.confirm(0..1);
    first.await.unwrap();
    sender.change(|state| state.taken.clear());
    (publisher, sender, broker, script)
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn refused() -> Error {
    Error::new(ErrorKind::Refused, "publish to").on("queue \"billing\"").because("it is full")
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test(start_paused = true)]
async fn each_message_gets_its_own_outcome_in_whatever_order_they_are_told() {
    let (publisher, sender, _broker, _script) = publisher(16).await;
    let mut confirms = Vec::new();
    for n in 0..5 {
        confirms.push(publisher.enqueue(&n.to_string()).await.unwrap());
    }
    sender.took(5).await;
    sender.tell(3, PublishOutcome::Confirmed);
    sender.tell(1, PublishOutcome::Rejected(refused()));
    sender.tell(4, PublishOutcome::Unroutable);
    sender.tell(0, PublishOutcome::Confirmed);
    sender.tell(2, PublishOutcome::Unroutable);
    let mut outcomes = Vec::new();
    for confirm in confirms {
        let id = confirm.message_id().clone();
        outcomes.push(confirm.await.map(|confirmed| assert_eq!(confirmed.message_id, id)));
    }
    let kinds: Vec<_> =
        outcomes.iter().map(|result| result.as_ref().err().map(Error::kind)).collect();
    assert_eq!(
        kinds,
        [
            None,
            Some(ErrorKind::Refused),
            Some(ErrorKind::Unroutable),
            None,
            Some(ErrorKind::Unroutable)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_in_flight_is_sent_again_before_what_was_never_sent() {
    let (broker, script) = Script::broker().await;
    let publisher = broker.publisher(&PLACED).await.unwrap();
    let mut confirms = vec![publisher.enqueue(&text("0")).await.unwrap()];
    let sender = script.sender(0).await;
    sender.took(1).await;
    sender.change(|state| state.room = 1);
    for n in 1..4 {
        confirms.push(publisher.enqueue(&n.to_string()).await.unwrap());
    }
    // The last two wait for room.
    sender.took(2).await;
    sleep(Duration::from_secs(1)).await;
    sender.change(|state| state.failure = Some(broken()));
    let next = script.sender(1).await;
    next.took(4).await;
    assert_eq!(next.bodies(), ["0", "1", "2", "3"]);
    next.confirm(0..4);
    for confirm in confirms {
        in_time(confirm).await.unwrap();
    }
}

/// A small generator, so that the order is another one each round and the same on each run.
fn shuffled(count: usize, seed: &mut u64) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    for at in (1..count).rev() {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, (*seed >> 33) as usize % (at + 1));
    }
    order
}

#[tokio::test(start_paused = true)]
async fn a_third_of_many_messages_is_unroutable_and_exactly_those_are_reported() {
    let (publisher, sender, _broker, _script) = publisher(300).await;
    let mut seed = 7;
    for _ in 0..20 {
        sender.change(|state| state.taken.clear());
        let mut confirms = Vec::new();
        for n in 0..300 {
            confirms.push(publisher.enqueue(&n.to_string()).await.unwrap());
        }
        sender.took(300).await;
        for n in shuffled(300, &mut seed) {
            let unroutable = n % 3 == 0;
            sender.tell(
                n,
                if unroutable { PublishOutcome::Unroutable } else { PublishOutcome::Confirmed },
            );
        }
        for (n, confirm) in confirms.into_iter().enumerate() {
            let result = confirm.await;
            assert_eq!(result.is_err(), n % 3 == 0, "message {n}: {result:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_sent_in_the_order_they_were_published_without_waiting_for_outcomes() {
    let (publisher, sender, _broker, _script) = publisher(64).await;
    let mut confirms = Vec::new();
    for n in 0..50 {
        confirms.push(publisher.enqueue(&n.to_string()).await.unwrap());
    }
    sender.took(50).await;
    assert_eq!(sender.bodies(), (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_told_twice_or_of_no_message_makes_no_extra_room() {
    let (publisher, sender, _broker, _script) = publisher(2).await;
    let one = publisher.enqueue(&text("1")).await.unwrap();
    sender.took(1).await;
    sender.confirm(0..1);
    sender.confirm(0..1);
    sender.change(|state| {
        state
            .outcomes
            .extend([(4711, PublishOutcome::Confirmed), (u64::MAX, PublishOutcome::Unroutable)]);
    });
    one.await.unwrap();
    let two = publisher.enqueue(&text("2")).await.unwrap();
    let three = publisher.enqueue(&text("3")).await.unwrap();
    sender.took(3).await;
    let four = text("4");
    assert!(
        timeout(Duration::from_secs(1), publisher.enqueue(&four)).await.is_err(),
        "a third one"
    );
    sender.confirm(1..3);
    two.await.unwrap();
    three.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn when_a_sender_fails_what_it_took_is_indeterminate_and_the_rest_goes_to_the_next() {
    let (publisher, sender, _broker, script) = publisher(8).await;
    sender.change(|state| state.room = 2);
    let mut confirms = Vec::new();
    for n in 0..4 {
        confirms.push(publisher.enqueue(&n.to_string()).await.unwrap());
    }
    sender.took(2).await;
    sender.tell(0, PublishOutcome::Confirmed);
    sender.change(|state| state.failure = Some(broken()));
    let next = script.sender(1).await;
    next.took(2).await;
    assert_eq!(next.bodies(), ["2", "3"]);
    next.confirm(0..2);
    let mut results = Vec::new();
    for confirm in confirms {
        results.push(confirm.await);
    }
    assert!(results[0].is_ok() && results[2].is_ok() && results[3].is_ok(), "{results:?}");
    let error = results.swap_remove(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    assert!(error.is_transient());
    assert!(error.to_string().contains("the line is dead"), "{error}");
    assert!(error.to_string().contains("same message id"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_fails_gives_its_room_back() {
    let (publisher, sender, _broker, script) = publisher(2).await;
    let fill = || async {
        let one = publisher.enqueue(&text("1")).await.unwrap();
        (one, publisher.enqueue(&text("2")).await.unwrap())
    };
    // With its sender.
    let (one, two) = fill().await;
    sender.took(2).await;
    sender.change(|state| state.failure = Some(broken()));
    assert!(one.await.is_err() && two.await.is_err());
    // Left past its deadline by a sender that is blocked.
    let (one, two) = fill().await;
    let next = script.sender(1).await;
    next.took(2).await;
    next.confirm(0..2);
    assert!(one.await.is_ok() && two.await.is_ok());
    next.change(|state| state.room = 0);
    let (one, two) = fill().await;
    assert!(one.await.is_err() && two.await.is_err());
    // For want of a connection.
    let trouble = std::iter::repeat_n(Trouble::Fails(broken()), 1000);
    script.state.change(|state| state.connect_trouble.extend(trouble));
    script.session(Purpose::Publish, 0).await.break_off();
    for _ in 0..3 {
        let first = text("1");
        let error = in_time(publisher.publish(&first)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains("before it was sent"), "{error}");
    }
    script.state.change(|state| state.connect_trouble.clear());
    script.session(Purpose::Publish, 1).await;
    let (one, two) = in_time(fill()).await;
    let sender = script.session(Purpose::Publish, 1).await.nth_sender(0).await;
    sender.took(2).await;
    sender.confirm(0..2);
    assert!(one.await.is_ok() && two.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_while_a_sender_opens_costs_no_message() {
    let script = Script::new();
    script.state.change(|state| state.sender_trouble = Some(Trouble::Breaks));
    let broker = Broker::connect(script.clone()).await.unwrap();
    let publisher = broker.publisher(&PLACED).await.unwrap();
    script.state.change(|state| state.sender_trouble = None);
    let message = publisher.enqueue(&text("1")).await.unwrap();
    let sender = script.session(Purpose::Publish, 1).await.nth_sender(0).await;
    sender.took(1).await;
    sender.confirm(0..1);
    message.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_hangs_up_on_every_sender_is_tried_about_each_second_while_messages_wait() {
    let script = Script::new();
    script.state.change(|state| state.sender_trouble = Some(Trouble::Breaks));
    let broker = Broker::connect(script.clone()).await.unwrap();
    let publisher = broker.publisher(&PLACED).await.unwrap();
    let error = publisher.publish(&text("1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("the line is dead"), "{error}");
    let connects = script.connects(Purpose::Publish);
    assert!((20..=60).contains(&connects), "{connects}");
}

/// A sender may fail a moment before its session does.
#[tokio::test(start_paused = true)]
async fn a_lane_that_pauses_on_a_session_goes_on_at_once_when_there_is_another() {
    let (publisher, _broker, script) = retrying(PublisherOptions::new()).await;
    let message = publisher.enqueue(&text("1")).await.unwrap();
    for n in 0..8 {
        let sender = script.sender(n).await;
        sender.took(1).await;
        sender.change(|state| state.failure = Some(broken()));
    }
    // Now the next sender on this session waits for five seconds or more.
    sleep(Duration::from_millis(1)).await;
    let began = Instant::now();
    script.session(Purpose::Publish, 0).await.break_off();
    let second = script.session(Purpose::Publish, 1).await;
    let sender = second.nth_sender(0).await;
    sender.took(1).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // What failed on the first session makes no pause on the second longer.
    let began = Instant::now();
    sender.change(|state| state.failure = Some(broken()));
    let sender = second.nth_sender(1).await;
    sender.took(1).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    sender.confirm(0..1);
    message.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_next_sender_on_the_same_session_does_not_declare_again() {
    let (publisher, sender, _broker, script) = publisher(8).await;
    sender.change(|state| state.failure = Some(broken()));
    let second = publisher.enqueue(&text("2")).await.unwrap();
    let next = script.sender(1).await;
    next.took(1).await;
    next.confirm(0..1);
    second.await.unwrap();
    let declared = script.session(Purpose::Publish, 0).await.applied().len();
    assert_eq!(declared, 2, "once when it was made, once by its lane");
    assert_eq!(script.connects(Purpose::Publish), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_that_were_not_sent_when_the_connection_broke_go_over_the_next_one() {
    let (publisher, sender, _broker, script) = publisher(8).await;
    sender.change(|state| state.room = 1);
    let sent = publisher.enqueue(&text("sent")).await.unwrap();
    let unsent = publisher.enqueue(&text("unsent")).await.unwrap();
    sender.took(1).await;
    script.session(Purpose::Publish, 0).await.break_off();
    let next = script.session(Purpose::Publish, 1).await;
    let sender = next.nth_sender(0).await;
    sender.took(1).await;
    assert_eq!(sender.bodies(), ["unsent"]);
    sender.confirm(0..1);
    assert_eq!(kind(sent.await), ErrorKind::Indeterminate);
    unsent.await.unwrap();
    assert!(matches!(next.applied()[..], [Change::DeclareExchange(_)]), "{:?}", next.applied());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ended_is_opened_again_and_the_next_message_declares_the_topology() {
    let (publisher, _, _broker, script) = publisher(8).await;
    script.session(Purpose::Publish, 0).await.break_off();
    let next = script.session(Purpose::Publish, 1).await;
    assert_eq!(next.applied(), []);
    let second = publisher.enqueue(&text("2")).await.unwrap();
    let sender = next.nth_sender(0).await;
    sender.took(1).await;
    assert!(matches!(&next.applied()[..], [Change::DeclareExchange(shop)] if shop.name == "shop"));
    sender.confirm(0..1);
    second.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_window_bounds_what_is_outstanding_and_the_next_message_waits() {
    let (publisher, sender, _broker, _script) = publisher(3).await;
    let mut confirms = Vec::new();
    for n in 0..3 {
        confirms.push(publisher.enqueue(&n.to_string()).await.unwrap());
    }
    sender.took(3).await;
    let fourth = text("3");
    let mut waiting = Box::pin(publisher.enqueue(&fourth));
    assert!(timeout(Duration::from_secs(5), &mut waiting).await.is_err(), "there was no room");
    assert_eq!(sender.bodies().len(), 3);
    sender.confirm(1..2);
    let fourth = waiting.await.unwrap();
    sender.took(4).await;
    sender.confirm(3..4);
    fourth.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_finds_no_room_before_its_deadline_was_not_sent_and_says_so() {
    let (broker, script) = Script::broker().await;
    let options = PublisherOptions::new().window(1).timeout(Duration::from_secs(3));
    let publisher = broker.publisher_with(&PLACED, options).await.unwrap();
    let stuck = publisher.enqueue(&text("stuck")).await.unwrap();
    let began = Instant::now();
    let error = publisher.publish(&text("late")).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("was not sent"), "{error}");
    assert_eq!(kind(stuck.await), ErrorKind::Indeterminate);
    assert_eq!(script.sender(0).await.bodies(), ["stuck"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_without_an_outcome_at_its_deadline_is_indeterminate() {
    let (publisher, sender, _broker, _script) = publisher(8).await;
    let began = Instant::now();
    let error = publisher.publish(&text("slow")).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(30));
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    // The outcome comes late: it makes room and disturbs no other message.
    sender.confirm(0..1);
    let next = publisher.enqueue(&text("next")).await.unwrap();
    sender.took(2).await;
    sender.confirm(1..2);
    next.await.unwrap();
}

/// A sender that a broker has blocked takes nothing; what waits behind it grows old.
#[tokio::test(start_paused = true)]
async fn a_message_that_a_blocked_sender_left_past_its_deadline_is_never_sent() {
    let (publisher, sender, _broker, _script) = publisher(8).await;
    sender.change(|state| state.room = 0);
    assert!(publisher.publish(&text("old")).await.is_err());
    sender.change(|state| state.room = usize::MAX);
    let young = publisher.enqueue(&text("young")).await.unwrap();
    sender.took(1).await;
    sender.confirm(0..1);
    young.await.unwrap();
    assert_eq!(sender.bodies(), ["young"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waited_for_a_connection_past_its_deadline_is_never_sent() {
    let (broker, script) = Script::broker().await;
    let options = PublisherOptions::new().timeout(Duration::from_secs(2));
    let publisher = broker.publisher_with(&PLACED, options).await.unwrap();
    script.session(Purpose::Publish, 0).await.break_off();
    sleep(Duration::from_millis(1)).await;
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Hangs));
    assert!(publisher.publish(&text("old")).await.is_err());
    // The connect is given up, and the next one works.
    sleep(Duration::from_secs(20)).await;
    let young = publisher.enqueue(&text("young")).await.unwrap();
    let sender = script.session(Purpose::Publish, 1).await.nth_sender(0).await;
    sender.took(1).await;
    sender.confirm(0..1);
    young.await.unwrap();
    assert_eq!(sender.bodies(), ["young"]);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_hangs_holds_up_no_call_beyond_its_deadline() {
    let (publisher, sender, broker, _script) = publisher(2).await;
    sender.change(|state| state.hangs = true);
    for n in 0..4 {
        let began = Instant::now();
        assert!(publisher.publish(&n.to_string()).await.is_err());
        assert_eq!(began.elapsed(), Duration::from_secs(30));
    }
    let began = Instant::now();
    broker.close(Duration::from_secs(5)).await;
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
}

/// `select!` drops futures at every point where they wait.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_while_it_waits_for_room_takes_none() {
    let (publisher, sender, _broker, _script) = publisher(2).await;
    for round in 0..10 {
        let first = publisher.enqueue(&text("a")).await.unwrap();
        let second = publisher.enqueue(&text("b")).await.unwrap();
        let dropped = text("dropped");
        for _ in 0..3 {
            let waiting = publisher.enqueue(&dropped);
            assert!(timeout(Duration::from_millis(1), waiting).await.is_err());
        }
        sender.took(2 * round + 2).await;
        sender.confirm(2 * round..2 * round + 2);
        first.await.unwrap();
        second.await.unwrap();
    }
    assert!(!sender.bodies().contains(&dropped()), "dropped before it was handed over");
    fn dropped() -> String {
        "dropped".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_while_it_waits_for_the_outcome_gives_its_room_back_with_it() {
    let (publisher, sender, _broker, _script) = publisher(1).await;
    for n in 0..5 {
        let message = n.to_string();
        assert!(timeout(Duration::from_millis(1), publisher.publish(&message)).await.is_err());
        sender.took(n + 1).await;
        sender.confirm(n..n + 1);
    }
    let last = publisher.enqueue(&text("last")).await.unwrap();
    sender.took(6).await;
    sender.confirm(5..6);
    last.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_dropped_half_way_gives_its_room_back_with_the_outcomes() {
    let (publisher, sender, _broker, _script) = publisher(4).await;
    let messages: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    assert!(
        timeout(Duration::from_secs(1), publisher.publish_all(&messages)).await.is_err(),
        "nothing is confirmed"
    );
    let sent = sender.bodies().len();
    sender.confirm(0..sent);
    let mut confirms = Vec::new();
    for n in 0..4 {
        confirms.push(publisher.enqueue(&n.to_string()).await.unwrap());
    }
    sender.took(sent + 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_is_dropped_still_sends_what_it_was_given() {
    let (publisher, sender, broker, script) = publisher(8).await;
    sender.change(|state| state.room = 1);
    for n in 0..3 {
        drop(publisher.enqueue(&n.to_string()).await.unwrap());
    }
    drop(publisher);
    drop(broker);
    sender.took(1).await;
    sender.change(|state| state.room = 8);
    sender.confirm(0..1);
    sender.took(3).await;
    let session = script.session(Purpose::Publish, 0).await;
    sleep(Duration::from_secs(5)).await;
    assert!(!session.is_closed(), "two outcomes are still to come");
    sender.confirm(1..3);
    sender.until("the sender is dropped", |state| state.dropped).await;
    session.state.until("the connection is closed", |state| state.closed).await;
}

#[tokio::test(start_paused = true)]
async fn the_outcomes_of_a_batch_come_in_its_order_with_the_failures_in_their_places() {
    let limits = {
        let mut limits = Limits::default();
        limits.max_body = 16;
        limits
    };
    let (broker, script) = Script::broker_with(BrokerOptions::new().limits(limits)).await;
    let publisher = broker.publisher(&PLACED).await.unwrap();
    let messages = ["0".to_owned(), "1".to_owned(), "x".repeat(17), "3".to_owned(), "4".to_owned()];
    let batch = publisher.publish_all(&messages);
    let broker_side = async {
        let sender = script.sender(0).await;
        sender.took(4).await;
        sender.tell(3, PublishOutcome::Rejected(refused()));
        sender.tell(1, PublishOutcome::Unroutable);
        sender.tell(0, PublishOutcome::Confirmed);
        sender.tell(2, PublishOutcome::Confirmed);
    };
    let (results, ()) = tokio::join!(batch, broker_side);
    let kinds: Vec<_> =
        results.iter().map(|result| result.as_ref().err().map(Error::kind)).collect();
    assert_eq!(
        kinds,
        [
            None,
            Some(ErrorKind::Unroutable),
            Some(ErrorKind::TooLarge),
            None,
            Some(ErrorKind::Refused)
        ]
    );
    let sender = script.sender(0).await;
    let ids = sender.change(|state| {
        state
            .taken
            .iter()
            .map(|sent| sent.message.properties.message_id.clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(results[0].as_ref().ok().map(|confirmed| confirmed.message_id.clone()), ids[0]);
    assert_eq!(results[3].as_ref().ok().map(|confirmed| confirmed.message_id.clone()), ids[2]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_batch_has_no_outcomes_and_waits_for_none() {
    let (publisher, _sender, _broker, _script) = publisher(1).await;
    let began = Instant::now();
    assert!(publisher.publish_all(&[]).await.is_empty());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_batch_may_be_larger_than_the_window() {
    for window in [1, 2, 3, 7] {
        let (broker, script) = Script::broker().await;
        let options = PublisherOptions::new().window(window);
        let publisher = broker.publisher_with(&PLACED, options).await.unwrap();
        let messages: Vec<_> = (0..20).map(|n| n.to_string()).collect();
        let confirming = async {
            let sender = script.sender(0).await;
            for n in 0..20 {
                sender.took(n + 1).await;
                let outstanding = sender.bodies().len() - n;
                assert!(outstanding <= window.into(), "{outstanding} outstanding");
                sender.confirm(n..n + 1);
            }
            sender.bodies()
        };
        let (results, sent) = tokio::join!(publisher.publish_all(&messages), confirming);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(sent, messages);
    }
}

/// Some of it was sent: to call those "not sent" invites a duplicate that the program does not expect.
#[tokio::test(start_paused = true)]
async fn of_a_batch_that_runs_out_of_time_what_was_sent_is_indeterminate_and_the_rest_timed_out() {
    let (publisher, sender, _broker, _script) = publisher(4).await;
    let messages: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    let results = publisher.publish_all(&messages).await;
    let sent = sender.bodies().len();
    assert!((1..=4).contains(&sent), "{sent}");
    for (n, result) in results.into_iter().enumerate() {
        let expected = if n < sent { ErrorKind::Indeterminate } else { ErrorKind::Timeout };
        assert_eq!(kind(result), expected, "message {n} of {sent} sent");
    }
}

#[tokio::test(start_paused = true)]
async fn closing_the_broker_waits_for_the_outcomes_and_later_calls_are_closed() {
    let (publisher, sender, broker, script) = publisher(8).await;
    let pending = publisher.enqueue(&text("pending")).await.unwrap();
    sender.took(1).await;
    let session = script.session(Purpose::Publish, 0).await;
    let closing = tokio::spawn({
        let broker = broker.clone();
        async move { broker.close(Duration::from_secs(10)).await }
    });
    advance(Duration::from_secs(2)).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!session.is_closed() && !closing.is_finished(), "an outcome is still to come");
    sender.confirm(0..1);
    closing.await.unwrap();
    pending.await.unwrap();
    assert!(session.is_closed());
    assert_eq!(kind(publisher.publish(&text("late")).await), ErrorKind::Closed);
    assert_eq!(kind(publisher.publish_all(&[text("late")]).await.remove(0)), ErrorKind::Closed);
    assert_eq!(kind(broker.publisher(&PLACED).await), ErrorKind::Closed);
    assert_eq!(kind(broker.declare(&Topology::new()).await), ErrorKind::Closed);
    broker.close(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_room_when_the_broker_closes_is_closed() {
    let (publisher, sender, broker, _script) = publisher(1).await;
    let first = publisher.enqueue(&text("1")).await.unwrap();
    sender.took(1).await;
    let closing = tokio::spawn({
        let broker = broker.clone();
        async move { broker.close(Duration::from_secs(10)).await }
    });
    sleep(Duration::from_millis(1)).await;
    let second = tokio::spawn(async move { publisher.publish(&text("2")).await });
    sleep(Duration::from_millis(1)).await;
    sender.confirm(0..1);
    first.await.unwrap();
    closing.await.unwrap();
    assert_eq!(kind(second.await.unwrap()), ErrorKind::Closed);
    assert_eq!(sender.bodies(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_at_its_deadline_when_outcomes_never_come_and_connections_never_close() {
    let script = Script::new();
    script.state.change(|state| state.close_hangs = true);
    let broker = Broker::connect(script.clone()).await.unwrap();
    let publisher = broker.publisher(&PLACED).await.unwrap();
    let lost = publisher.enqueue(&text("lost")).await.unwrap();
    script.sender(0).await.took(1).await;
    let began = Instant::now();
    broker.close(Duration::from_secs(5)).await;
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(kind(publisher.publish(&text("late")).await), ErrorKind::Closed);
    assert_eq!(kind(lost.await), ErrorKind::Indeterminate);
}

#[tokio::test(start_paused = true)]
async fn what_is_published_is_persistent_mandatory_and_has_an_id_of_its_own() {
    let (publisher, sender, _broker, _script) = publisher(8).await;
    let one = publisher.enqueue(&text("1")).await.unwrap();
    let two = publisher.message(&text("2")).unwrap().message_id("mine").unwrap().enqueue().await;
    sender.took(2).await;
    let sent = sender.change(|state| state.taken.clone());
    assert!(sent.iter().all(|sent| sent.mandatory && sent.message.properties.persistent));
    assert!(sent.iter().all(|sent| sent.exchange == "shop" && sent.routing_key == "order.placed"));
    assert_eq!(sent[0].message.properties.message_id.as_ref(), Some(one.message_id()));
    assert_eq!(two.unwrap().message_id(), &"mine");
    assert_eq!(body(&sent[1].message), "2");
}

#[tokio::test(start_paused = true)]
async fn a_key_of_the_calls_own_is_checked_like_the_routes() {
    let (publisher, _sender, _broker, _script) = publisher(8).await;
    let error = publisher.publish_to("order.*", &text("1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("\"order.*\""), "{error}");
    let error = publisher.publish_to("k".repeat(256), &text("1")).await.unwrap_err();
    assert!(error.to_string().contains("256 bytes exceed the limit of 255"), "{error}");
}

/// A publisher with this policy, and its first sender.
async fn retrying(options: PublisherOptions) -> (Publisher<String>, Broker, Arc<Script>) {
    let (broker, script) = Script::broker().await;
    let publisher = broker.publisher_with(&PLACED, options).await.unwrap();
    (publisher, broker, script)
}

#[tokio::test(start_paused = true)]
async fn a_message_without_an_outcome_is_published_again_with_its_id_before_those_after_it() {
    let (publisher, _broker, script) = retrying(PublisherOptions::new().window(8)).await;
    let mut confirms = Vec::new();
    for n in 0..3 {
        confirms.push(publisher.enqueue(&n.to_string()).await.unwrap());
    }
    let ids: Vec<_> = confirms.iter().map(|confirm| confirm.message_id().clone()).collect();
    let first = script.sender(0).await;
    first.took(3).await;
    first.tell(1, PublishOutcome::Confirmed);
    sleep(Duration::from_millis(1)).await;
    script.session(Purpose::Publish, 0).await.break_off();
    confirms.push(publisher.enqueue(&text("3")).await.unwrap());
    let next = script.session(Purpose::Publish, 1).await.nth_sender(0).await;
    next.took(3).await;
    assert_eq!(next.bodies(), ["0", "2", "3"]);
    let sent = next.change(|state| {
        state
            .taken
            .iter()
            .map(|sent| sent.message.properties.message_id.clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(sent[..2], [Some(ids[0].clone()), Some(ids[2].clone())]);
    next.confirm(0..3);
    for confirm in confirms {
        confirm.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_two_retries_publishes_three_times_and_then_says_why() {
    let options = PublisherOptions::new().retry(RetryPolicy::new().retries(2));
    let (publisher, _broker, script) = retrying(options).await;
    let confirm = publisher.enqueue(&text("1")).await.unwrap();
    for n in 0..3 {
        let session = script.session(Purpose::Publish, n).await;
        session.nth_sender(0).await.took(1).await;
        session.break_off();
    }
    let error = in_time(confirm).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    assert!(error.to_string().contains("the line is dead"), "{error}");
    let next = script.session(Purpose::Publish, 3).await;
    let second = publisher.enqueue(&text("2")).await.unwrap();
    next.nth_sender(0).await.took(1).await;
    next.nth_sender(0).await.confirm(0..1);
    second.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn retrying_ends_at_the_deadline_and_a_message_that_was_sent_is_indeterminate() {
    let (publisher, _broker, script) = retrying(PublisherOptions::new()).await;
    let sent = publisher.enqueue(&text("sent")).await.unwrap();
    script.sender(0).await.took(1).await;
    let trouble = std::iter::repeat_n(Trouble::Fails(broken()), 1000);
    script.state.change(|state| state.connect_trouble.extend(trouble));
    script.session(Purpose::Publish, 0).await.break_off();
    let unsent = publisher.enqueue(&text("unsent")).await.unwrap();
    let began = Instant::now();
    let (sent, unsent) = tokio::join!(sent, unsent);
    assert!(began.elapsed() <= Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!((kind(sent), kind(unsent)), (ErrorKind::Indeterminate, ErrorKind::Timeout));
}

#[tokio::test(start_paused = true)]
async fn what_a_channel_refuses_for_good_is_not_published_again() {
    let (publisher, _broker, script) = retrying(PublisherOptions::new()).await;
    let confirm = publisher.enqueue(&text("1")).await.unwrap();
    let sender = script.sender(0).await;
    sender.took(1).await;
    let gone = Error::new(ErrorKind::NotFound, "publish to").because("no exchange");
    sender.change(|state| state.failure = Some(gone));
    assert_eq!(kind(in_time(confirm).await), ErrorKind::Indeterminate);
    // What it needs may be gone, so it is declared again.
    let second = publisher.enqueue(&text("2")).await.unwrap();
    let next = script.sender(1).await;
    next.took(1).await;
    next.confirm(0..1);
    second.await.unwrap();
    assert_eq!(script.session(Purpose::Publish, 0).await.applied().len(), 3);
}

/// As where a broker closes the channel for one message, and says for which.
#[tokio::test(start_paused = true)]
async fn what_was_beside_a_message_that_cost_the_sender_is_published_again_in_order() {
    let (publisher, _broker, script) = retrying(PublisherOptions::new()).await;
    let mut confirms = VecDeque::new();
    for number in 1..=4 {
        confirms.push_back(publisher.enqueue(&text(&number.to_string())).await.unwrap());
    }
    let sender = script.sender(0).await;
    sender.took(4).await;
    let gone = Error::new(ErrorKind::NotFound, "publish to").because("no exchange");
    sender.tell(1, PublishOutcome::Rejected(gone.clone()));
    let second = confirms.remove(1).unwrap();
    assert_eq!(kind(in_time(second).await), ErrorKind::NotFound);
    sender.change(|state| state.failure = Some(gone.transient(true)));
    let next = script.sender(1).await;
    next.took(3).await;
    assert_eq!(next.bodies(), ["1", "3", "4"]);
    next.confirm(0..3);
    for confirm in confirms {
        confirm.await.unwrap();
    }
    // What is missing may be the publisher's own, so that is declared again.
    assert_eq!(script.session(Purpose::Publish, 0).await.applied().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_is_published_again_only_by_a_policy_that_says_so() {
    for (policy, again) in
        [(RetryPolicy::new(), false), (RetryPolicy::new().also_refused().retries(1), true)]
    {
        let (publisher, _broker, script) = retrying(PublisherOptions::new().retry(policy)).await;
        let confirm = publisher.enqueue(&text("1")).await.unwrap();
        let sender = script.sender(0).await;
        sender.took(1).await;
        sender.tell(0, PublishOutcome::Rejected(refused()));
        if again {
            sender.took(2).await;
            assert_ne!(
                sender.change(|state| state.taken[0].id),
                sender.change(|state| state.taken[1].id)
            );
            sender.tell(1, PublishOutcome::Rejected(refused()));
        }
        assert_eq!(kind(in_time(confirm).await), ErrorKind::Refused);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(sender.bodies().len(), 1 + usize::from(again));
    }
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_fails_fast_says_at_once_that_there_is_no_connection() {
    let options = PublisherOptions::new().fail_fast();
    let (publisher, broker, script) = retrying(options).await;
    let trouble = std::iter::repeat_n(Trouble::Fails(broken()), 1000);
    script.state.change(|state| state.connect_trouble.extend(trouble));
    script.session(Purpose::Publish, 0).await.break_off();
    let mut health = broker.health();
    health.wait_for(|health| !health.publishing.is_ready()).await.unwrap();
    let began = Instant::now();
    let error = publisher.publish(&text("1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    assert_eq!(began.elapsed(), Duration::ZERO);
    script.state.change(|state| state.connect_trouble.clear());
    health.wait_for(|health| health.publishing.is_ready()).await.unwrap();
    let second = publisher.enqueue(&text("2")).await.unwrap();
    let sender = script.session(Purpose::Publish, 1).await.nth_sender(0).await;
    sender.took(1).await;
    sender.confirm(0..1);
    second.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_blocked_connection_is_named_by_what_times_out_and_seen_in_the_health() {
    let (publisher, sender, broker, script) = publisher(8).await;
    script.session(Purpose::Publish, 0).await.block(Some("low on\n memory"));
    let mut health = broker.health();
    let blocked = |health: &enoki_core::BrokerHealth| matches!(&health.publishing, enoki_core::Health::Blocked { reason } if &**reason == "low on\\n memory");
    health.wait_for(blocked).await.unwrap();
    let error = publisher.publish(&text("1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    assert!(error.to_string().contains("low on\\n memory"), "{error}");
    script.session(Purpose::Publish, 0).await.block(None);
    health.wait_for(|health| health.publishing.is_ready()).await.unwrap();
    sender.confirm(0..1);
}

/// What an opening says whose session breaks says nothing about the next session.
#[tokio::test(start_paused = true)]
async fn whatever_an_opening_says_while_its_session_ends_costs_no_message() {
    fn unexpected() -> Error {
        Error::new(ErrorKind::Unexpected, "open").because("the broker says what it likes")
    }
    for on_declaring in [true, false] {
        let (broker, script) = Script::broker().await;
        let publisher = broker.publisher(&PLACED).await.unwrap();
        script.state.change(|state| match on_declaring {
            true => state.apply_trouble = Some(|_| Some(Trouble::BreaksSaying(unexpected()))),
            false => state.sender_trouble = Some(Trouble::BreaksSaying(unexpected())),
        });
        script.session(Purpose::Publish, 0).await.break_off();
        let message = publisher.enqueue(&text("1")).await.unwrap();
        script.session(Purpose::Publish, 1).await.is_over().await;
        script.state.change(|state| {
            state.apply_trouble = None;
            state.sender_trouble = None;
        });
        // The next one may have been made with the old trouble, and breaks as well.
        let mut n = 2;
        let sender = loop {
            let session = script.session(Purpose::Publish, n).await;
            let opened = timeout(Duration::from_secs(5), session.nth_sender(0)).await;
            match opened {
                Ok(sender) => break sender,
                Err(_) => n += 1,
            }
        };
        sender.took(1).await;
        sender.confirm(0..1);
        in_time(message).await.unwrap();
    }
}

/// Whatever the error was taken for, its connection broke.
#[tokio::test(start_paused = true)]
async fn what_a_sender_says_whose_session_has_ended_is_no_reason_to_publish_nothing_again() {
    let (publisher, _broker, script) = retrying(PublisherOptions::new()).await;
    let message = publisher.enqueue(&text("1")).await.unwrap();
    let sender = script.sender(0).await;
    sender.took(1).await;
    let session = script.session(Purpose::Publish, 0).await;
    session.end(broken());
    let forced = Error::new(ErrorKind::Unexpected, "publish").because("connection forced");
    sender.change(|state| state.failure = Some(forced));
    let next = script.session(Purpose::Publish, 1).await.nth_sender(0).await;
    next.took(1).await;
    next.confirm(0..1);
    in_time(message).await.unwrap();
}

fn conflict(change: &Change) -> Option<Trouble> {
    let Change::DeclareExchange(exchange) = change else { return None };
    let error = Error::new(ErrorKind::Conflict, "declare").on(exchange.subject());
    Some(Trouble::Fails(error.because("it is other")))
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_worked_waits_out_its_deadlines_when_it_is_refused_and_says_what_for() {
    let (publisher, _sender, _broker, script) = publisher(8).await;
    script.state.change(|state| state.apply_trouble = Some(conflict));
    script.session(Purpose::Publish, 0).await.break_off();
    let began = Instant::now();
    let error = publisher.publish(&text("1")).await.unwrap_err();
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(29) && waited <= Duration::from_secs(30), "{waited:?}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let said = error.to_string();
    assert!(said.contains("it is other") && said.contains("before it was sent"), "{said}");
    // The next session is another try.
    let message = publisher.enqueue(&text("2")).await.unwrap();
    script.state.change(|state| state.apply_trouble = None);
    script.session(Purpose::Publish, 1).await.break_off();
    let sender = script.session(Purpose::Publish, 2).await.nth_sender(0).await;
    sender.took(1).await;
    sender.confirm(0..1);
    message.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_is_refused_for_long_enough_fails_at_once_and_says_how_long() {
    let (publisher, _sender, _broker, script) = publisher(8).await;
    script.state.change(|state| state.apply_trouble = Some(conflict));
    script.session(Purpose::Publish, 0).await.break_off();
    let began = Instant::now();
    let error = loop {
        let error = publisher.publish(&text("1")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        if error.to_string().contains("it was tried for") {
            break error;
        }
        assert!(began.elapsed() < Duration::from_secs(400), "{error}");
    };
    assert!(began.elapsed() >= Duration::from_secs(300), "{:?}", began.elapsed());
    assert!(error.to_string().contains("it is other"), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_is_never_published_again_past_its_deadline() {
    let policy =
        RetryPolicy::new().also_refused().backoff(Duration::from_secs(2), Duration::from_secs(2));
    let options = PublisherOptions::new().retry(policy).timeout(Duration::from_secs(7));
    let (publisher, _broker, script) = retrying(options).await;
    let confirm = publisher.enqueue(&text("1")).await.unwrap();
    let sender = script.sender(0).await;
    let began = Instant::now();
    let refusing = async {
        for n in 0.. {
            sender.took(n + 1).await;
            assert!(began.elapsed() < Duration::from_secs(7), "it is sent too late");
            sender.tell(n, PublishOutcome::Rejected(refused()));
        }
    };
    let error = tokio::select! {
        result = in_time(confirm) => result.unwrap_err(),
        () = refusing => unreachable!(),
    };
    assert_eq!(error.kind(), ErrorKind::Refused);
    let sent = sender.bodies().len();
    assert!((2..=4).contains(&sent), "{sent}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(sender.bodies().len(), sent);
}
