//! The history that a dead message carries, and where it may not go.

use std::time::Duration;

use enoki_core::{
    DeadLetter, ExchangeKind, Message, Outcome, QueueSpec, Table, Value, transport::Delivered,
};
use tokio::time::advance;

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_rejected_message_tells_where_and_why_it_died() {
    let mut bench = Bench::new().await;
    let shop = bench.exchange("shop", ExchangeKind::Topic).await;
    let lost = bench.exchange("lost", ExchangeKind::Fanout).await;
    bench.declare("billing", |q| die_to(q, "lost", None)).await;
    bench.queue("dead").await;
    bench.bind(&shop, to_queue("billing"), "order.*").await;
    bench.bind(&lost, to_queue("dead"), "").await;
    let mut message = expiring("order", Duration::from_secs(7));
    message.headers.insert("region", "eu").unwrap();
    bench.publish("shop", "order.placed", message).await;
    reject(&bench, "billing").await;

    let dead = take(&bench, "dead").await;
    assert_eq!((dead.exchange.as_str(), dead.routing_key.as_str()), ("lost", "order.placed"));
    assert_eq!(body(&dead), "order");
    assert_eq!(text(&dead.message.headers, "region"), "eu");
    for (name, expected) in [
        ("x-first-death-queue", "billing"),
        ("x-first-death-reason", "rejected"),
        ("x-first-death-exchange", "shop"),
        ("x-last-death-queue", "billing"),
        ("x-last-death-reason", "rejected"),
        ("x-last-death-exchange", "shop"),
    ] {
        assert_eq!(text(&dead.message.headers, name), expected, "{name}");
    }
    let [death] = &deaths(&dead)[..] else { panic!("{dead:?}") };
    assert_eq!(text(death, "queue"), "billing");
    assert_eq!(text(death, "reason"), "rejected");
    assert_eq!(text(death, "exchange"), "shop");
    assert_eq!(death.get("routing-keys"), Some(&Value::List(vec!["order.placed".into()])));
    assert_eq!(death.get("count"), Some(&Value::Int(1)));
    assert!(matches!(death.get("time"), Some(Value::Timestamp(_))));
    // It must not expire again where it is kept.
    assert_eq!(text(death, "original-expiration"), "7000");
    assert_eq!(dead.message.properties.expiration, None);
}

#[tokio::test(start_paused = true)]
async fn the_latest_death_comes_first_and_equal_deaths_are_counted() {
    let mut bench = Bench::new().await;
    bench.declare("work", |q| die_to(q, "", Some("wait"))).await;
    bench
        .declare("wait", |q| {
            q.message_ttl = Some(SECOND);
            die_to(q, "", Some("work"));
        })
        .await;
    bench.send("work", "again and again").await;
    for _ in 0..3 {
        reject(&bench, "work").await;
        advance(SECOND).await;
    }
    let delivered = take(&bench, "work").await;
    let counts: Vec<_> = deaths(&delivered)
        .iter()
        .map(|death| {
            let count = death.get("count").and_then(Value::as_int).unwrap();
            (text(death, "queue").to_owned(), text(death, "reason").to_owned(), count)
        })
        .collect();
    assert_eq!(
        counts,
        [("wait".into(), "expired".into(), 3), ("work".into(), "rejected".into(), 3)]
    );
    assert_eq!(text(&delivered.message.headers, "x-first-death-queue"), "work");
    assert_eq!(text(&delivered.message.headers, "x-last-death-queue"), "wait");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_would_go_round_for_ever_is_dropped() {
    let mut bench = Bench::new().await;
    for (name, target) in [("a", "b"), ("b", "c"), ("c", "a"), ("self", "self")] {
        bench
            .declare(name, |q| {
                q.message_ttl = Some(SECOND);
                die_to(q, "", Some(target));
            })
            .await;
    }
    bench.send("a", "round").await;
    bench.send("self", "round").await;
    for (seconds, expected) in
        [(0, [1, 0, 0, 1]), (1, [0, 1, 0, 0]), (2, [0, 0, 1, 0]), (3, [0; 4])]
    {
        for (name, expected) in ["a", "b", "c", "self"].into_iter().zip(expected) {
            assert_eq!(bench.depth(name).await, Some(expected), "{name} after {seconds} s");
        }
        advance(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_circle_of_messages_that_die_at_once_comes_to_an_end() {
    let mut bench = Bench::new().await;
    for (name, target) in [("a", "b"), ("b", "a")] {
        bench
            .declare(name, |q| {
                q.max_length = Some(0);
                die_to(q, "", Some(target));
            })
            .await;
    }
    bench.send("a", "hot").await;
    assert_eq!((bench.depth("a").await, bench.depth("b").await), (Some(0), Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_message_says_that_there_were_too_many() {
    let mut bench = Bench::new().await;
    bench.queue("dead").await;
    bench
        .declare("q", |q| {
            q.max_length = Some(1);
            die_to(q, "", Some("dead"));
        })
        .await;
    bench.send("q", "old").await;
    bench.send("q", "new").await;
    let dead = take(&bench, "dead").await;
    assert_eq!(body(&dead), "old");
    assert_eq!(text(&dead.message.headers, "x-first-death-reason"), "maxlen");
}

#[tokio::test(start_paused = true)]
async fn dead_letters_keep_their_order() {
    let mut bench = Bench::new().await;
    bench.queue("dead").await;
    bench
        .declare("q", |q| {
            q.message_ttl = Some(SECOND);
            die_to(q, "", Some("dead"));
        })
        .await;
    for body in ["a", "b", "c"] {
        bench.send("q", body).await;
    }
    let mut receiver = bench.consume("dead", 10).await;
    advance(SECOND).await;
    assert_eq!(all(&mut receiver).await, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_message_without_a_place_to_go_is_gone_and_nothing_else() {
    let mut bench = Bench::new().await;
    bench.declare("q", |q| die_to(q, "nowhere", None)).await;
    bench.send("q", "a").await;
    bench.send("q", "b").await;
    reject(&bench, "q").await;
    assert_eq!(bench.depth("q").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn the_other_queues_of_a_message_do_not_see_its_death() {
    let mut bench = Bench::new().await;
    let news = bench.exchange("news", ExchangeKind::Fanout).await;
    bench.queue("dead").await;
    bench.declare("one", |q| die_to(q, "", Some("dead"))).await;
    bench.queue("two").await;
    bench.bind(&news, to_queue("one"), "").await;
    bench.bind(&news, to_queue("two"), "").await;
    bench.publish("news", "", Message::new("a")).await;
    reject(&bench, "one").await;
    assert!(take(&bench, "two").await.message.headers.is_empty());
}

fn die_to(queue: &mut QueueSpec, exchange: &str, key: Option<&str>) {
    queue.dead_letter = Some(DeadLetter { exchange: short(exchange), routing_key: key.map(short) });
}

async fn reject(bench: &Bench, queue: &str) {
    let mut receiver = bench.consume(queue, 1).await;
    let delivered = next(&mut receiver).await;
    settle(&mut receiver, &delivered, Outcome::Reject);
}

async fn take(bench: &Bench, queue: &str) -> Delivered {
    let mut receiver = bench.consume(queue, 1).await;
    let delivered = next(&mut receiver).await;
    settle(&mut receiver, &delivered, Outcome::Ack);
    delivered
}

fn deaths(delivered: &Delivered) -> Vec<Table> {
    let deaths = delivered.message.headers.get("x-death").and_then(Value::as_list).unwrap();
    deaths.iter().map(|death| death.as_table().unwrap().clone()).collect()
}

fn text<'a>(table: &'a Table, name: &str) -> &'a str {
    table.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no {name} in {table:?}"))
}

const SECOND: Duration = Duration::from_secs(1);
