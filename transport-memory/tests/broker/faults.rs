//! The faults do what they say, so that a suite which passes with one is known to be blind.

use std::time::Duration;

use enoki_core::{
    DeadLetter, Message, Outcome,
    transport::{Change, PublishOutcome},
};
use enoki_transport_memory::{Fault, MemoryTransport, Version};
use tokio::time::timeout;

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_settlement_can_be_another() {
    for (fault, outcome, ready, dead, attempt) in [
        (None, Outcome::Requeue, 1, 0, 2),
        (Some(Fault::RequeueIsAck), Outcome::Requeue, 0, 0, 0),
        (None, Outcome::Reject, 0, 1, 0),
        (Some(Fault::RejectIsAck), Outcome::Reject, 0, 0, 0),
        (None, Outcome::Release, 1, 0, 1),
        (Some(Fault::ReleaseIsCounted), Outcome::Release, 1, 0, 2),
        (Some(Fault::RedeliveredIsLost), Outcome::Requeue, 1, 0, 1),
    ] {
        let mut bench = broken(fault).await;
        bench.queue("dead").await;
        bench
            .declare("q", |q| {
                let routing_key = Some(short("dead"));
                q.dead_letter = Some(DeadLetter { exchange: short(""), routing_key });
            })
            .await;
        bench.send("q", "a").await;
        let mut receiver = bench.consume("q", 1).await;
        let a = next(&mut receiver).await;
        receiver.stop().await.unwrap();
        settle(&mut receiver, &a, outcome);
        assert_eq!(bench.depth("q").await, Some(ready), "{fault:?}");
        assert_eq!(bench.depth("dead").await, Some(dead), "{fault:?}");
        if ready > 0 {
            let mut receiver = bench.consume("q", 1).await;
            let a = next(&mut receiver).await;
            assert_eq!(a.attempt.number, attempt, "{fault:?}");
            assert_eq!(a.redelivered, fault != Some(Fault::RedeliveredIsLost));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unroutable_message_can_be_confirmed() {
    let mut bench = broken(Some(Fault::UnroutableIsConfirmed)).await;
    let outcome = bench.publish("", "nowhere", Message::new("m")).await;
    assert!(matches!(outcome, PublishOutcome::Confirmed));
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_message_can_be_lost() {
    let mut bench = broken(Some(Fault::MessagesAreLost)).await;
    bench.queue("q").await;
    bench.send("q", "a").await;
    assert_eq!(bench.depth("q").await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_can_be_lost() {
    let mut bench = broken(Some(Fault::ConfirmsAreLost)).await;
    bench.queue("q").await;
    let publish = bench.publish("", "q", Message::new("m"));
    assert!(timeout(Duration::from_secs(60), publish).await.is_err());
    let found = bench.apply(Change::VerifyQueue(queue("q", |_| {}))).await.unwrap();
    assert_eq!(found.messages, 1);
}

#[tokio::test(start_paused = true)]
async fn prefetch_and_order_can_be_ignored() {
    let faults = MemoryTransport::isolated()
        .with_fault(Fault::PrefetchIsIgnored)
        .with_fault(Fault::OrderIsReversed);
    let mut bench = Bench::on(faults).await;
    bench.queue("q").await;
    for body in ["a", "b", "c"] {
        bench.send("q", body).await;
    }
    let mut receiver = bench.consume("q", 1).await;
    assert_eq!(all(&mut receiver).await, ["c", "b", "a"]);
}

async fn broken(fault: Option<Fault>) -> Bench {
    let transport = MemoryTransport::isolated_as(Version::Reference);
    Bench::on(match fault {
        None => transport,
        Some(fault) => transport.with_fault(fault),
    })
    .await
}
