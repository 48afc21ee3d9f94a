//! Declarations: what is equal, what is in the way, and whose it is.

use std::time::Duration;

use enoki_core::{
    BindingSpec, ErrorKind, ExchangeKind, ExchangeSpec, QueueKind, ShortStr, Value,
    transport::{Change, Found},
};

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_conflict_says_what_differs_with_both_values() {
    let mut bench = Bench::new().await;
    bench
        .declare("q", |q| {
            q.max_length = Some(10);
            q.arguments.set(ShortStr::from_static("x-note"), "a");
        })
        .await;
    let other = queue("q", |q| {
        q.durable = false;
        q.max_length = Some(20);
        q.message_ttl = Some(Duration::from_secs(1));
    });
    for change in [Change::DeclareQueue(other.clone()), Change::VerifyQueue(other)] {
        let error = bench.apply(change).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let text = error.to_string();
        for part in [
            "queue \"q\"",
            "durable is true, not false",
            "x-max-length is 10, not 20",
            "x-message-ttl is absent, not 1000",
            "x-note is \"a\", not absent",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
    bench.exchange("e", ExchangeKind::Topic).await;
    let error = bench
        .apply(Change::DeclareExchange(ExchangeSpec::new("e", ExchangeKind::Direct).unwrap()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("kind is \"topic\", not \"direct\""), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_field_and_the_argument_that_it_stands_for_are_equal() {
    let mut bench = Bench::new().await;
    bench.declare("q", |q| q.max_length = Some(1)).await;
    bench
        .declare("q", |q| {
            q.arguments.set(ShortStr::from_static("x-max-length"), 1);
        })
        .await;
    bench
        .declare("by argument", |q| {
            q.arguments.set(ShortStr::from_static("x-max-length"), 1);
        })
        .await;
    for body in ["a", "b"] {
        bench.send("by argument", body).await;
    }
    assert_eq!(bench.depth("by argument").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn verifying_finds_and_creates_nothing() {
    let bench = Bench::new().await;
    let exchange = ExchangeSpec::new("e", ExchangeKind::Topic).unwrap();
    for _ in 0..2 {
        for change in [
            Change::VerifyQueue(queue("q", |_| {})),
            Change::VerifyExchange(exchange.clone()),
            Change::PurgeQueue(short("q")),
            Change::Bind(BindingSpec::new(&exchange, to_queue("q"), "k").unwrap()),
        ] {
            assert_eq!(bench.apply(change).await.unwrap_err().kind(), ErrorKind::NotFound);
        }
        for change in [
            Change::DeleteQueue(short("q")),
            Change::DeleteExchange(short("e")),
            Change::Unbind(BindingSpec::new(&exchange, to_queue("q"), "k").unwrap()),
        ] {
            assert_eq!(bench.apply(change).await.unwrap(), Found::default());
        }
    }
    for (name, kind) in [
        ("", ExchangeKind::Direct),
        ("amq.direct", ExchangeKind::Direct),
        ("amq.fanout", ExchangeKind::Fanout),
        ("amq.topic", ExchangeKind::Topic),
        ("amq.headers", ExchangeKind::Headers),
    ] {
        let spec = ExchangeSpec::existing(short(name), kind);
        bench.apply(Change::VerifyExchange(spec)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_declared_is_refused_with_the_reason() {
    let mut bench = Bench::new().await;
    bench.queue("q").await;
    let plugin = ExchangeKind::Plugin(short("x-consistent-hash"));
    let mut binding =
        BindingSpec::new(&ExchangeSpec::default_exchange(), to_queue("q"), "k").unwrap();
    let to_default = Change::Bind(binding.clone());
    binding.source = short("amq.headers");
    binding.arguments.set(ShortStr::from_static("x-match"), "some");
    for (change, kind, part) in [
        (
            Change::DeclareExchange(ExchangeSpec::new("spread", plugin).unwrap()),
            ErrorKind::Unsupported,
            "exchange \"spread\"",
        ),
        (
            Change::DeclareExchange(ExchangeSpec::existing(short("amq.new"), ExchangeKind::Topic)),
            ErrorKind::Denied,
            "belongs to the broker",
        ),
        (Change::DeleteExchange(short("amq.topic")), ErrorKind::Denied, "belongs to the broker"),
        (to_default, ErrorKind::Denied, "default exchange"),
        (Change::Bind(binding), ErrorKind::Configuration, "x-match"),
        (
            Change::DeclareQueue(queue("x", |q| {
                q.kind = QueueKind::Replicated;
                q.exclusive = true;
            })),
            ErrorKind::Configuration,
            "replicated",
        ),
        (
            Change::DeclareQueue(queue("x", |q| {
                q.arguments.set(ShortStr::from_static("x-message-ttl"), -1);
            })),
            ErrorKind::Configuration,
            "x-message-ttl is Int(-1)",
        ),
        (
            Change::DeclareQueue(queue("x", |q| {
                q.arguments.set(ShortStr::from_static("x-overflow"), "explode");
            })),
            ErrorKind::Configuration,
            "x-overflow",
        ),
        (
            Change::DeclareQueue(queue("x", |q| {
                let key = ShortStr::from_static("x-dead-letter-routing-key");
                q.arguments.set(key, Value::from("k"));
            })),
            ErrorKind::Configuration,
            "x-dead-letter-exchange",
        ),
    ] {
        let error = bench.apply(change.clone()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{change:?}: {error}");
        assert!(error.to_string().contains(part), "{part:?} is not in \"{error}\"");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_queue_is_its_sessions_and_goes_with_it() {
    let mut bench = Bench::new().await;
    let exchange = bench.exchange("e", ExchangeKind::Fanout).await;
    let mine = connect(&bench.transport).await;
    let spec = queue("mine", |q| q.exclusive = true);
    mine.apply(&Change::DeclareQueue(spec.clone())).await.unwrap();
    mine.apply(&Change::DeclareQueue(spec.clone())).await.unwrap();
    let mut receiver = mine.receiver(of(&short("mine"), 1)).await.unwrap();

    for change in [
        Change::DeclareQueue(spec.clone()),
        Change::VerifyQueue(spec.clone()),
        Change::PurgeQueue(short("mine")),
        Change::DeleteQueue(short("mine")),
        Change::Bind(BindingSpec::new(&exchange, to_queue("mine"), "").unwrap()),
    ] {
        let error = bench.apply(change).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("another session"), "{error}");
    }
    let error = bench.session.receiver(of(&short("mine"), 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    bench.send("mine", "each session may publish to it").await;
    next(&mut receiver).await;

    mine.close(tokio::time::Instant::now()).await;
    let error = bench.apply(Change::VerifyQueue(spec)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(matches!(end(&mut receiver).await, End::Lost(_)));
}

#[tokio::test(start_paused = true)]
async fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let mut bench = Bench::new().await;
    bench.declare("q", |q| q.auto_delete = true).await;
    assert_eq!(bench.depth("q").await, Some(0), "not before it had one");
    let mut first = bench.consume("q", 1).await;
    let second = bench.consume("q", 1).await;
    drop(second);
    assert_eq!(bench.depth("q").await, Some(0));
    bench.send("q", "a").await;
    first.stop().await.unwrap();
    assert_eq!(bench.depth("q").await, None);
    let a = next(&mut first).await;
    settle(&mut first, &a, enoki_core::Outcome::Requeue);
    assert!(matches!(end(&mut first).await, End::Stopped));
}

#[tokio::test(start_paused = true)]
async fn deleting_a_queue_cancels_its_consumers_and_leaves_their_session() {
    let bench = Bench::with_messages("q", &["a", "b"]).await;
    let mut receiver = bench.consume("q", 1).await;
    let found = bench.apply(Change::DeleteQueue(short("q"))).await.unwrap();
    assert_eq!(found, Found { messages: 1, consumers: 1 });
    let a = next(&mut receiver).await;
    assert_eq!(body(&a), "a", "it was under way");
    for _ in 0..2 {
        match end(&mut receiver).await {
            End::Cancelled(error) => {
                assert_eq!(error.to_string(), "consume queue \"q\": it was deleted");
            }
            other => panic!("{other:?}"),
        }
    }
    // A successor of the same name has nothing to do with it.
    bench.apply(Change::DeclareQueue(queue("q", |_| {}))).await.unwrap();
    settle(&mut receiver, &a, enoki_core::Outcome::Requeue);
    drop(receiver);
    assert_eq!(bench.depth("q").await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn purging_takes_what_waits_and_leaves_what_is_held() {
    let bench = Bench::with_messages("q", &["a", "b", "c"]).await;
    let receiver = bench.consume("q", 1).await;
    let found = bench.apply(Change::PurgeQueue(short("q"))).await.unwrap();
    assert_eq!(found, Found { messages: 2, consumers: 1 });
    drop(receiver);
    assert_eq!(bench.depth("q").await, Some(1));
}
