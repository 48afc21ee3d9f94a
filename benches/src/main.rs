//! Side-by-side measurements: enoki, and the client library used as its README shows.
//!
//! ```sh
//! dev/brokers start rabbitmq-4 && eval "$(dev/brokers env)"
//! cargo run --release -p enoki-benches
//! ```
//!
//! Each round measures every contender once, in turn, so that a slow moment of the machine hits all
//! of them; what counts is the ratio of the medians.
#![allow(clippy::print_stdout)] // the figures are what it is for

mod bare_lapin;
mod with_enoki;

use std::{error::Error, time::Duration};

use bytes::Bytes;
use clap::Parser;

/// Measures enoki against the client library, on one broker, in one run.
#[derive(Debug, Parser)]
#[command(about)]
struct Arguments {
    /// The broker, as amqp091://…
    #[arg(long, env = "ENOKI_RABBITMQ_4")]
    url: Option<String>,
    /// Messages of each measurement.
    #[arg(long, default_value_t = 30_000)]
    messages: usize,
    /// Messages of each measurement in memory.
    #[arg(long, default_value_t = 1_000_000)]
    in_memory: usize,
    /// Rounds; the medians of them are printed.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Bytes of each body.
    #[arg(long, default_value_t = 1024)]
    body: usize,
}

/// One measurement: how much to do, on which queue.
#[derive(Debug, Clone)]
struct Load {
    url: String,
    queue: &'static str,
    messages: usize,
    body: Bytes,
}

/// Messages without an outcome, and deliveries without a settlement.
const OUTSTANDING: u16 = 256;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    // As a task, where programs work: the thread of `main` would be one more for two cores.
    tokio::spawn(measure(Arguments::parse())).await?
}

async fn measure(arguments: Arguments) -> Outcome<()> {
    let body = Bytes::from(vec![b'x'; arguments.body]);
    if let Some(url) = &arguments.url {
        let load = Load {
            url: url.clone(),
            queue: "enoki-benches",
            messages: arguments.messages,
            body: body.clone(),
        };
        against_lapin(&load, arguments.rounds).await?;
    } else {
        println!("no broker: give --url, or ENOKI_RABBITMQ_4");
    }
    let load = Load {
        url: "memory:".to_owned(),
        queue: "enoki-benches",
        messages: arguments.in_memory,
        body,
    };
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds {
        rounds.push(with_enoki::publish_handle_ack(&load).await?);
    }
    println!(
        "in memory, {} messages of {} bytes, {} rounds",
        load.messages,
        load.body.len(),
        arguments.rounds
    );
    println!("  publish → handle → ack      {:>9.0}/s", rate(load.messages, median(&mut rounds)));
    Ok(())
}

async fn against_lapin(load: &Load, rounds: usize) -> Outcome<()> {
    let mut publish = (Vec::new(), Vec::new());
    let mut consume = (Vec::new(), Vec::new());
    let broker = with_enoki::peer(load).await?;
    for _ in 0..rounds {
        bare_lapin::reset(load).await?;
        publish.0.push(bare_lapin::publish(load).await?);
        consume.0.push(bare_lapin::consume(load).await?);
        publish.1.push(with_enoki::publish(load).await?);
        consume.1.push(with_enoki::consume(load).await?);
    }
    bare_lapin::remove(load).await?;
    println!(
        "{broker}, durable classic queue, {} persistent messages of {} bytes, {rounds} rounds",
        load.messages,
        load.body.len()
    );
    println!("                               bare lapin       enoki   ratio");
    print_row("publish, 256 without confirm", load, &mut publish);
    print_row("consume, ack each, prefetch 256", load, &mut consume);
    Ok(())
}

fn print_row(name: &str, load: &Load, (lapin, enoki): &mut (Vec<Duration>, Vec<Duration>)) {
    let (lapin, enoki) = (rate(load.messages, median(lapin)), rate(load.messages, median(enoki)));
    println!("  {name:<31} {lapin:>7.0}/s {enoki:>9.0}/s {:>7.2}", enoki / lapin);
}

fn median(rounds: &mut [Duration]) -> Duration {
    rounds.sort();
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

fn rate(messages: usize, time: Duration) -> f64 {
    messages as f64 / time.as_secs_f64()
}
