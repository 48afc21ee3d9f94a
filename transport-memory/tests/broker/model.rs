//! The broker against a model that is too simple to be wrong: a list, searched from its start.

use enoki_core::{
    Outcome,
    transport::{Delivered, Receiver},
};
use proptest::prelude::*;
use tokio::time::Instant;

use super::support::*;

#[derive(Debug, Clone)]
enum Step {
    Publish(u8),
    Receive { receiver: usize, max: usize },
    Settle { receiver: usize, which: usize, outcome: Outcome },
    Reopen { receiver: usize, prefetch: u16 },
    DropConnections,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Ack),
        3 => Just(Outcome::Requeue),
        2 => Just(Outcome::Release),
        1 => Just(Outcome::Reject),
    ];
    prop_oneof![
        6 => (1..5_u8).prop_map(Step::Publish),
        6 => (0..RECEIVERS, 1..4_usize)
            .prop_map(|(receiver, max)| Step::Receive { receiver, max }),
        8 => (0..RECEIVERS, 0..8_usize, outcome)
            .prop_map(|(receiver, which, outcome)| Step::Settle { receiver, which, outcome }),
        1 => (0..RECEIVERS, 1..5_u16)
            .prop_map(|(receiver, prefetch)| Step::Reopen { receiver, prefetch }),
        1 => Just(Step::DropConnections),
    ]
}

/// A message as the model knows it; its place is its number.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Known {
    number: u64,
    failures: u32,
    redelivered: bool,
}

/// What waits, in order, and who holds what.
#[derive(Default)]
struct Model {
    published: u64,
    ready: Vec<Known>,
    held: [Vec<Known>; RECEIVERS],
    prefetch: [usize; RECEIVERS],
    /// Whose turn it is, first to last: those with room.
    turns: Vec<usize>,
}

impl Model {
    fn dispatch(&mut self) {
        while !self.ready.is_empty() && !self.turns.is_empty() {
            let receiver = self.turns.remove(0);
            let message = self.ready.remove(0);
            self.held[receiver].push(message);
            self.give_turn(receiver);
        }
    }

    fn give_turn(&mut self, receiver: usize) {
        let has_room = self.held[receiver].len() < self.prefetch[receiver];
        if has_room && !self.turns.contains(&receiver) {
            self.turns.push(receiver);
        }
    }

    fn put_back(&mut self, message: Known, failed: bool) {
        let failures = message.failures + u32::from(failed);
        if failures > LIMIT {
            return;
        }
        self.ready.push(Known { failures, redelivered: true, ..message });
        self.ready.sort_by_key(|message| message.number);
    }

    fn publish(&mut self) {
        let number = self.published;
        self.published += 1;
        self.ready.push(Known { number, failures: 0, redelivered: false });
        self.dispatch();
    }

    fn settle(&mut self, receiver: usize, number: u64, outcome: Outcome) {
        let at = self.held[receiver].iter().position(|held| held.number == number).unwrap();
        let message = self.held[receiver].remove(at);
        match outcome {
            Outcome::Requeue => self.put_back(message, true),
            Outcome::Release => self.put_back(message, false),
            _ => {}
        }
        self.give_turn(receiver);
        self.dispatch();
    }

    fn close(&mut self, receivers: impl Iterator<Item = usize> + Clone) {
        self.turns.retain(|turn| !receivers.clone().any(|receiver| receiver == *turn));
        for receiver in receivers {
            for message in std::mem::take(&mut self.held[receiver]) {
                self.put_back(message, true);
            }
        }
        self.dispatch();
    }

    fn open(&mut self, receiver: usize, prefetch: u16) {
        self.prefetch[receiver] = prefetch.into();
        self.give_turn(receiver);
        self.dispatch();
    }
}

/// The real one, and what its receivers gave.
struct Real {
    bench: Bench,
    receivers: Vec<Box<dyn Receiver>>,
    given: Vec<Vec<Delivered>>,
}

async fn run(steps: Vec<Step>) {
    let mut model = Model::default();
    let mut bench = Bench::new().await;
    bench.declare("q", |q| q.delivery_limit = Some(LIMIT)).await;
    let mut real = Real { bench, receivers: Vec::new(), given: vec![Vec::new(); RECEIVERS] };
    for receiver in 0..RECEIVERS {
        real.receivers.push(real.bench.consume("q", 2).await);
        model.open(receiver, 2);
    }
    for step in steps {
        match step {
            Step::Publish(count) => {
                for _ in 0..count {
                    real.bench.send("q", &model.published.to_string()).await;
                    model.publish();
                }
            }
            Step::Receive { receiver, max } => receive(&mut real, receiver, max).await,
            Step::Settle { receiver, which, outcome } => {
                let given = &mut real.given[receiver];
                if given.is_empty() {
                    continue;
                }
                let delivered = given.remove(which % given.len());
                settle(&mut real.receivers[receiver], &delivered, outcome);
                model.settle(receiver, number(&delivered), outcome);
            }
            Step::Reopen { receiver, prefetch } => {
                real.receivers[receiver].close().await.unwrap();
                model.close([receiver].into_iter());
                real.given[receiver].clear();
                real.receivers[receiver] = real.bench.consume("q", prefetch).await;
                model.open(receiver, prefetch);
            }
            Step::DropConnections => {
                real.bench.transport.drop_connections();
                model.close(0..RECEIVERS);
                real.bench.reconnect().await;
                for receiver in 0..RECEIVERS {
                    real.given[receiver].clear();
                    real.receivers[receiver] = real.bench.consume("q", 2).await;
                    model.open(receiver, 2);
                }
            }
        }
        assert_eq!(real.bench.depth("q").await, Some(model.ready.len() as u64));
        for (receiver, given) in real.given.iter().enumerate() {
            let known: Vec<_> = given.iter().map(known).collect();
            assert!(
                known.iter().all(|message| model.held[receiver].contains(message)),
                "{known:?} is not in {:?}",
                model.held[receiver]
            );
        }
    }
    // At the end each receiver takes its messages, and exactly those.
    for receiver in 0..RECEIVERS {
        receive(&mut real, receiver, usize::MAX).await;
        let mut known: Vec<_> = real.given[receiver].iter().map(known).collect();
        known.sort_by_key(|message| message.number);
        model.held[receiver].sort_by_key(|message| message.number);
        assert_eq!(known, model.held[receiver]);
    }
}

/// Takes what is there, and does not wait.
async fn receive(real: &mut Real, receiver: usize, max: usize) {
    let receiving = real.receivers[receiver].receive(&mut real.given[receiver], max);
    let _ = tokio::time::timeout_at(Instant::now(), receiving).await;
}

fn number(delivered: &Delivered) -> u64 {
    body(delivered).parse().unwrap()
}

fn known(delivered: &Delivered) -> Known {
    Known {
        number: number(delivered),
        failures: delivered.attempt.number - 1,
        redelivered: delivered.redelivered,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_broker_agrees_with_a_list(steps in prop::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(steps));
    }
}

const RECEIVERS: usize = 3;
const LIMIT: u32 = 3;
