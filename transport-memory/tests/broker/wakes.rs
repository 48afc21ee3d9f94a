//! No wake-up is lost, whichever receiver or sender waits.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use enoki_core::{
    Message, Outcome,
    transport::{Outgoing, Settle},
};
use enoki_transport_memory::MemoryTransport;
use tokio::time::timeout;

use super::support::*;

/// Small prefetches, many waits: a lost wake-up shows as a standstill.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_senders_and_receivers_come_to_an_end() {
    const SENDERS: u64 = 4;
    const EACH: u64 = 5_000;
    let bench = Bench::with_messages("q", &[]).await;
    let (count, mut counted) = tokio::sync::mpsc::unbounded_channel();
    for prefetch in [1, 1, 2, 7] {
        let mut receiver = bench.consume("q", prefetch).await;
        let count = count.clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            let mut turn = 0;
            while receiver.receive(&mut taken, 3).await.is_ok() {
                for delivered in taken.drain(..) {
                    turn += 1;
                    let again = turn % 5 == 0 && !delivered.redelivered;
                    let outcome = if again { Outcome::Requeue } else { Outcome::Ack };
                    receiver.settle(&[Settle::new(delivered.tag, outcome)]);
                    if !again {
                        let _ = count.send(());
                    }
                }
            }
        });
    }
    for _ in 0..SENDERS {
        let mut sender = bench.session.sender(window(3)).await.unwrap();
        tokio::spawn(async move {
            let mut outgoing = VecDeque::new();
            let mut outcomes = Vec::new();
            for id in 0..EACH {
                outgoing.push_back(Outgoing {
                    id,
                    exchange: short(""),
                    routing_key: short("q"),
                    mandatory: true,
                    message: Arc::new(Message::new("m")),
                });
                sender.submit(&mut outgoing).await.unwrap();
                if id % 3 == 0 {
                    sender.outcomes(&mut outcomes).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    for done in 0..SENDERS * EACH {
        let one = timeout(Duration::from_secs(120), counted.recv()).await;
        assert!(one.is_ok(), "a standstill after {done}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_loses_no_message_and_no_wake() {
    let mut bench = Bench::with_messages("q", &[]).await;
    let mut receiver = bench.consume("q", 1).await;
    for round in 0..100 {
        let mut into = Vec::new();
        assert!(timeout(Duration::ZERO, receiver.receive(&mut into, 1)).await.is_err());
        bench.send("q", "a").await;
        if round % 2 == 0 {
            // Cancelled after the wake, before it was noticed.
            drop(receiver.receive(&mut into, 1));
        }
        let a = next(&mut receiver).await;
        settle(&mut receiver, &a, Outcome::Ack);
    }
}

#[test]
fn runtimes_with_clocks_of_their_own_share_a_broker() {
    let transport = MemoryTransport::isolated();
    let other = transport.clone();
    let runtime = |paused: bool| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(paused)
            .build()
            .unwrap()
    };
    let receiving = std::thread::spawn(move || {
        runtime(false).block_on(async {
            let mut bench = Bench::on(other).await;
            bench.queue("q").await;
            let mut receiver = bench.consume("q", 1).await;
            body(&next(&mut receiver).await)
        })
    });
    runtime(true).block_on(async {
        let mut bench = Bench::on(transport).await;
        while !bench
            .session
            .apply(&enoki_core::transport::Change::VerifyQueue(queue("q", |_| {})))
            .await
            .is_ok_and(|found| found.consumers > 0)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        bench.send("q", "across").await;
    });
    assert_eq!(receiving.join().unwrap(), "across");
}
