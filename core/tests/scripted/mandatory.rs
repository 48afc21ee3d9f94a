//! Mandatory publishers to a broker that does not report messages which no queue gets.

use std::sync::Arc;

use enoki_core::{
    Broker, Capability, Error, ErrorKind, ExchangeKind, ExchangeSpec, PublisherOptions, Purpose,
    Route, RouteSpec, Topic, Topology, WorkQueue, transport::Change,
};

use crate::script::{Script, Trouble};

const SHOP: Topic = Topic::new("shop");
const PLACED: Route<String> = SHOP.route("order.placed");
const BILLING: WorkQueue<String> = WorkQueue::new("billing");

async fn broker(script: &Arc<Script>) -> Broker {
    script.state.change(|state| {
        state.lacks = vec![Capability::UnroutableDetection];
        state.confirms = true;
    });
    Broker::connect(script.clone()).await.unwrap()
}

fn missing(change: &Change) -> Option<Trouble> {
    let error = || Error::new(ErrorKind::NotFound, "verify").on("queue \"billing\"");
    matches!(change, Change::VerifyQueue(_)).then(|| Trouble::Fails(error()))
}

#[tokio::test(start_paused = true)]
async fn the_queue_has_to_be_there() {
    let script = Script::new();
    script.state.change(|state| state.apply_trouble = Some(missing));
    let refused = broker(&script).await.publisher(&BILLING.route()).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn it_is_looked_for_on_each_connection_and_never_created() {
    let script = Script::new();
    let broker = broker(&script).await;
    let publisher = broker.publisher(&BILLING.route()).await.unwrap();
    publisher.publish(&"a".to_owned()).await.unwrap();
    script.session(Purpose::Publish, 0).await.break_off();
    while publisher.publish(&"b".to_owned()).await.is_err() {}
    for n in 0..2 {
        let applied = script.session(Purpose::Publish, n).await.applied();
        let looked = |change: &Change| match change {
            Change::VerifyQueue(queue) => queue.passive && queue.name == "billing",
            _ => false,
        };
        assert!(applied.iter().any(looked), "{applied:?}");
        assert!(!applied.iter().any(|change| matches!(change, Change::DeclareQueue(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_the_publisher_declares_is_there() {
    let script = Script::new();
    let options = PublisherOptions::new().declare(Topology::new().with_queue(&BILLING));
    broker(&script).await.publisher_with(&BILLING.route(), options).await.unwrap();
    let applied = script.session(Purpose::Publish, 0).await.applied();
    assert!(applied.iter().any(|change| matches!(change, Change::DeclareQueue(_))), "{applied:?}");
    assert!(!applied.iter().any(|change| matches!(change, Change::VerifyQueue(_))), "{applied:?}");
}

#[tokio::test(start_paused = true)]
async fn another_queue_or_an_exchange_is_refused_and_says_the_way_out() {
    let script = Script::new();
    let broker = broker(&script).await;
    let refused = broker.publisher(&PLACED).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.to_string().contains("\"shop\""), "{refused}");
    let publisher = broker.publisher(&BILLING.route()).await.unwrap();
    let refused = publisher.publish_to("other", &"a".to_owned()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.to_string().contains("optional"), "{refused}");
    let elsewhere =
        RouteSpec::new(&ExchangeSpec::new("shop", ExchangeKind::Direct).unwrap(), "billing");
    let mine = publisher.message(&"a".to_owned()).unwrap().route(elsewhere.unwrap());
    let refused = mine.publish().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "the same key of an exchange");
    let mine = publisher.message(&"a".to_owned()).unwrap().key("other").unwrap();
    mine.mandatory(false).publish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_optional_publisher_goes_anywhere_but_promises_no_more_for_one_message() {
    let script = Script::new();
    let broker = broker(&script).await;
    let options = PublisherOptions::new().optional();
    let publisher = broker.publisher_with(&PLACED, options).await.unwrap();
    publisher.publish_to("order.paid", &"a".to_owned()).await.unwrap();
    let promised = publisher.message(&"a".to_owned()).unwrap().mandatory(true).publish().await;
    assert_eq!(promised.unwrap_err().kind(), ErrorKind::Unsupported);
}
