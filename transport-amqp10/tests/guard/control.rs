//! The same messages without the guard: fe2o3-amqp alone, in a process of its own. If these tests ever pass
//! without an abort, the guard is obsolete.

use std::process::{Command, Stdio};

use fe2o3_amqp::{
    Connection, Receiver, Session,
    sasl_profile::SaslProfile,
    types::{messaging::Body, primitives::Value},
};

use crate::{Checked, Failure, PATIENCE};

/// The environment variable that makes this program the child: a URL, and perhaps a queue.
const TASK: &str = "ENOKI_GUARD_CONTROL";

/// Runs the child, and returns true, if this process was started as one.
pub(crate) fn is_child() -> bool {
    let Ok(task) = std::env::var(TASK) else { return false };
    let (url, queue) = task.split_once(' ').unwrap_or((&task, ""));
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else {
        return true;
    };
    // In a task, because the thread of `main` has a larger stack than the threads that run tasks.
    let task = runtime.spawn(consume(url.to_owned(), queue.to_owned()));
    let outcome = runtime.block_on(task).unwrap_or_else(|panic| Err(panic.into()));
    println!("{}", outcome.err().map_or_else(|| SURVIVED.to_owned(), |error| error.to_string()));
    true
}

/// Consumes until a message with the body `last` came.
async fn consume(url: String, queue: String) -> Checked {
    let url = enoki_core::BrokerUrl::parse(&url)?;
    let user = url.username().unwrap_or("guest");
    let password = url.password().map_or("guest", |password| password.reveal());
    let host = format!("vhost:{}", url.virtual_host()?);
    let address = (url.host().ok_or("no host")?, url.port().ok_or("no port")?);
    let mut connection = Connection::builder()
        .container_id("control")
        .hostname(Some(host.as_str()))
        .max_frame_size(131_072)
        .sasl_profile(SaslProfile::Plain {
            username: user.to_owned(),
            password: password.to_owned(),
        })
        .open_with_stream(tokio::net::TcpStream::connect(address).await?)
        .await?;
    let mut session = Session::begin(&mut connection).await?;
    if queue.is_empty() {
        return Ok(());
    }
    let mut receiver =
        Receiver::attach(&mut session, "control", format!("/queues/{queue}")).await?;
    loop {
        let delivery = receiver.recv::<Body<Value>>().await?;
        receiver.accept(&delivery).await?;
        if let Body::Data(parts) = delivery.body()
            && parts.iter().any(|part| part.0.as_ref() == b"last")
        {
            break;
        }
    }
    // Only after the broker has read which messages were accepted.
    receiver.close().await?;
    session.end().await?;
    connection.close().await?;
    Ok(())
}

/// How a process of fe2o3-amqp alone ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It received the last message.
    Survived,
    /// It failed, with this error.
    Lost(String),
    /// It was aborted.
    Aborted,
}

/// Runs fe2o3-amqp alone, in a process of its own, against this broker.
pub(crate) async fn run(url: &str, queue: &str) -> Result<End, Failure> {
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
