//! A message that the broker fails at interrupts its own consumer, and in the end no other.

use std::time::Duration;

use enoki_core::{Broker, Health, Purpose, Subscription, TemporaryQueue, WorkQueue};
use tokio::time::sleep;

use crate::script::{Script, ScriptedSession, broken, in_time};

const BILLING: WorkQueue<String> = WorkQueue::new("billing");
const SHIPPING: WorkQueue<String> = WorkQueue::new("shipping");

async fn consumers() -> (Subscription, Subscription, Broker, std::sync::Arc<Script>) {
    let (broker, script) = Script::broker().await;
    let billing = broker.subscribe(&BILLING, 1).await.unwrap();
    let shipping = broker.subscribe(&SHIPPING, 1).await.unwrap();
    (billing, shipping, broker, script)
}

/// The nth connection for consuming, once so many consume on it.
async fn with(script: &Script, n: usize, consumers: usize) -> std::sync::Arc<ScriptedSession> {
    let session = script.session(Purpose::Consume, n).await;
    for n in 0..consumers {
        session.nth_receiver(n).await;
    }
    session
}

/// Has the broker fail three times in a row: the two consumers have connections of their own then,
/// numbers 3 and 4.
async fn suspected(script: &Script) -> [std::sync::Arc<ScriptedSession>; 2] {
    for n in 0..3 {
        with(script, n, 2).await.fail_inside();
    }
    // The shared one comes back as well, after a pause, as no consumer wants it.
    let mut own = Vec::new();
    for n in 3.. {
        let session = script.session(Purpose::Consume, n).await;
        sleep(Duration::from_secs(1)).await;
        if session.queues().len() == 1 {
            own.push(session);
        }
        if let [one, other] = &own[..] {
            return [one.clone(), other.clone()];
        }
    }
    unreachable!()
}

#[tokio::test(start_paused = true)]
async fn who_shares_a_connection_that_the_broker_fails_on_gets_another() {
    let (billing, shipping, _broker, script) = consumers().await;
    let own = suspected(&script).await;
    let names: Vec<_> = own.iter().flat_map(|session| session.queues()).collect();
    assert!(names.contains(&"billing".try_into().unwrap()), "{names:?}");
    assert!(names.contains(&"shipping".try_into().unwrap()), "{names:?}");
    // From now on the message that the broker fails at interrupts its own consumer.
    let is_billing = |session: &&std::sync::Arc<ScriptedSession>| session.queues()[0] == "billing";
    let bad = own.iter().find(is_billing).unwrap();
    let began = (shipping.health().borrow().subscribed, billing.health().borrow().subscribed);
    bad.fail_inside();
    let mut health = billing.health();
    let told = health.wait_for(|health| matches!(health.health, Health::Reconnecting { .. }));
    let said = in_time(told).await.unwrap().health.to_string();
    for part in ["queue \"billing\"", "4 times in a row", "INTERNAL_ERROR", "remove it"] {
        assert!(said.contains(part), "{said}");
    }
    in_time(health.wait_for(|health| health.subscribed > began.1)).await.unwrap();
    assert_eq!(shipping.health().borrow().subscribed, began.0);
    assert!(shipping.health().borrow().health.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_the_broker_fails_at_for_ever_is_tried_seldom() {
    let (broker, script) = Script::broker().await;
    let subscription = broker.subscribe(&BILLING, 1).await.unwrap();
    let failing = tokio::spawn(async move {
        for n in 0.. {
            let session = script.session(Purpose::Consume, n).await;
            sleep(Duration::from_millis(10)).await;
            session.fail_inside();
        }
    });
    sleep(Duration::from_secs(100)).await;
    let before = subscription.health().borrow().subscribed;
    sleep(Duration::from_secs(600)).await;
    let tried = subscription.health().borrow().subscribed - before;
    assert!((15..=45).contains(&tried), "{tried}");
    failing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_lives_goes_back_to_the_others_when_it_is_interrupted() {
    let (_billing, shipping, _broker, script) = consumers().await;
    let own = suspected(&script).await;
    sleep(Duration::from_secs(20)).await;
    let is_shipping =
        |session: &&std::sync::Arc<ScriptedSession>| session.queues()[0] == "shipping";
    let good = own.iter().find(is_shipping).unwrap();
    let before = shipping.health().borrow().subscribed;
    good.break_off();
    in_time(shipping.health().wait_for(|health| health.subscribed > before)).await.unwrap();
    // On the connection that was the shared one all the time.
    let mut n = 0;
    let shared = loop {
        let session = script.session(Purpose::Consume, n).await;
        if !session.is_ended() && session.queues().contains(&"shipping".try_into().unwrap()) {
            break session;
        }
        n += 1;
    };
    assert!(!own.iter().any(|own| std::sync::Arc::ptr_eq(own, &shared)));
}

/// A network that breaks again and again is no message's doing.
#[tokio::test(start_paused = true)]
async fn connections_that_break_make_no_consumer_suspect() {
    let (billing, _shipping, _broker, script) = consumers().await;
    for n in 0..10 {
        with(&script, n, 2).await.break_off();
    }
    with(&script, 10, 2).await;
    let said = broken().to_string();
    assert!(!billing.health().borrow().health.to_string().contains("in a row"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_queue_stays_on_its_connection() {
    const ANSWERS: TemporaryQueue<String> = TemporaryQueue::new("answers");
    let (broker, script) = Script::broker().await;
    let subscription = broker.subscribe(&ANSWERS, 1).await.unwrap();
    for n in 0..5 {
        with(&script, n, 1).await.fail_inside();
    }
    let before = subscription.health().borrow().subscribed;
    in_time(subscription.health().wait_for(|health| health.subscribed > before)).await.unwrap();
    let live = script.connects(Purpose::Consume);
    assert_eq!(live, 6, "one after the other");
}

#[tokio::test(start_paused = true)]
async fn closing_the_broker_closes_them_all() {
    let (mut billing, _shipping, broker, script) = consumers().await;
    let own = suspected(&script).await;
    let connects = script.connects(Purpose::Consume);
    broker.close(Duration::from_secs(5)).await;
    assert!(own.iter().all(|session| session.is_closed()));
    // The script does not end what it closes.
    own.iter().for_each(|session| session.break_off());
    assert!(in_time(billing.next()).await.is_err());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(script.connects(Purpose::Consume), connects);
}
