//! A soak with random faults: every message is written down, and at the end the ledger has to agree.
//!
//! ```sh
//! dev/prove --messages 100000 --faults 50 --seed 7
//! ```
#![allow(clippy::print_stdout)] // the report is what it is for

mod chart;
mod conduct;
mod course;
mod fault;
mod ground;
mod progress;
mod recovery;
mod report;
mod timeline;
mod work;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use enoki_faults::seed::Seed;

use self::{course::Course, ground::Ground, progress::Progress};

/// Publishes and handles many messages while faults happen, on each transport and broker in turn,
/// and checks that none was lost.
#[derive(Debug, Parser)]
#[command(name = "dev/prove")]
struct Arguments {
    /// Messages on each course.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Faults on each course.
    #[arg(long, default_value_t = 50)]
    faults: usize,
    /// The seed of a run to repeat; by chance if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// A course: memory, or a transport and a broker, such as amqp10:rabbitmq-4. May be repeated.
    #[arg(long = "on", value_name = "COURSE", default_values_t = Course::usual())]
    courses: Vec<Course>,
    /// Only faults whose names contain this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Where the report goes.
    #[arg(long, value_name = "FOLDER", default_value = "target/prove")]
    report: PathBuf,
}

/// What is worth a warning goes to a file beside the report, faults included.
fn log_to(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let file = fs::File::create(folder.join("log.txt"))?;
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_timer(tracing_subscriber::fmt::time::uptime())
        .with_writer(file)
        .init();
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.map_or_else(Seed::from_environment, Seed::new);
    println!("seed {seed}");
    if let Err(error) = log_to(&arguments.report) {
        println!("no log: {error}");
    }
    let mut runs = Vec::new();
    for course in &arguments.courses {
        let progress = Progress::start(*course, arguments.messages, arguments.faults);
        let task = conduct::Task {
            course: *course,
            seed,
            messages: arguments.messages,
            faults: arguments.faults,
            only: arguments.only.clone(),
        };
        let run = tokio::select! {
            run = conduct::run(task, &progress) => run,
            _ = tokio::signal::ctrl_c() => {
                progress.finish();
                println!("interrupted: its brokers are stopped");
                Ground::abandon(*course).await;
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
    println!("seed {seed}: {} of {} courses as promised", runs.len() - failed, runs.len());
    if failed == 0 && !runs.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
