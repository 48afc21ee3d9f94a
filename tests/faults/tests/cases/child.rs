//! Processes of their own: one dies in the middle of its work, others are measured.

use std::{
    fs,
    process::{ExitCode, Stdio},
    time::Duration,
};

use enoki::{Outcome, topology::QueueSpec};
use enoki_faults::patience::connect_patiently;
use tokio::{process::Command, time::timeout};

use crate::{
    hostile::{self, Protocol},
    stage::{Checked, expect},
    steps::{PATIENCE, next},
};

/// What a process of its own is to do: one of the words below, and what belongs to it.
const TASK: &str = "ENOKI_FAULTS_CHILD";
const HOLD_ONE: &str = "hold-one";
const TAKE_SLOWLY: &str = "take-slowly";
const MEET_HOSTILE_PEERS: &str = "meet-hostile-peers";

/// Does what this process was started for, if it was.
pub(crate) fn task() -> Option<ExitCode> {
    let task = std::env::var(TASK).ok()?;
    let words: Vec<_> = task.split(' ').collect();
    let doing = async {
        match words[..] {
            [HOLD_ONE, url, queue] => hold_one(url, queue).await,
            [TAKE_SLOWLY, url, queue] => take_slowly(url, queue).await,
            [MEET_HOSTILE_PEERS, scheme] => meet_hostile_peers(scheme).await,
            _ => Err("no such task".into()),
        }
    };
    let done = tokio::runtime::Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(doing));
    Some(match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    })
}

async fn hold_one(url: &str, queue: &str) -> Checked<String> {
    let broker = connect_patiently(url).await?;
    let mut queue = QueueSpec::new(queue)?;
    queue.passive = true;
    let mut deliveries = broker.subscribe(&queue.of::<u32>(), 1).await?;
    let delivery = next(&mut deliveries).await?;
    let number: u32 = delivery.decode()?;
    println!("{number}");
    // Between the work and its acknowledgement, without a word to anybody.
    std::process::abort();
}

/// Takes some of what is in a queue, each for a while, and says how much memory this process had
/// after the first, and at the most since.
async fn take_slowly(url: &str, queue: &str) -> Checked<String> {
    let broker = connect_patiently(url).await?;
    let mut queue = QueueSpec::new(queue)?;
    queue.passive = true;
    let mut deliveries = broker.subscribe(&queue.of::<String>(), PREFETCH).await?;
    next(&mut deliveries).await?.settle(Outcome::Ack);
    let (before, mut most) = (resident("VmRSS:")?, 0);
    for _ in 1..TAKEN {
        let delivery = next(&mut deliveries).await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
        delivery.settle(Outcome::Ack);
        most = resident("VmRSS:")?.max(most);
    }
    Ok(format!("{before} {most}"))
}

/// Meets every peer that means harm, and says how much memory this process had before, and at the most.
async fn meet_hostile_peers(scheme: &str) -> Checked<String> {
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.scheme() == scheme);
    let before = resident("VmRSS:")?;
    hostile::meet_all(protocol.ok_or("no such protocol")?).await?;
    Ok(format!("{before} {}", resident("VmHWM:")?))
}

/// Kilobytes of memory that this process has, or had at the most.
fn resident(which: &str) -> Checked<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes.ok_or("the system does not tell")?.parse()?)
}

/// What a process of its own printed, and whether it came to its end.
async fn run(task: &[&str]) -> Checked<(String, Option<i32>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(TASK, task.join(" "));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(2 * PATIENCE, child).await??;
    Ok((String::from_utf8_lossy(&output.stdout).trim().to_owned(), output.status.code()))
}

/// Runs a process that takes one message, says its number, and dies.
pub(crate) async fn die_holding_one(url: &str, queue: &str) -> Checked<String> {
    let (said, code) = run(&[HOLD_ONE, url, queue]).await?;
    expect(code.is_none(), "it lived")?;
    Ok(said)
}

/// Runs a process that takes slowly what is in a queue, and says by how many kilobytes it grew.
pub(crate) async fn growth_when_taking_slowly(url: &str, queue: &str) -> Checked<u64> {
    growth(&[TAKE_SLOWLY, url, queue]).await
}

/// Runs a process that meets peers which mean harm, and says by how many kilobytes it grew.
pub(crate) async fn growth_among_hostile_peers(protocol: Protocol) -> Checked<u64> {
    growth(&[MEET_HOSTILE_PEERS, protocol.scheme()]).await
}

async fn growth(task: &[&str]) -> Checked<u64> {
    let (said, code) = run(task).await?;
    expect(code == Some(0), format!("it ended with {code:?}: {said}"))?;
    let (before, most) = said.split_once(' ').ok_or("it did not say how much")?;
    Ok(most.parse::<u64>()?.saturating_sub(before.parse()?))
}

/// How many deliveries a slow consumer holds at the most, and how many it takes.
pub(crate) const PREFETCH: u16 = 100;
pub(crate) const TAKEN: u64 = 300;
