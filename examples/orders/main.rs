//! A restaurant that records every settlement: the same on every broker; only the URL differs.
//!
//! ```sh
//! cargo run --example orders
//! BROKER_URL=amqp091://guest:guest@localhost cargo run --example orders --features amqp091
//! BROKER_URL=amqp10://guest:guest@localhost cargo run --example orders --features amqp10
//! ```
//!
//! Its test uses the same URL:
//!
//! ```sh
//! cargo test --example orders
//! BROKER_URL=amqp10://guest:guest@localhost cargo test --example orders --features amqp10
//! ```
//!
//! `kitchen.rs` is the service, `scenario.rs` publishes the orders, `ledger.rs` records what happens.
#![allow(clippy::print_stdout)] // it prints the ledger

mod kitchen;
mod ledger;
mod scenario;
#[cfg(test)]
mod tests;

use std::time::Duration;

use enoki::Broker;

#[tokio::main]
async fn main() -> enoki::Result<()> {
    let broker = connect().await?;
    eprintln!("(carried by {})", broker.peer());
    let ledger = scenario::serve(&broker).await;
    broker.close(Duration::from_secs(5)).await;
    print!("{}", ledger?);
    Ok(())
}

/// The only function that knows the broker: the environment names it.
async fn connect() -> enoki::Result<Broker> {
    let url = std::env::var("BROKER_URL").unwrap_or_else(|_| "memory:".to_owned());
    enoki::connect(url).await
}
