//! The service of nameko: a process, which is told in lines what to do and tells in lines what it did.

use std::{collections::VecDeque, process::Stdio, time::Duration};

use enoki::message::Table;
use enoki_interop::{Checked, PYTHON, given, neutral};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};

use super::calls::Call;

/// What a worker of nameko said: what it knew, and what its message had on the wire.
#[derive(Debug)]
pub(crate) struct Worked {
    /// Its method.
    method: String,
    pub(crate) body: Json,
    pub(crate) context: Table,
    /// The ids of the calls that led there, its own last.
    pub(crate) call_ids: Vec<String>,
    pub(crate) headers: Table,
    pub(crate) properties: Json,
}

/// A running service of nameko. Dropped, its process is killed.
pub(crate) struct Nameko {
    process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it said before anybody asked.
    unread: VecDeque<Worked>,
    complaints: JoinHandle<String>,
}

impl Nameko {
    /// Starts it, and returns when it consumes.
    pub(crate) async fn start(url: &str, name: &str, prefix: &str) -> Checked<Self> {
        let mut process = Command::new(given(PYTHON).ok_or("there is no Python")?)
            .args(["-B", "-W", "ignore"]) // leaves nothing in the repository, and is not told that eventlet is old
            .arg(format!("{}/foreign/nameko_service.py", env!("CARGO_MANIFEST_DIR")))
            .args([name, prefix])
            .env("BROKER_URL", url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = process.stdin.take().ok_or("no standard input")?;
        let output = process.stdout.take().ok_or("no standard output")?;
        let mut errors = process.stderr.take().ok_or("no standard error")?;
        let complaints = tokio::spawn(async move {
            let mut said = Vec::new();
            let _ = errors.read_to_end(&mut said).await;
            String::from_utf8_lossy(&said).into_owned()
        });
        let lines = BufReader::new(output).lines();
        let mut nameko = Self { process, input, lines, unread: VecDeque::new(), complaints };
        match nameko.line().await? {
            line if line.get("ready").is_some() => Ok(nameko),
            line => Err(format!("it should be ready, and says {line}").into()),
        }
    }

    /// Runs one of its methods.
    pub(crate) async fn run(&mut self, method: &str, call: &Call) -> Checked<Worked> {
        let line = json!({
            "do": method,
            "body": call.body,
            "headers": neutral::write_table(&call.headers),
            "context": neutral::write_table(call.context.values()),
        });
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        self.worked(method).await
    }

    /// The next word of a worker that ran this method.
    pub(crate) async fn worked(&mut self, method: &str) -> Checked<Worked> {
        loop {
            let known = self.unread.iter().position(|worked| worked.method == method);
            if let Some(worked) = known.and_then(|at| self.unread.remove(at)) {
                return Ok(worked);
            }
            let line = self.line().await?;
            self.unread.push_back(read(&line).map_err(|error| format!("{error}: {line}"))?);
        }
    }

    /// Lets it stop as it does by itself, and waits for that.
    pub(crate) async fn stop(mut self) -> Checked {
        drop(self.input);
        let status = timeout(Duration::from_secs(120), self.process.wait()).await??;
        if status.success() {
            return Ok(());
        }
        Err(format!("nameko ended with {status}:\n{}", self.complaints.await?).into())
    }

    async fn line(&mut self) -> Checked<Json> {
        let line = match timeout(Duration::from_secs(120), self.lines.next_line()).await {
            Ok(line) => line?,
            Err(_) => None,
        };
        if let Some(line) = line {
            return Ok(serde_json::from_str(&line)?);
        }
        self.process.start_kill()?;
        let said = timeout(Duration::from_secs(60), &mut self.complaints).await??;
        Err(format!("nameko says nothing more, but for:\n{said}").into())
    }
}

fn read(line: &Json) -> Checked<Worked> {
    let part = |name| line.get(name).ok_or_else(|| format!("no {name}"));
    Ok(Worked {
        method: serde_json::from_value(part("is")?.clone())?,
        body: part("body")?.clone(),
        context: neutral::read_table(part("context")?)?,
        call_ids: serde_json::from_value(part("call_ids")?.clone())?,
        headers: neutral::read_table(part("headers")?)?,
        properties: part("properties")?.clone(),
    })
}
