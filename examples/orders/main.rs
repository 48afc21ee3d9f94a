//! A restaurant whose every settlement is written down: the same on every broker, by the URL alone.
//!
//! ```sh
//! cargo run --example orders
//! BROKER_URL=amqp091://guest:guest@localhost cargo run --example orders --features amqp091
//! BROKER_URL=amqp10://guest:guest@localhost cargo run --example orders --features amqp10
//! ```
//!
//! Its test goes where the URL leads, too:
//!
//! ```sh
//! cargo test --example orders
//! BROKER_URL=amqp10://guest:guest@localhost cargo test --example orders --features amqp10
//! ```
//!
//! `kitchen.rs` is the service, `evening.rs` what happens to it, `ledger.rs` what is written down.
#![allow(clippy::print_stdout)] // showing the ledger is what it is for

mod evening;
mod kitchen;
mod ledger;
#[cfg(test)]
mod tests;

use std::time::Duration;

use enoki::Broker;

#[tokio::main]
async fn main() -> enoki::Result<()> {
    let broker = connect().await?;
    eprintln!("(carried by {})", broker.peer());
    let ledger = evening::serve(&broker).await;
    broker.close(Duration::from_secs(5)).await;
    print!("{}", ledger?);
    Ok(())
}

/// Only this knows the broker, and reads it from the environment.
async fn connect() -> enoki::Result<Broker> {
    let url = std::env::var("BROKER_URL").unwrap_or_else(|_| "memory:".to_owned());
    enoki::connect(url).await
}
