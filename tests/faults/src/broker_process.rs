//! A real broker of the test's own, run by `dev/brokers`: to kill, freeze and alarm.

use std::{collections::BTreeMap, io, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    sync::Mutex,
    time::timeout,
};

/// A broker that only this process uses, and that may be harmed.
///
/// It is an instance of `dev/brokers`, `rabbitmq-4@faults`: a shared broker cannot be named here. Its
/// URL is its own, not that of a broker that an environment variable gives.
#[derive(Debug, Clone)]
pub struct BrokerProcess {
    name: String,
    url: String,
    encrypted: Option<Encrypted>,
}

/// How a broker process is reached by TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encrypted {
    /// Its URL, as `amqp091s://…`; AMQP 1.0 has the same port.
    pub url: String,
    /// The file with the certificate of the authority that it is to be trusted for.
    pub authority: PathBuf,
}

/// Why a broker cannot be had.
#[derive(Debug)]
pub enum Unavailable {
    /// This machine offers no way to start it, or the program did not start it.
    NotHere(String),
    /// It should have started.
    Failed(io::Error),
}

/// What a broker runs short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// Memory.
    Memory,
    /// Disk.
    Disk,
}

impl Alarm {
    fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

impl BrokerProcess {
    /// Starts an instance of a broker, unless it runs: `start("rabbitmq-4", "faults")`. It is this
    /// process's alone until that ends: another process that asks for it waits here.
    pub async fn start(broker: &str, instance: &str) -> Result<Self, Unavailable> {
        let name = format!("{broker}@{instance}");
        hold(&name).await.map_err(Unavailable::Failed)?;
        let started = brokers(&["start", &name]).await.map_err(Unavailable::Failed)?;
        match started.code {
            Some(0) => {}
            Some(NO_WAY) => return Err(Unavailable::NotHere(format!("needs {name}"))),
            _ => return Err(Unavailable::Failed(started.error())),
        }
        let env = brokers(&["env", &name]).await.map_err(Unavailable::Failed)?;
        let url = first_url(&env.output).ok_or_else(|| Unavailable::Failed(env.error()))?;
        let broker = Self { name, url, encrypted: encrypted(&env.output) };
        // An environment variable may have given it: then there is no process to harm.
        match broker.run("pid").await {
            Ok(_) => Ok(broker),
            Err(error) => Err(Unavailable::NotHere(error.to_string())),
        }
    }

    /// Its name: `rabbitmq-4@faults`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL, as `amqp091://…`; AMQP 1.0 has the same port.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How it is reached by TLS, if it listens there.
    pub fn encrypted(&self) -> Option<&Encrypted> {
        self.encrypted.as_ref()
    }

    /// Ends it as kill -9 does.
    pub async fn kill(&self) -> io::Result<()> {
        self.run("kill").await.map(drop)
    }

    /// Ends it politely.
    pub async fn stop(&self) -> io::Result<()> {
        self.run("stop").await.map(drop)
    }

    /// Brings it back, and returns when it listens.
    pub async fn restart(&self) -> io::Result<()> {
        self.run("start").await.map(drop)
    }

    /// Stops it where it is, in the middle of whatever it does.
    pub async fn freeze(&self) -> io::Result<()> {
        self.run("freeze").await.map(drop)
    }

    /// Lets it go on.
    pub async fn thaw(&self) -> io::Result<()> {
        self.run("thaw").await.map(drop)
    }

    /// Runs `rabbitmqctl`, and returns what it prints.
    pub async fn ctl(&self, arguments: &[&str]) -> io::Result<String> {
        let arguments: Vec<_> = ["ctl", &self.name].iter().chain(arguments).copied().collect();
        brokers(&arguments).await?.success()
    }

    /// Evaluates an Erlang expression on the node.
    pub async fn eval(&self, expression: &str) -> io::Result<String> {
        self.ctl(&["eval", expression]).await
    }

    /// Has it block publishers, as if it had run short of something.
    pub async fn alarm(&self, alarm: Alarm) -> io::Result<()> {
        let resource = alarm.resource();
        self.eval(&format!(
            "rabbit_alarm:set_alarm({{{{resource_limit, {resource}, node()}}, []}})."
        ))
        .await
        .map(drop)
    }

    /// Ends an alarm.
    pub async fn clear(&self, alarm: Alarm) -> io::Result<()> {
        let resource = alarm.resource();
        self.eval(&format!("rabbit_alarm:clear_alarm({{resource_limit, {resource}, node()}})."))
            .await
            .map(drop)
    }

    /// Has it close every connection, and tell why.
    pub async fn close_connections(&self) -> io::Result<()> {
        self.ctl(&["close_all_connections", "--global", "a test wants it so"]).await.map(drop)
    }

    /// Has it close every connection so many times, with a pause between two. All of it is one call, since
    /// a call takes a second or more.
    pub async fn close_connections_often(&self, times: u32, pause: Duration) -> io::Result<()> {
        let pause = pause.as_millis();
        self.eval(&format!(
            "[begin rabbit_networking:close_connections(rabbit_networking:local_connections(), \
             \"a test wants it so\"), timer:sleep({pause}) end || _ <- lists:seq(1, {times})]."
        ))
        .await
        .map(drop)
    }

    /// Has it write down what was declared. After `kill -9` a RabbitMQ that keeps its metadata in Mnesia
    /// (before 4.2, unless it was told otherwise) has been seen to have forgotten a queue that was declared
    /// a second before, with every confirmed message in it: once in four tries, and in others not in 36.
    /// Khepri writes before it answers, so there is nothing to do.
    pub async fn write_metadata(&self) -> io::Result<()> {
        self.eval("catch mnesia:sync_log().").await.map(drop)
    }

    /// Heals what a test may have left behind: frozen, killed, or with an alarm.
    pub async fn recover(&self) -> io::Result<()> {
        // One that does not run cannot be thawed.
        let _ = self.thaw().await;
        self.restart().await?;
        // Both at once: each call takes a second.
        let clear = |alarm: Alarm| {
            format!("rabbit_alarm:clear_alarm({{resource_limit, {}, node()}})", alarm.resource())
        };
        let both = format!("{}, {}.", clear(Alarm::Memory), clear(Alarm::Disk));
        self.eval(&both).await.map(drop)
    }

    async fn run(&self, command: &str) -> io::Result<String> {
        brokers(&[command, &self.name]).await?.success()
    }
}

struct Ran {
    code: Option<i32>,
    output: String,
    complaint: String,
}

impl Ran {
    fn success(self) -> io::Result<String> {
        if self.code == Some(0) { Ok(self.output) } else { Err(self.error()) }
    }

    fn error(&self) -> io::Error {
        io::Error::other(format!(
            "dev/brokers failed: {} {}",
            self.complaint.trim(),
            self.output.trim()
        ))
    }
}

/// Keeps other processes from the same instance until this one ends, however it does.
async fn hold(name: &str) -> io::Result<()> {
    let mut held = HELD.lock().await;
    if held.contains_key(name) {
        return Ok(());
    }
    // It holds on until its standard input ends.
    let mut holder = Command::new(script())
        .args(["hold", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = [0];
    if let Some(output) = holder.stdout.as_mut() {
        timeout(PATIENCE, output.read_exact(&mut said))
            .await
            .map_err(|_| io::Error::other(format!("{name} is used by another run")))??;
    }
    held.insert(name.to_owned(), holder);
    Ok(())
}

static HELD: Mutex<BTreeMap<String, Child>> = Mutex::const_new(BTreeMap::new());

fn script() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "dev", "brokers"].iter().collect()
}

async fn brokers(arguments: &[&str]) -> io::Result<Ran> {
    let running =
        Command::new(script()).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let patience = if arguments.first() == Some(&"start") { PATIENCE } else { SHORT_PATIENCE };
    let output = timeout(patience, running)
        .await
        .map_err(|_| io::Error::other(format!("dev/brokers {} hangs", arguments.join(" "))))??;
    Ok(Ran {
        code: output.status.code(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        complaint: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// What `dev/brokers` ends with where this machine offers no way to have a broker.
const NO_WAY: i32 = 3;

/// It may have to install the broker first, and another run may have to end before this one begins.
const PATIENCE: Duration = Duration::from_secs(900);

/// Anything else takes some seconds.
const SHORT_PATIENCE: Duration = Duration::from_secs(180);

/// The URL in `export ENOKI_RABBITMQ_4_FAULTS=amqp091://…`. The lines below are about TLS.
fn first_url(env: &str) -> Option<String> {
    let (_, url) = env.lines().next()?.split_once('=')?;
    Some(url.trim().to_owned())
}

/// What `export ENOKI_…_TLS=…` and `export ENOKI_…_TLS_FILES=…` say.
fn encrypted(env: &str) -> Option<Encrypted> {
    let told = |end: &str| {
        let lines = env.lines().filter_map(|line| line.split_once('='));
        let mut told = lines.filter(|(variable, _)| variable.ends_with(end));
        told.next().map(|(_, content)| content.trim())
    };
    let authority = PathBuf::from(told("_TLS_FILES")?).join("ca.pem");
    Some(Encrypted { url: told("_TLS")?.to_owned(), authority })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_broker_is_the_first_that_is_told() {
        let env = "export ENOKI_A=amqp091://h:1/v\nexport ENOKI_A_TLS=amqp091s://h:2/v\n";
        assert_eq!(first_url(env).as_deref(), Some("amqp091://h:1/v"));
        assert_eq!(first_url(""), None);
    }

    #[test]
    fn how_a_broker_is_reached_by_tls_is_told_below_its_url() {
        let env = "export ENOKI_A=amqp091://h:1/v\nexport ENOKI_A_TLS=amqp091s://h:2/v\n";
        assert_eq!(encrypted(env), None, "no files");
        let env = format!("{env}export ENOKI_A_TLS_FILES=/files\n");
        let expected =
            Encrypted { url: "amqp091s://h:2/v".to_owned(), authority: "/files/ca.pem".into() };
        assert_eq!(encrypted(&env), Some(expected));
    }
}
