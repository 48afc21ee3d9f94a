//! A broker in memory that is like a version does as that version does, step by step: the same program
//! runs on both, and what it sees is compared. Nothing of what is expected is written down here, so
//! neither the broker in memory nor this file can drift from the real one.

mod versions {
    pub(crate) mod cases;
}

use std::process::ExitCode;

use enoki::broker::Capability;
use enoki_interop::{Broker, Checked, RABBITMQ_3, RABBITMQ_4, RABBITMQ_4_3, without};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use versions::cases::{CASES, Case, Ground};

/// A version as URLs name it, how its number begins, and the real one.
const VERSIONS: [(&str, &str, Broker); 3] = [
    ("rabbitmq-3.10", "3.10.", RABBITMQ_3),
    ("rabbitmq-4.0", "4.0.", RABBITMQ_4),
    ("rabbitmq-4.3", "4.3.", RABBITMQ_4_3),
];

fn main() -> ExitCode {
    let trials = VERSIONS.iter().flat_map(|&(version, number, real)| {
        CASES.iter().map(move |&(name, case)| {
            let trial = move || compare(version, number, real, case);
            Trial::ignorable_test(format!("versions::{name}"), trial).with_kind(version)
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn compare(
    version: &'static str,
    number: &'static str,
    real: Broker,
    case: Case,
) -> Result<Completion, Failed> {
    let Some(url) = real.url("amqp091") else { return without(real.variable) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(async {
        let theirs = Ground::at(url).await?;
        // A broker that a developer has given may be of another version.
        if !theirs.broker.peer().version().starts_with(number) {
            return Ok(None);
        }
        let name = format!("memory://versions-{}?as={version}", uuid::Uuid::now_v7().simple());
        let ours = Ground::at(name).await?;
        Checked::Ok(Some((observe(&theirs, case).await?, observe(&ours, case).await?)))
    });
    let Some((theirs, ours)) = seen.map_err(|error| error.to_string())? else {
        return Ok(Completion::ignored_with(format!("the broker given is not {version}")));
    };
    let differences: Vec<_> = theirs
        .iter()
        .zip(&ours)
        .filter(|(theirs, ours)| theirs != ours)
        .map(|(theirs, ours)| format!("{version}: {theirs}\n    memory: {ours}"))
        .collect();
    if theirs.len() != ours.len() {
        return Err(format!("{version} saw {theirs:#?}, memory saw {ours:#?}").into());
    }
    if differences.is_empty() {
        return Ok(Completion::Completed);
    }
    Err(differences.join("\n").into())
}

/// What the case sees there. What it declared goes, whatever it saw.
async fn observe(ground: &Ground, case: Case) -> Checked<Vec<String>> {
    let seen = case(ground).await;
    ground.tidy().await?;
    seen
}

/// All that a program may ask for, but what only a broker in memory has.
pub(crate) fn asked_for() -> impl Iterator<Item = Capability> {
    Capability::ALL.iter().copied().filter(|capability| *capability != Capability::VirtualTime)
}
