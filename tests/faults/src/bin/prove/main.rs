//! A soak with random faults: every message is written down, and at the end the ledger has to agree.
//!
//! ```sh
//! dev/prove --messages 100000 --faults 50 --seed 7
//! ```
#![allow(clippy::print_stdout)] // the report is what it is for

mod chart;
mod fault;
mod load;
mod log;
mod progress;
mod recovery;
mod report;
mod run;
mod target;
mod testbed;
mod timeline;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use enoki_faults::seed::Seed;

use self::{progress::Progress, target::Target, testbed::Testbed};

/// Publishes and handles many messages while faults happen, on each transport and broker in turn,
/// and checks that none was lost.
#[derive(Debug, Parser)]
#[command(name = "dev/prove")]
struct Arguments {
    /// Messages on each target.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Faults on each target.
    #[arg(long, default_value_t = 50)]
    faults: usize,
    /// The seed of a run to repeat; by chance if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// A target: memory, or a transport and a broker, such as amqp10:rabbitmq-4. May be repeated.
    #[arg(long = "on", value_name = "COURSE", default_values_t = Target::usual())]
    targets: Vec<Target>,
    /// Only faults whose names contain this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Where the report goes.
    #[arg(long, value_name = "FOLDER", default_value = "target/prove")]
    report: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.map_or_else(Seed::from_environment, Seed::new);
    println!("seed {seed}");
    if let Err(error) = log::to_a_file_in(&arguments.report) {
        println!("no log: {error}");
    }
    let mut runs = Vec::new();
    for target in &arguments.targets {
        let progress = Progress::start(*target, arguments.messages, arguments.faults);
        let task = run::Task {
            target: *target,
            seed,
            messages: arguments.messages,
            faults: arguments.faults,
            only: arguments.only.clone(),
        };
        let run = tokio::select! {
            run = run::run(task, &progress) => run,
            _ = tokio::signal::ctrl_c() => {
                progress.finish();
                println!("interrupted: its brokers are stopped");
                Testbed::abandon(*target).await;
                return ExitCode::FAILURE;
            }
        };
        progress.finish();
        println!("{}", report::text(&run));
        runs.push(run);
        // After each: a run that is interrupted has not been for nothing.
        match report::write(&arguments.report, seed, &runs) {
            Ok(file) => println!("report: {}", file.display()),
            Err(error) => println!("the report could not be written: {error}"),
        }
    }
    let failed = runs.iter().filter(|run| !run.failures().is_empty()).count();
    println!("seed {seed}: {} of {} targets as promised", runs.len() - failed, runs.len());
    if failed == 0 && !runs.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
