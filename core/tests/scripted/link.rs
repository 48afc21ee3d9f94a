//! Connections: opened when somebody needs them, bounded in time, closed for good.

use std::time::Duration;

use enoki_core::{
    Broker, BrokerOptions, Error, ErrorKind, Fanout, Purpose, Route, Topic, Topology, WorkQueue,
    transport::Change,
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
async fn an_error_to_connect_reaches_everybody_who_waits_and_the_next_call_tries_again() {
    let (broker, script) = Script::broker().await;
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Fails(refused())));
    let topology = Topology::new().with_exchange(&SHOP);
    let call = || broker.declare(&topology);
    let (one, two, three, four) = tokio::join!(call(), call(), call(), call());
    for result in [one, two, three, four] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connection);
        assert!(error.to_string().contains("connection refused"), "{error}");
    }
    broker.declare(&topology).await.unwrap();
    assert_eq!(script.connects(Purpose::Consume), 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_connects_again_for_a_call_that_has_had_its_error() {
    let (broker, script) = Script::broker_with(options()).await;
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Hangs));
    let topology = Topology::new().with_exchange(&SHOP);
    let first = broker.declare(&topology);
    let second = async {
        sleep(Duration::from_secs(1)).await;
        broker.declare(&topology).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_err() && second.is_err());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(script.connects(Purpose::Consume), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_hangs_ends_within_its_timeout_and_the_next_works() {
    let script = Script::new();
    script.state.change(|state| state.connect_trouble.push_back(Trouble::Hangs));
    let began = Instant::now();
    let error = Broker::connect_with(script.clone(), options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_transient());
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    Broker::connect_with(script, options()).await.unwrap();
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

/// The link's task notices an end in its own time; whoever asks first must not be given a corpse.
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
    broker.close(Instant::now()).await;
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
async fn nothing_is_kept_busy_by_a_connection_that_is_down() {
    let (broker, script) = Script::broker().await;
    script.session(Purpose::Publish, 0).await.break_off();
    script.state.change(|state| {
        state.connect_trouble.extend((0..100).map(|_| Trouble::Fails(broken())));
    });
    let publisher = broker.publisher(&PLACED).await;
    assert_eq!(publisher.unwrap_err().kind(), ErrorKind::Connection);
    timeout(Duration::from_secs(600), std::future::pending::<()>()).await.unwrap_err();
    assert!(script.connects(Purpose::Publish) <= 3, "{}", script.connects(Purpose::Publish));
}
