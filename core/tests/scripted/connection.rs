//! Connections: opened when a call needs them, bounded in time, and closed once.

use std::time::Duration;

use enoki_core::{
    Broker, BrokerOptions, Error, ErrorKind, Fanout, Health, Purpose, Route, Topic, Topology,
    WorkQueue, transport::Change,
};
use tokio::time::{Instant, sleep, timeout};

use crate::script::{Script, Trouble, broken};

const SHOP: Topic = Topic::new("shop");
const PLACED: Route<String> = SHOP.route("order.placed");
const BILLING: WorkQueue<String> = WorkQueue::new("billing");

fn refused() -> Error {
    Error::new(ErrorKind::Connection, "connect").on("to script:1").because("connection refused")
}

fn options() -> BrokerOptions {
    BrokerOptions::new()
        .connect_timeout(Duration::from_secs(3))
        .declare_timeout(Duration::from_secs(4))
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_known_when_connecting_and_tried_once() {
    let script = Script::new();
    let denied = Error::new(ErrorKind::Denied, "connect").because("access refused");
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Fails(denied)));
    let error = Broker::connect(script.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(script.connects(Purpose::Publish), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_for_consuming_is_only_opened_when_it_is_needed() {
    let (broker, script) = Script::broker().await;
    broker.publisher(&PLACED).await.unwrap();
    assert_eq!(script.connects(Purpose::Consume), 0);
    broker.declare(&Topology::new().with_exchange(&SHOP)).await.unwrap();
    assert_eq!(script.connects(Purpose::Consume), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_cannot_be_opened_is_tried_again_for_everybody_who_waits() {
    let (broker, script) = Script::broker().await;
    script.state.change(|state| {
        state.connect_trouble.extend([Trouble::Fails(refused()), Trouble::Fails(refused())]);
    });
    let topology = Topology::new().with_exchange(&SHOP);
    let call = || broker.declare(&topology);
    let (one, two, three, four) = tokio::join!(call(), call(), call(), call());
    assert!([one, two, three, four].iter().all(Result::is_ok));
    assert_eq!(script.connects(Purpose::Consume), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_connection_in_vain_says_why_there_was_none() {
    let (broker, script) = Script::broker_with(options()).await;
    let trouble = std::iter::repeat_n(Trouble::Fails(refused()), 1000);
    script.state.change(|state| state.connect_trouble.extend(trouble));
    let began = Instant::now();
    let error = broker.declare(&Topology::new().with_exchange(&SHOP)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(began.elapsed() <= Duration::from_secs(3 + 4), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_cannot_be_reached_is_told_with_how_long_it_was_tried_and_a_remedy() {
    let script = Script::new();
    let trouble = std::iter::repeat_n(Trouble::Fails(refused()), 1000);
    script.state.change(|state| state.connect_trouble.extend(trouble));
    let options = options().reach_within(Duration::from_secs(10));
    let error = Broker::connect_with(script, options).await.unwrap_err().to_string();
    assert!(error.contains("connection refused, tried for 10.0s; does the broker run"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_passive_and_missing_is_told_with_a_remedy() {
    let script = Script::new();
    script.state.change(|state| {
        state.apply_trouble = Some(|change| match change {
            Change::VerifyQueue(_) => {
                Some(Trouble::Fails(Error::new(ErrorKind::NotFound, "verify queue")))
            }
            _ => None,
        });
    });
    const BILLING: WorkQueue<u32> = WorkQueue::new("billing").passive();
    let broker = Broker::connect(script).await.unwrap();
    let error = broker.subscribe(&BILLING, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("start what declares it first"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_no_further_try_would_mend_is_told_at_once_and_not_tried_again() {
    let (broker, script) = Script::broker_with(options()).await;
    let denied = Error::new(ErrorKind::Denied, "connect").because("access refused");
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Fails(denied)));
    let topology = Topology::new().with_exchange(&SHOP);
    let (first, second) = tokio::join!(broker.declare(&topology), broker.declare(&topology));
    for result in [first, second] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Denied);
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(script.connects(Purpose::Consume), 1);
    assert!(matches!(broker.health().borrow().consuming, Health::Stopped { reason: Some(_) }));
    // The next call tries again: the refusal may be over.
    broker.declare(&topology).await.unwrap();
    assert_eq!(script.connects(Purpose::Consume), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_hangs_ends_within_its_timeout_and_the_next_works() {
    let script = Script::new();
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Hangs));
    let began = Instant::now();
    let once = options().reach_within(Duration::ZERO);
    let error = Broker::connect_with(script.clone(), once).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_transient());
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    Broker::connect_with(script, options()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_cannot_be_reached_is_tried_for_as_long_as_the_program_says() {
    for (within, tries) in [(0, 1..=1), (1, 2..=6), (60, 50..=110)] {
        let script = Script::new();
        let trouble = std::iter::repeat_n(Trouble::Fails(refused()), 1000);
        script.state.change(|state| state.connect_trouble.extend(trouble));
        let options = options().reach_within(Duration::from_secs(within));
        let began = Instant::now();
        let error = Broker::connect_with(script.clone(), options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connection);
        assert!(error.to_string().contains("connection refused"), "{error}");
        assert_eq!(began.elapsed().as_secs(), within);
        let connects = script.connects(Purpose::Publish);
        assert!(tries.contains(&connects), "{connects} in {within} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_declaration_that_hangs_ends_within_its_timeout() {
    let script = Script::new();
    script.state.change(|state| state.apply_trouble = Some(|_| Some(Trouble::Hangs)));
    let broker = Broker::connect_with(script.clone(), options()).await.unwrap();
    let within = Duration::from_secs(3 + 4);
    let topology = Topology::new().with_exchange(&SHOP);
    let began = Instant::now();
    for error in [
        broker.declare(&topology).await.unwrap_err(),
        broker.verify(&topology).await.unwrap_err(),
        broker.queue_status(&BILLING).await.unwrap_err(),
        broker.apply(&Change::PurgeQueue("billing".try_into().unwrap())).await.unwrap_err(),
        broker.publisher(&PLACED).await.unwrap_err(),
        broker.subscribe(&BILLING, 1).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
    assert!(began.elapsed() <= 6 * within, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_never_opens_ends_a_message_within_its_deadline() {
    let script = Script::new();
    script.state.change(|state| state.sender_trouble = Some(Trouble::Hangs));
    let broker = Broker::connect_with(script.clone(), options()).await.unwrap();
    let publisher = broker.publisher(&PLACED).await.unwrap();
    let began = Instant::now();
    let error = publisher.publish(&"a".to_owned()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(began.elapsed() <= Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_never_opens_ends_the_call_within_its_timeout() {
    let script = Script::new();
    script.state.change(|state| state.receiver_trouble = Some(Trouble::Hangs));
    let broker = Broker::connect_with(script.clone(), options()).await.unwrap();
    let began = Instant::now();
    let error = broker.subscribe(&BILLING, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(began.elapsed() <= Duration::from_secs(7), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_conflict_on_declaring_is_the_callers_error_and_the_connection_stays() {
    const NEWS: Fanout = Fanout::new("news");
    let script = Script::new();
    script.state.change(|state| {
        state.apply_trouble = Some(|change| match change {
            Change::DeclareExchange(exchange) if exchange.name == "news" => Some(Trouble::Fails(
                Error::new(ErrorKind::Conflict, "declare").on(exchange.subject()),
            )),
            _ => None,
        });
    });
    let broker = Broker::connect(script.clone()).await.unwrap();
    let error = broker.declare(&Topology::new().with_exchange(&NEWS)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    broker.declare(&Topology::new().with_exchange(&SHOP)).await.unwrap();
    assert_eq!(script.connects(Purpose::Consume), 1);
}

/// The link's task notices an end in its own time; the first call must not get a session that has ended.
#[tokio::test(start_paused = true)]
async fn a_call_right_after_the_connection_broke_gets_a_new_one() {
    let (broker, script) = Script::broker().await;
    let topology = Topology::new().with_exchange(&SHOP);
    broker.declare(&topology).await.unwrap();
    script.session(Purpose::Consume, 0).await.break_off();
    broker.declare(&topology).await.unwrap();
    assert_eq!(script.connects(Purpose::Consume), 2);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_closed_while_it_connects_stays_closed() {
    let (broker, script) = Script::broker_with(options()).await;
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Hangs));
    let topology = Topology::new().with_exchange(&SHOP);
    let declare = || {
        let (broker, topology) = (broker.clone(), topology.clone());
        tokio::spawn(async move { broker.declare(&topology).await })
    };
    let first = declare();
    sleep(Duration::from_millis(10)).await;
    // Its wish is waiting to be heard when the broker is closed.
    let second = declare();
    sleep(Duration::from_millis(10)).await;
    let began = Instant::now();
    broker.close(Duration::ZERO).await;
    assert!(began.elapsed() <= Duration::from_secs(1), "{:?}", began.elapsed());
    for call in [first, second] {
        assert!(call.await.unwrap().is_err());
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(broker.declare(&topology).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(script.connects(Purpose::Consume), 1, "nothing was opened after the close");
}

#[tokio::test(start_paused = true)]
async fn the_connections_close_when_the_last_handle_is_gone() {
    let (broker, script) = Script::broker().await;
    broker.declare(&Topology::new()).await.unwrap();
    let other = broker.clone();
    let publishing = script.session(Purpose::Publish, 0).await;
    let consuming = script.session(Purpose::Consume, 0).await;
    drop(broker);
    sleep(Duration::from_secs(1)).await;
    assert!(!publishing.is_closed() && !consuming.is_closed());
    drop(other);
    publishing.state.until("it is closed", |state| state.closed).await;
    consuming.state.until("it is closed", |state| state.closed).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_down_is_tried_each_second_while_a_call_waits_and_seldom_otherwise() {
    let (broker, script) = Script::broker().await;
    script.session(Purpose::Publish, 0).await.break_off();
    script.state.change(|state| {
        state.connect_trouble.extend((0..1000).map(|_| Trouble::Fails(broken())));
    });
    // It waits for 20 seconds.
    let publisher = broker.publisher(&PLACED).await;
    assert_eq!(publisher.unwrap_err().kind(), ErrorKind::Connection);
    let wanted = script.connects(Purpose::Publish);
    assert!((17..=40).contains(&wanted), "{wanted}");
    sleep(Duration::from_secs(600)).await;
    let idle = script.connects(Purpose::Publish) - wanted;
    assert!((20..=42).contains(&idle), "{idle}");
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_a_long_pause() {
    let (broker, script) = Script::broker().await;
    script.state.change(|state| {
        state.connect_trouble.extend((0..1000).map(|_| Trouble::Fails(refused())));
    });
    script.session(Purpose::Publish, 0).await.break_off();
    for _ in 0..20 {
        sleep(Duration::from_secs(100)).await;
        let before = script.connects(Purpose::Publish);
        let began = Instant::now();
        let call = broker.publisher(&PLACED);
        let _ = timeout(Duration::from_millis(1300), call).await;
        let tried = script.connects(Purpose::Publish) - before;
        assert!((1..=3).contains(&tried), "{tried} in {:?}", began.elapsed());
    }
    sleep(Duration::from_secs(100)).await;
    script.state.change(|state| state.connect_trouble.clear());
    let began = Instant::now();
    broker.publisher(&PLACED).await.unwrap();
    assert!(began.elapsed() <= Duration::from_millis(1200), "{:?}", began.elapsed());
}

fn denied() -> Error {
    Error::new(ErrorKind::Denied, "connect").on("to script:1").because("access refused")
}

#[tokio::test(start_paused = true)]
async fn what_was_let_in_before_is_tried_again_whatever_the_broker_says() {
    let (broker, script) = Script::broker().await;
    script.state.change(|state| {
        state.connect_trouble.extend((0..1000).map(|_| Trouble::Fails(denied())));
    });
    script.session(Purpose::Publish, 0).await.break_off();
    // A call that waits in vain hears the reason, and that it may pass.
    let error = broker.publisher(&PLACED).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.is_transient());
    sleep(Duration::from_secs(200)).await;
    let health = broker.health().borrow().publishing.clone();
    let said = health.to_string();
    assert!(
        matches!(health, Health::Reconnecting { .. }) && said.contains("access refused"),
        "{said}"
    );
    let connects = script.connects(Purpose::Publish);
    assert!(connects <= 30, "{connects}: a wrong password may lock the account");
    // It is right again.
    script.state.change(|state| state.connect_trouble.clear());
    broker.health().wait_for(|health| health.publishing.is_ready()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_refused_for_five_minutes_is_given_up_until_a_call_asks() {
    let (broker, script) = Script::broker().await;
    script.state.change(|state| {
        state.connect_trouble.extend((0..1000).map(|_| Trouble::Fails(denied())));
    });
    let began = Instant::now();
    script.session(Purpose::Publish, 0).await.break_off();
    let mut health = broker.health();
    let given_up = health.wait_for(|health| matches!(health.publishing, Health::Stopped { .. }));
    let said = given_up.await.unwrap().publishing.to_string();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(300) && took <= Duration::from_secs(331), "{took:?}");
    assert!(said.contains("tried for 3") && said.contains("access refused"), "{said}");
    let connects = script.connects(Purpose::Publish);
    let error = broker.publisher(&PLACED).await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Denied, false));
    sleep(Duration::from_secs(100)).await;
    assert_eq!(script.connects(Purpose::Publish), connects + 1, "one try for each call");
    script.state.change(|state| state.connect_trouble.clear());
    broker.publisher(&PLACED).await.unwrap();
}

/// How long it takes until there is a connection again after the nth one was cut.
async fn back_after_a_cut(broker: &Broker, script: &Script, n: usize) -> Duration {
    let mut health = broker.health();
    let began = Instant::now();
    script.session(Purpose::Publish, n).await.break_off();
    health.wait_for(|health| !health.publishing.is_ready()).await.unwrap();
    health.wait_for(|health| health.publishing.is_ready()).await.unwrap();
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_works_between_its_cuts_is_back_as_soon_after_each() {
    let (broker, script) = Script::broker().await;
    for n in 0..30 {
        sleep(Duration::from_millis(300)).await;
        // How often it is refused, and how long that may take: a long outage makes none longer.
        let (times, most) = match n {
            10 => (10, Duration::from_secs(200)),
            20 => (2, Duration::from_secs(1)),
            _ => (0, Duration::from_millis(200)),
        };
        let refusals = std::iter::repeat_n(Trouble::Fails(refused()), times);
        script.state.change(|state| state.connect_trouble.extend(refusals));
        let took = back_after_a_cut(&broker, &script, n).await;
        assert!(took <= most, "{n}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_at_once_waits_longer_and_longer() {
    let (broker, script) = Script::broker().await;
    for (n, least) in [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1600), (5, 3200)] {
        let took = back_after_a_cut(&broker, &script, n).await;
        assert!(took >= Duration::from_millis(least), "{n}: {took:?}");
    }
    sleep(Duration::from_secs(1)).await;
    assert!(back_after_a_cut(&broker, &script, 6).await <= Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn programs_that_lost_the_same_broker_come_back_at_different_times() {
    let mut brokers = Vec::new();
    for _ in 0..200 {
        let (broker, script) = Script::broker().await;
        script.state.change(|state| {
            state.connect_trouble.extend((0..6).map(|_| Trouble::Fails(broken())));
        });
        brokers.push((broker, script));
    }
    let began = Instant::now();
    for (_, script) in &brokers {
        script.session(Purpose::Publish, 0).await.break_off();
    }
    let mut bins = std::collections::HashMap::new();
    for (broker, _) in &brokers {
        let mut health = broker.health();
        health.wait_for(|health| !health.publishing.is_ready()).await.unwrap();
    }
    let back = brokers.iter().map(|(broker, _)| async {
        broker.health().wait_for(|health| health.publishing.is_ready()).await.unwrap();
        began.elapsed().as_millis() / 100
    });
    for bin in futures_util::future::join_all(back).await {
        *bins.entry(bin).or_insert(0) += 1;
    }
    assert!(bins.values().all(|back| *back <= 200 / 5), "{bins:?}");
}

/// Each of them has a call that waits.
#[tokio::test(start_paused = true)]
async fn a_thousand_programs_that_wait_for_the_same_broker_do_not_try_in_the_same_moment() {
    let began = Instant::now();
    let mut tries = Vec::new();
    for _ in 0..1000 {
        tries.push(tokio::spawn(async {
            let (broker, script) = Script::broker().await;
            script.state.change(|state| {
                state.connect_trouble.extend((0..1000).map(|_| Trouble::Fails(refused())));
            });
            script.session(Purpose::Publish, 0).await.break_off();
            let _waiting = tokio::spawn(async move { broker.publisher(&PLACED).await });
            let began = Instant::now();
            let mut at = Vec::new();
            let mut seen = 1;
            while began.elapsed() < Duration::from_secs(15) {
                script.state.until("it tries", |state| state.connects.len() > seen).await;
                seen = script.connects(Purpose::Publish);
                at.push(began.elapsed().as_millis() / 100);
            }
            at
        }));
    }
    let mut bins = std::collections::HashMap::new();
    for tries in tries {
        for at in tries.await.unwrap() {
            *bins.entry(at).or_insert(0) += 1;
        }
    }
    // After ten seconds they are spread evenly: one try for each in 0.9 s on the average.
    let late: Vec<_> = bins.iter().filter(|(at, _)| (100..140).contains(*at)).collect();
    assert!(late.len() == 40 && late.iter().all(|(_, tries)| **tries <= 200), "{late:?}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn the_health_of_a_connection_can_be_watched_through_its_life() {
    let (broker, script) = Script::broker().await;
    let mut health = broker.health();
    let now = health.borrow_and_update().clone();
    assert!(now.publishing.is_ready() && matches!(now.consuming, Health::Idle));
    assert!(now.is_ready());
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Fails(refused())));
    script.session(Purpose::Publish, 0).await.break_off();
    let mut seen = Vec::new();
    while script.connects(Purpose::Publish) < 3 || !health.borrow().is_ready() {
        health.changed().await.unwrap();
        seen.push(health.borrow_and_update().publishing.to_string());
    }
    assert!(
        seen[0].starts_with("reconnecting") && seen[0].contains("the line is dead"),
        "{seen:?}"
    );
    assert!(seen[1].contains("connection refused"), "{seen:?}");
    assert_eq!(seen[2..], ["ready"]);
    assert_eq!((health.borrow().publishing_opened, health.borrow().consuming_opened), (2, 0));
    broker.close(Duration::ZERO).await;
    assert!(matches!(health.borrow().publishing, Health::Stopped { reason: None }));
}

#[tokio::test(start_paused = true)]
async fn what_the_program_declared_by_hand_is_declared_again_until_the_program_deletes_it() {
    const NEWS: Fanout = Fanout::new("news");
    let (broker, script) = Script::broker().await;
    let topology = Topology::new().with_exchange(&SHOP).with_exchange(&NEWS).with_queue(&BILLING);
    broker.declare(&topology).await.unwrap();
    broker.apply(&Change::DeleteExchange("news".try_into().unwrap())).await.unwrap();
    script.session(Purpose::Consume, 0).await.break_off();
    let next = script.session(Purpose::Consume, 1).await;
    broker.health().wait_for(|health| health.consuming.is_ready()).await.unwrap();
    let applied = next.applied();
    assert!(
        matches!(&applied[..], [Change::DeclareExchange(shop), Change::DeclareQueue(billing)]
            if shop.name == "shop" && billing.name == "billing"),
        "{applied:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_declared_again_keeps_nothing_else_back() {
    const NEWS: Fanout = Fanout::new("news");
    let (broker, script) = Script::broker().await;
    let topology = Topology::new().with_exchange(&NEWS).with_exchange(&SHOP);
    broker.declare(&topology).await.unwrap();
    script.state.change(|state| {
        state.apply_trouble = Some(|change| match change {
            Change::DeclareExchange(exchange) if exchange.name == "news" => {
                Some(Trouble::Fails(Error::new(ErrorKind::Conflict, "declare")))
            }
            _ => None,
        });
    });
    script.session(Purpose::Consume, 0).await.break_off();
    broker.health().wait_for(|health| health.consuming.is_ready()).await.unwrap();
    assert_eq!(script.session(Purpose::Consume, 1).await.applied().len(), 2);
}
