//! What a topology names and does not declare is looked for, wherever the topology is declared.

use enoki_core::{
    Broker, Capability, Error, ErrorKind, PublisherOptions, Purpose, ReplicatedQueue, Result,
    Route, Topic, Topology, WorkQueue, transport::Change,
};

use crate::script::{Script, Trouble};

const SHOP: Topic = Topic::new("shop").alternate_named("stray");
const PLACED: Route<String> = SHOP.route("order.placed");
const BILLING: WorkQueue<String> =
    WorkQueue::new("billing").bind(&[SHOP.pattern("#")]).dead_letter_exchange_named("lost");
const PACKING: WorkQueue<String> = WorkQueue::new("packing").dead_letter_exchange_named("lost");
const SHIPPING: WorkQueue<String> = WorkQueue::new("shipping").dead_letter_queue_named("late");

fn whole() -> Topology {
    Topology::new().with_queue(&BILLING).with_queue(&PACKING).with_queue(&SHIPPING)
}

/// What was looked for by its name, in order, and how much had been done before the last of it.
fn looked_for(applied: &[Change]) -> (Vec<String>, usize) {
    let mut names = Vec::new();
    let mut last = 0;
    for (at, change) in applied.iter().enumerate() {
        match change {
            Change::VerifyExchange(spec) if spec.passive => names.push(spec.subject()),
            Change::VerifyQueue(spec) if spec.passive => names.push(spec.subject()),
            _ => continue,
        }
        last = at;
    }
    (names, last)
}

fn trouble_with_what_is_named(change: &Change, kind: ErrorKind) -> Option<Trouble> {
    let is_named = match change {
        Change::VerifyExchange(spec) => spec.passive,
        Change::VerifyQueue(spec) => spec.passive,
        _ => false,
    };
    is_named.then(|| Trouble::Fails(Error::new(kind, "verify").because("the script says so")))
}

async fn broker(trouble: fn(&Change) -> Option<Trouble>) -> (Broker, std::sync::Arc<Script>) {
    let script = Script::new();
    script.state.change(|state| state.apply_trouble = Some(trouble));
    (Broker::connect(script.clone()).await.unwrap(), script)
}

#[tokio::test(start_paused = true)]
async fn it_is_looked_for_once_and_before_anything_is_declared() {
    let (broker, script) = Script::broker().await;
    broker.declare(&whole()).await.unwrap();
    let (names, last) = looked_for(&script.session(Purpose::Consume, 0).await.applied());
    assert_eq!(names, ["exchange \"stray\"", "exchange \"lost\"", "queue \"late\""]);
    assert_eq!(last, 2, "nothing came before");
}

#[tokio::test(start_paused = true)]
async fn what_the_topology_declares_itself_is_not_looked_for() {
    const LOST: Topic = Topic::new("lost");
    const LATE: WorkQueue<u32> = WorkQueue::new("late").dead_letter_queue_named("shipping");
    let (broker, script) = Script::broker().await;
    let topology = whole().with_exchange(&LOST).with_exchange(&Topic::new("stray"));
    broker.declare(&topology.with_queue(&LATE)).await.unwrap();
    let (names, _) = looked_for(&script.session(Purpose::Consume, 0).await.applied());
    assert_eq!(names, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn consumers_and_publishers_look_for_it_on_each_connection() {
    let (broker, script) = Script::broker().await;
    let _subscription = broker.subscribe(&BILLING, 1).await.unwrap();
    let publisher = broker.publisher(&PLACED).await.unwrap();
    let _waiting = publisher.enqueue(&"a".to_owned()).await.unwrap();
    script.sender(0).await.took(1).await;
    for n in 0..2 {
        let consuming = script.session(Purpose::Consume, n).await;
        consuming.nth_receiver(0).await;
        let (names, _) = looked_for(&consuming.applied());
        assert_eq!(names, ["exchange \"stray\"", "exchange \"lost\""], "connection {n}");
        let publishing = script.session(Purpose::Publish, n).await;
        publishing.nth_sender(0).await.took(1).await;
        let (names, _) = looked_for(&publishing.applied());
        assert!(names.contains(&"exchange \"stray\"".to_owned()), "connection {n}");
        consuming.break_off();
        publishing.break_off();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_an_error_that_names_both_and_nothing_is_declared() {
    let missing = |change: &Change| trouble_with_what_is_named(change, ErrorKind::NotFound);
    let (broker, script) = broker(missing).await;
    let check = |what: &str, result: Result<()>, parts: [&str; 2]| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{what}: {error}");
        for part in parts.into_iter().chain(["does not exist", "declare it"]) {
            assert!(error.to_string().contains(part), "{what}: {part} is missing in {error}");
        }
    };
    let dead = ["queue \"packing\": its dead letters go", "exchange \"lost\""];
    let packing = Topology::new().with_queue(&PACKING);
    check("declare", broker.declare(&packing).await, dead);
    check("subscribe", broker.subscribe(&PACKING, 1).await.map(drop), dead);
    let options = PublisherOptions::new().declare(packing.clone());
    check("publisher", broker.publisher_with(&PACKING.route(), options).await.map(drop), dead);
    check("verify", broker.verify(&packing).await, dead);
    let late = ["queue \"shipping\": its dead letters go", "queue \"late\""];
    check("by a queue", broker.declare(&Topology::new().with_queue(&SHIPPING)).await, late);
    let stray = ["exchange \"shop\": what it cannot route goes", "exchange \"stray\""];
    check("alternate", broker.publisher(&PLACED).await.map(drop), stray);
    for purpose in [Purpose::Consume, Purpose::Publish] {
        let applied = script.session(purpose, 0).await.applied();
        let declared = |change: &Change| {
            matches!(change, Change::DeclareQueue(_) | Change::DeclareExchange(_))
        };
        assert!(!applied.iter().any(declared), "{applied:?}");
    }
}

/// A user may be permitted to use the queue and not to look at where its dead letters go.
#[tokio::test(start_paused = true)]
async fn what_this_user_may_not_look_at_keeps_nothing_back() {
    let denied = |change: &Change| trouble_with_what_is_named(change, ErrorKind::Denied);
    let (broker, script) = broker(denied).await;
    broker.declare(&whole()).await.unwrap();
    let applied = script.session(Purpose::Consume, 0).await.applied();
    let queues = applied.iter().filter(|change| matches!(change, Change::DeclareQueue(_)));
    assert_eq!(queues.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_has_none_of_it_is_not_asked() {
    let script = Script::new();
    script.state.change(|state| state.lacks = vec![Capability::DeadLetter, Capability::Exchanges]);
    let broker = Broker::connect(script.clone()).await.unwrap();
    let error = broker.declare(&whole()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(script.session(Purpose::Consume, 0).await.applied(), []);
}

#[tokio::test(start_paused = true)]
async fn a_replicated_queue_with_a_limit_of_the_brokers_is_a_conflict_with_a_way_out() {
    const LEDGER: ReplicatedQueue<String> = ReplicatedQueue::new("ledger");
    let differs = |change: &Change| {
        let error = Error::new(ErrorKind::Conflict, "declare")
            .because("it exists with another x-delivery-limit: asked for '5', it has none");
        matches!(change, Change::DeclareQueue(_)).then(|| Trouble::Fails(error))
    };
    let (broker, _) = broker(differs).await;
    let error = broker.declare(&Topology::new().with_queue(&LEDGER)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    for part in ["x-delivery-limit", "`passive`", "policy delivery-limit -1", "delete it"] {
        assert!(error.to_string().contains(part), "{part} is missing in {error}");
    }
}

/// No call is told then, so it goes to the log.
#[tokio::test(start_paused = true)]
async fn what_was_declared_by_hand_is_looked_for_on_each_connection_and_keeps_nothing_back() {
    let (broker, script) = Script::broker().await;
    broker.declare(&whole()).await.unwrap();
    script.state.change(|state| {
        let missing = |change: &Change| trouble_with_what_is_named(change, ErrorKind::NotFound);
        state.apply_trouble = Some(missing);
    });
    script.session(Purpose::Consume, 0).await.break_off();
    let next = script.session(Purpose::Consume, 1).await;
    broker.health().wait_for(|health| health.consuming.is_ready()).await.unwrap();
    let applied = next.applied();
    assert_eq!(looked_for(&applied).0.len(), 3, "{applied:?}");
    let queues = applied.iter().filter(|change| matches!(change, Change::DeclareQueue(_)));
    assert_eq!(queues.count(), 3, "{applied:?}");
}
