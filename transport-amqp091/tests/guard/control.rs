//! The same messages without the guard: bare lapin, in a process of its own. If these tests ever fail because lapin
//! survives, the guard is obsolete.

use std::process::{Command, Stdio};

use futures_util::StreamExt;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions},
    types::FieldTable,
};

use crate::{Checked, PATIENCE};

/// The task of that process: a URL, and perhaps a queue.
const TASK: &str = "ENOKI_GUARD_CONTROL";

/// Does the task, if this process was started for one; returns whether it was.
pub(crate) fn is_child() -> bool {
    let Ok(task) = std::env::var(TASK) else { return false };
    let (url, queue) = task.split_once(' ').unwrap_or((&task, ""));
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else {
        return true;
    };
    let outcome = runtime.block_on(consume(url, queue));
    println!("{}", outcome.err().map_or_else(|| SURVIVED.to_owned(), |error| error.to_string()));
    true
}

/// Consumes until a message with the body `last`.
async fn consume(url: &str, queue: &str) -> Checked {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    if queue.is_empty() {
        return Ok(());
    }
    let channel = connection.create_channel().await?;
    let options = BasicConsumeOptions::default();
    let mut deliveries =
        channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        delivery.ack(BasicAckOptions::default()).await?;
        if delivery.data == b"last" {
            // The broker then knows the acknowledgements.
            return Ok(connection.close(200, "bye".into()).await?);
        }
    }
    Err("the deliveries ended".into())
}

/// How a process of bare lapin ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It came to the last message.
    Survived,
    /// It lost its connection, with this error.
    Lost(String),
    /// It was aborted.
    Aborted,
}

/// Runs bare lapin, in a process of its own, against this broker.
pub(crate) async fn run(
    url: &str,
    queue: &str,
) -> Result<End, Box<dyn std::error::Error + Send + Sync>> {
    let url = url.replacen("amqp091:", "amqp:", 1);
    let mut command = tokio::process::Command::from({
        let mut command = Command::new(std::env::current_exe()?);
        command.env(TASK, format!("{url} {queue}")).env("RUST_MIN_STACK", "");
        command
    });
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, child).await??;
    if output.status.code().is_none() {
        return Ok(End::Aborted);
    }
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(if said == SURVIVED { End::Survived } else { End::Lost(said) })
}

const SURVIVED: &str = "survived";
