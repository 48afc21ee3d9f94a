//! Clients that others wrote: the programs in `foreign/`, in Python.

use std::process::Stdio;

use enoki::message::Message;
use enoki_interop::{Checked, PYTHON, given, neutral};
use tokio::{io::AsyncWriteExt, process::Command};

use super::client::Protocol;

pub(crate) async fn publish(
    protocol: Protocol,
    url: &str,
    queue: &str,
    messages: &[Message],
) -> Checked {
    let lines: Vec<_> = messages.iter().map(neutral::write).collect();
    run(protocol, url, &["publish", queue], lines.concat()).await.map(drop)
}

pub(crate) async fn consume(
    protocol: Protocol,
    url: &str,
    queue: &str,
    count: usize,
) -> Checked<Vec<Message>> {
    let lines = run(protocol, url, &["consume", queue, &count.to_string()], String::new()).await?;
    lines.lines().map(neutral::read).collect()
}

/// Publishes what `others` in the program has.
pub(crate) async fn others(protocol: Protocol, url: &str, queue: &str) -> Checked {
    run(protocol, url, &["others", queue], String::new()).await.map(drop)
}

/// Publishes what RabbitMQ cannot convert to the other protocol.
pub(crate) async fn unreadable(protocol: Protocol, url: &str, queue: &str) -> Checked {
    run(protocol, url, &["unreadable", queue], String::new()).await.map(drop)
}

/// Asks at the queue, and says of each kind of id whether the answer had it.
pub(crate) async fn ask(url: &str, queue: &str, answers: &str) -> Checked<Vec<(String, bool)>> {
    let lines = run(Protocol::Amqp10, url, &["ask", queue, answers], String::new()).await?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

async fn run(protocol: Protocol, url: &str, arguments: &[&str], input: String) -> Checked<String> {
    let program = match protocol {
        Protocol::Amqp091 => "amqp091.py",
        Protocol::Amqp10 => "amqp10.py",
    };
    let mut child = Command::new(given(PYTHON).ok_or("there is no Python")?)
        .arg("-B") // leaves nothing in the repository
        .arg(format!("{}/foreign/{program}", env!("CARGO_MANIFEST_DIR")))
        .args(arguments)
        .env("BROKER_URL", url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    // At the same time: neither side waits for the other's pipe to have room.
    let (written, output) = tokio::join!(
        async move { stdin.write_all(input.as_bytes()).await },
        child.wait_with_output()
    );
    let output = output?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {arguments:?} ended with {}:\n{said}", output.status).into());
    }
    written?;
    Ok(String::from_utf8(output.stdout)?)
}
