//! A process of its own, which dies in the middle of its work.

use std::process::{Command, Stdio};

use enoki::{Broker, QueueSpec};
use tokio::time::timeout;

use crate::{
    stage::Checked,
    steps::{PATIENCE, next},
};

/// What a process of its own is to do: a URL and a queue.
const TASK: &str = "ENOKI_FAULTS_CHILD";

/// Does what this process was started for, if it was; it does not come back then.
pub(crate) fn unless_child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let (url, queue) = task.split_once(' ').unwrap_or((&task, ""));
    let done = tokio::runtime::Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(hold_one(url, queue)));
    if let Err(error) = done {
        println!("{error}");
    }
    // Between the work and its acknowledgement, without a word to anybody.
    std::process::abort();
}

async fn hold_one(url: &str, queue: &str) -> Checked {
    let broker: Broker = enoki::connect(url).await?;
    let mut queue = QueueSpec::new(queue)?;
    queue.passive = true;
    let mut deliveries = broker.subscribe(&queue.of::<u32>(), 1).await?;
    let delivery = next(&mut deliveries).await?;
    let number: u32 = delivery.decode()?;
    println!("{number}");
    std::process::abort();
}

/// Runs a process that takes one message, says its number, and dies.
pub(crate) async fn die_holding_one(url: &str, queue: &str) -> Checked<String> {
    let mut command = tokio::process::Command::from({
        let mut command = Command::new(std::env::current_exe()?);
        command.env(TASK, format!("{url} {queue}"));
        command
    });
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PATIENCE, child).await??;
    if output.status.code().is_some() {
        return Err("it lived".into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
