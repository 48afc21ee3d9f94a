//! The life of one failing message: tried again later, a limited number of times, and then kept with its cause.
//!
//! ```sh
//! cargo run --example retry_and_dead_letter
//! BROKER_URL=amqp091://guest:guest@localhost cargo run --example retry_and_dead_letter --features amqp091
//! BROKER_URL=amqp10://guest:guest@localhost cargo run --example retry_and_dead_letter --features amqp10
//! ```
//!
//! A good order is billed while a bad one waits for its next attempt. After its last attempt the bad one is a
//! dead letter, and its headers say why. Then it is published again, and starts with attempt 1.
#![allow(clippy::print_stdout)] // it prints what happens

use std::time::{Duration, Instant};

use enoki::{
    Body, Failure, Outcome, Service, State, WorkQueue,
    consume::{Attempt, Handler, OnError, Retry},
    message::Value,
};

const BILLING: WorkQueue<u32> = WorkQueue::new("retry-example.billing");
/// The queue that is declared for dead letters where their queue has no place for them.
const DEAD: WorkQueue<u32> = WorkQueue::new("retry-example.billing.dead");

/// Four attempts, 200, 400 and 800 ms apart: short, so that the example ends soon.
const POLICY: Retry = OnError::retry().attempts(4).first(Duration::from_millis(200));

async fn bill(
    State(began): State<Instant>,
    Body(cents): Body<u32>,
    attempt: Attempt,
) -> Result<(), Failure> {
    let after = began.elapsed().as_secs_f32();
    println!("{after:.1} s: {cents} cents, attempt {}", attempt.number);
    match cents {
        0 => Err(Failure::new("there is nothing to pay")),
        _ => Ok(()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> enoki::Result<()> {
    let url = std::env::var("BROKER_URL").unwrap_or("memory:".into());
    let broker = enoki::connect(url).await?;
    println!("kept until the next attempt by: {}", broker.delayed_by(&BILLING)?);

    let service = Service::new("billing", broker.clone())
        .state(Instant::now())
        .consume(&BILLING, bill.concurrency(1).on_error(POLICY))
        .start()
        .await?;
    let orders = broker.publisher(&BILLING.route()).await?;
    orders.publish(&0).await?; // can never be billed
    orders.publish(&850).await?; // need not wait for it

    let mut dead = broker.subscribe(&DEAD, 1).await?;
    for again in [true, false] {
        let Some(letter) = dead.next().await? else { break };
        println!("a dead letter:");
        for (name, value) in letter.message().headers.iter() {
            // The names of hosts and the times differ from run to run.
            if let Value::String(text) = value
                && name.as_str() != "enoki-host"
            {
                println!("  {}: {text:?}", name.as_str());
            }
        }
        if again {
            println!("published again:");
            orders.forward(letter.envelope()).await?;
        }
        letter.settle(Outcome::Ack);
    }

    dead.stop(Duration::from_secs(5)).await?;
    service.stop(Duration::from_secs(5)).await?;
    broker.delete_queue(&DEAD).await?;
    broker.delete_queue(&BILLING).await
}
