//! Where messages go.

use enoki_core::{
    BindingSpec, ErrorKind, ExchangeKind, ExchangeSpec, Message, ShortStr,
    transport::{Change, PublishOutcome},
};

use super::support::*;

#[tokio::test(start_paused = true)]
async fn exchanges_bound_in_a_circle_give_each_queue_one_copy() {
    let mut bench = Bench::new().await;
    bench.queue("q").await;
    let [a, b, c] = [
        bench.exchange("a", ExchangeKind::Fanout).await,
        bench.exchange("b", ExchangeKind::Topic).await,
        bench.exchange("c", ExchangeKind::Direct).await,
    ];
    bench.bind(&a, to_exchange("b"), "").await;
    bench.bind(&b, to_exchange("c"), "#").await;
    bench.bind(&c, to_exchange("a"), "k").await;
    bench.bind(&a, to_queue("q"), "").await;
    bench.bind(&b, to_queue("q"), "k").await;
    bench.bind(&b, to_queue("q"), "*").await;
    bench.bind(&c, to_queue("q"), "k").await;
    for (exchange, key, copies) in [("a", "k", 1), ("b", "k", 1), ("c", "k", 1), ("b", "x.y", 0)] {
        let before = bench.depth("q").await.unwrap();
        let outcome = bench.publish(exchange, key, Message::new("m")).await;
        assert_eq!(bench.depth("q").await.unwrap() - before, copies, "{exchange} {key}");
        assert_eq!(matches!(outcome, PublishOutcome::Confirmed), copies > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_exchange_cannot_route_goes_to_its_alternate() {
    let mut bench = Bench::new().await;
    for queue in ["routed", "rest", "last"] {
        bench.queue(queue).await;
    }
    let last = bench.exchange("last resort", ExchangeKind::Fanout).await;
    let mut rest = ExchangeSpec::new("rest", ExchangeKind::Direct).unwrap();
    rest.alternate = Some(short("last resort"));
    let mut main = ExchangeSpec::new("main", ExchangeKind::Direct).unwrap();
    main.alternate = Some(short("rest"));
    for spec in [&rest, &main] {
        bench.apply(Change::DeclareExchange(spec.clone())).await.unwrap();
    }
    bench.bind(&main, to_queue("routed"), "a").await;
    bench.bind(&rest, to_queue("rest"), "b").await;
    bench.bind(&last, to_queue("last"), "").await;
    for key in ["a", "b", "c"] {
        assert!(matches!(
            bench.publish("main", key, Message::new(key)).await,
            PublishOutcome::Confirmed
        ));
    }
    for (queue, expected) in [("routed", "a"), ("rest", "b"), ("last", "c")] {
        let mut receiver = bench.consume(queue, 10).await;
        assert_eq!(all(&mut receiver).await, [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_alternate_that_leads_back_ends_as_unroutable() {
    let mut bench = Bench::new().await;
    for (name, alternate) in [("a", "b"), ("b", "a")] {
        let mut spec = ExchangeSpec::new(name, ExchangeKind::Topic).unwrap();
        spec.alternate = Some(short(alternate));
        bench.apply(Change::DeclareExchange(spec)).await.unwrap();
    }
    let outcome = bench.publish("a", "k", Message::new("m")).await;
    assert!(matches!(outcome, PublishOutcome::Unroutable));
}

#[tokio::test(start_paused = true)]
async fn changes_of_the_topology_are_seen_by_the_next_message() {
    let mut bench = Bench::new().await;
    bench.queue("q").await;
    let shop = bench.exchange("shop", ExchangeKind::Topic).await;
    let binding = BindingSpec::new(&shop, to_queue("q"), "#").unwrap();
    let changes = [
        (None, false),
        (Some(Change::Bind(binding.clone())), true),
        (Some(Change::Unbind(binding.clone())), false),
        (Some(Change::Unbind(binding.clone())), false),
        (Some(Change::Bind(binding.clone())), true),
        (Some(Change::DeleteQueue(short("q"))), false),
        (Some(Change::DeclareQueue(queue("q", |_| {}))), false),
    ];
    for (change, is_routed) in changes {
        let label = format!("{change:?}");
        if let Some(change) = change {
            bench.apply(change).await.unwrap();
        }
        let outcome = bench.publish("shop", "k", Message::new("m")).await;
        assert_eq!(matches!(outcome, PublishOutcome::Confirmed), is_routed, "after {label}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_that_depends_on_headers_is_found_anew_for_each_message() {
    let mut bench = Bench::new().await;
    let prints = ExchangeSpec::existing(short("amq.headers"), ExchangeKind::Headers);
    let front = bench.exchange("front", ExchangeKind::Fanout).await;
    bench.bind(&front, to_exchange("amq.headers"), "").await;
    for region in ["eu", "us"] {
        bench.queue(region).await;
        let mut binding = BindingSpec::new(&prints, to_queue(region), "").unwrap();
        binding.arguments.set(ShortStr::from_static("region"), region);
        bench.apply(Change::Bind(binding)).await.unwrap();
    }
    for region in ["eu", "us", "eu"] {
        let mut message = Message::new(region);
        message.headers.set(ShortStr::from_static("region"), region);
        bench.publish("front", "", message).await;
    }
    assert_eq!((bench.depth("eu").await, bench.depth("us").await), (Some(2), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_says_by_what() {
    let mut bench = Bench::new().await;
    let mut inner = ExchangeSpec::new("inner", ExchangeKind::Fanout).unwrap();
    inner.internal = true;
    bench.apply(Change::DeclareExchange(inner)).await.unwrap();
    for (exchange, kind, text) in [
        ("nowhere", ErrorKind::NotFound, "publish exchange \"nowhere\": it does not exist"),
        ("inner", ErrorKind::Denied, "publish exchange \"inner\": it is internal"),
    ] {
        match bench.publish(exchange, "k", Message::new("m")).await {
            PublishOutcome::Rejected(error) => {
                assert_eq!(error.kind(), kind);
                assert!(error.to_string().starts_with(text), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_auto_delete_exchange_goes_with_its_last_binding_and_takes_its_sources_along() {
    let mut bench = Bench::new().await;
    let fanout = |name: &str| ExchangeSpec::existing(short(name), ExchangeKind::Fanout);
    bench.queue("q").await;
    for name in ["a", "b"] {
        let mut spec = ExchangeSpec::new(name, ExchangeKind::Fanout).unwrap();
        spec.auto_delete = true;
        bench.apply(Change::DeclareExchange(spec)).await.unwrap();
    }
    let exists = async |bench: &Bench, name: &str| {
        let mut spec = ExchangeSpec::new(name, ExchangeKind::Fanout).unwrap();
        spec.auto_delete = true;
        bench.apply(Change::VerifyExchange(spec)).await.is_ok()
    };
    bench.bind(&fanout("amq.fanout"), to_queue("q"), "").await;
    let elsewhere = BindingSpec::new(&fanout("amq.fanout"), to_queue("q"), "").unwrap();
    bench.apply(Change::Unbind(elsewhere)).await.unwrap();
    assert!(exists(&bench, "a").await, "it does not go before it had a binding");
    bench.bind(&fanout("a"), to_exchange("b"), "").await;
    bench.bind(&fanout("b"), to_queue("q"), "").await;
    bench.apply(Change::DeleteQueue(short("q"))).await.unwrap();
    assert!(!exists(&bench, "b").await);
    assert!(!exists(&bench, "a").await);
}
