//! A client that others wrote, in Python: it publishes what this toolkit refuses to.

use std::process::Stdio;

use tokio::{process::Command, time::timeout};

use super::{Outcome, PATIENCE};

/// A client of the protocol that the run does not consume by.
pub(super) struct Foreign {
    python: String,
    program: &'static str,
    url: String,
}

impl Foreign {
    /// One that reaches the broker at this URL. `None` without a Python that has the clients, and where the
    /// broker has one protocol alone.
    pub(super) fn to(url: &str, scheme: &str, broker: &str) -> Option<Self> {
        let python = std::env::var("ENOKI_PYTHON").ok().filter(|python| !python.is_empty())?;
        let program = match (broker, scheme.trim_end_matches('s')) {
            ("rabbitmq-3", _) => return None,
            (_, "amqp091") => "amqp10.py",
            _ => "amqp091.py",
        };
        Some(Self { python, program, url: url.to_owned() })
    }

    /// Publishes one message that the broker cannot convert to the run's protocol.
    pub(super) async fn publish_unreadable(&self, queue: &str) -> Outcome {
        let running = Command::new(&self.python)
            .arg("-B") // leaves nothing in the repository
            .arg(format!("{}/../interop/foreign/{}", env!("CARGO_MANIFEST_DIR"), self.program))
            .args(["unreadable", queue])
            .env("BROKER_URL", &self.url)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(PATIENCE, running).await.map_err(|_| "the other client hangs")??;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{}: {}", self.program, String::from_utf8_lossy(&output.stderr)).into())
    }
}
