//! Settlement, attempts and places.

use enoki_core::{Counted, Outcome};

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_requeued_message_goes_back_to_its_place_and_says_so() {
    let mut bench = Bench::new().await;
    bench.queue("q").await;
    for body in ["a", "b", "c"] {
        bench.send("q", body).await;
    }
    let mut receiver = bench.consume("q", 2).await;
    let (a, b) = (next(&mut receiver).await, next(&mut receiver).await);
    assert_eq!((body(&a), body(&b)), ("a".into(), "b".into()));
    assert!(!a.redelivered);
    assert_eq!((a.attempt.number, a.attempt.counted), (1, Counted::ByBroker));

    settle(&mut receiver, &a, Outcome::Requeue);
    let a = next(&mut receiver).await;
    assert_eq!((body(&a).as_str(), a.redelivered, a.attempt.number), ("a", true, 2));

    settle(&mut receiver, &a, Outcome::Release);
    let a = next(&mut receiver).await;
    assert_eq!((body(&a).as_str(), a.redelivered, a.attempt.number), ("a", true, 2));
}
