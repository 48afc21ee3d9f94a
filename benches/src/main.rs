//! Side-by-side measurements: enoki, and the client library used as its README shows.
//!
//! ```sh
//! dev/brokers start rabbitmq-4 && eval "$(dev/brokers env)"
//! cargo run --release -p enoki-benches
//! ```
//!
//! Each round measures every contender once, in turn, so that a slow moment of the machine hits all
//! of them; what counts is the ratio of the medians.
#![allow(clippy::print_stdout)] // it prints the figures

mod bare_fe2o3;
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
    #[arg(long, default_value_t = 50_000)]
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
        against_fe2o3(&load, arguments.rounds).await?;
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

/// AMQP 0-9-1, beside lapin.
async fn against_lapin(load: &Load, rounds: usize) -> Outcome<()> {
    let (mut publish, mut consume) = (Pair::default(), Pair::default());
    for _ in 0..rounds {
        bare_lapin::reset(load).await?;
        publish.bare.push(bare_lapin::publish(load).await?);
        consume.bare.push(bare_lapin::consume(load).await?);
        publish.enoki.push(with_enoki::publish(load).await?);
        consume.enoki.push(with_enoki::consume(load).await?);
    }
    bare_lapin::remove(load).await?;
    print("AMQP 0-9-1", "bare lapin", load, rounds, &mut publish, &mut consume).await
}

/// AMQP 1.0, beside fe2o3-amqp.
async fn against_fe2o3(load: &Load, rounds: usize) -> Outcome<()> {
    let ours = Load { url: load.url.replacen("amqp091://", "amqp10://", 1), ..load.clone() };
    let (mut publish, mut consume) = (Pair::default(), Pair::default());
    for _ in 0..rounds {
        bare_lapin::reset(load).await?;
        publish.bare.push(bare_fe2o3::publish(load).await?);
        consume.bare.push(bare_fe2o3::consume(load).await?);
        publish.enoki.push(with_enoki::publish(&ours).await?);
        consume.enoki.push(with_enoki::consume(&ours).await?);
    }
    bare_lapin::remove(load).await?;
    print("AMQP 1.0", "bare fe2o3", &ours, rounds, &mut publish, &mut consume).await
}

/// The rounds of the two that are compared.
#[derive(Default)]
struct Pair {
    bare: Vec<Duration>,
    enoki: Vec<Duration>,
}

async fn print(
    protocol: &str,
    bare: &str,
    load: &Load,
    rounds: usize,
    publish: &mut Pair,
    consume: &mut Pair,
) -> Outcome<()> {
    let (broker, Load { messages, body, .. }) = (with_enoki::peer(load).await?, load);
    println!(
        "{broker} over {protocol}, durable classic queue, {messages} persistent messages of {} bytes, {rounds} rounds",
        body.len()
    );
    println!("  {:31} {bare:>10} {:>11} {:>7}", "", "enoki", "ratio");
    print_row("publish, 256 without confirm", load, publish);
    print_row("consume, ack each, prefetch 256", load, consume);
    Ok(())
}

fn print_row(name: &str, load: &Load, Pair { bare, enoki }: &mut Pair) {
    let (bare, enoki) = (rate(load.messages, median(bare)), rate(load.messages, median(enoki)));
    println!("  {name:<31} {bare:>8.0}/s {enoki:>9.0}/s {:>7.2}", enoki / bare);
}

fn median(rounds: &mut [Duration]) -> Duration {
    rounds.sort();
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

fn rate(messages: usize, time: Duration) -> f64 {
    messages as f64 / time.as_secs_f64()
}
