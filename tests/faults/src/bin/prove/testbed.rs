//! What there is to break: a broker, and the way to it.

mod foreign;
mod memory;
mod process;

use std::{error::Error, fs, net::SocketAddr, sync::Arc, time::Duration};

use enoki::{
    Broker,
    broker::{BrokerOptions, Tls},
    memory::MemoryTransport,
};
use enoki_faults::{
    broker_process::{BrokerProcess, Unavailable},
    interposed::Between,
    proxy::{Cut, Proxy},
    seed::Seed,
};

use self::{foreign::Foreign, process::ProcessFaults};

use crate::{
    fault::{self, Fault},
    target::Target,
};

/// What went wrong, in words.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A broker, and the way to it.
pub(crate) enum Testbed {
    Memory { memory: MemoryTransport, between: Between },
    Process(Box<Process>),
}

/// A broker process, and the way to it.
pub(crate) struct Process {
    process: BrokerProcess,
    /// It reads frames, but for those of TLS.
    proxy: Proxy,
    url: String,
    tls: Option<Tls>,
    /// Another client, which publishes what this toolkit would refuse to.
    foreign: Option<Foreign>,
}

impl Testbed {
    pub(crate) fn memory(memory: MemoryTransport) -> Self {
        let between = Between::new(Arc::new(memory.clone()));
        Self::Memory { memory, between }
    }

    /// Starts what is needed.
    pub(crate) async fn start(target: Target, seed: Seed) -> Outcome<Self> {
        let Target::Broker { scheme, broker } = target else {
            return Ok(Self::memory(MemoryTransport::isolated()));
        };
        let process = BrokerProcess::start(broker, "prove").await.map_err(|error| match error {
            Unavailable::NotHere(reason) => reason,
            Unavailable::Failed(error) => error.to_string(),
        })?;
        process.recover().await?;
        // A user of the run's own, whose login and permissions may change. It may be there from another.
        let _ = process.ctl(&["add_user", USER, PASSWORD]).await;
        process.ctl(&["change_password", USER, PASSWORD]).await?;
        process.ctl(PERMIT).await?;
        let (plain, tls) = if scheme.ends_with('s') {
            let encrypted = process.encrypted().ok_or("the broker does not listen with TLS")?;
            let tls = Tls::new().trust_only(fs::read_to_string(&encrypted.authority)?);
            (encrypted.url.replacen("amqp091s", scheme, 1), Some(tls))
        } else {
            (process.url().replacen("amqp091", scheme, 1), None)
        };
        let url = plain.replacen("guest:guest", &format!("{USER}:{PASSWORD}"), 1);
        let authority = url.split(['@', '/']).nth(3).unwrap_or_default();
        let address: SocketAddr = authority.parse()?;
        let proxy = Proxy::seeded(address, seed.random("jitter").u64(..)).await?;
        // Seconds: what is silent is given up after twice as long.
        let url = format!("{}?heartbeat={HEARTBEAT}", proxy.url(&url));
        let foreign = Foreign::to(process.url(), scheme, broker);
        Ok(Self::Process(Box::new(Process { process, proxy, url, tls, foreign })))
    }

    /// What can happen here.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let Self::Process(way) = self else { return fault::IN_MEMORY.to_vec() };
        let faults = fault::OF_A_BROKER.iter().copied();
        let possible = faults.filter(|fault| match fault {
            Fault::Unreadable => way.foreign.is_some(),
            fault => way.tls.is_none() || !fault.needs_frames(),
        });
        possible.collect()
    }

    /// About how long a fault lasts: in memory there is nothing to start or to wait for.
    pub(crate) fn fault_lasts(&self) -> Duration {
        match self {
            Self::Memory { .. } => Duration::from_millis(200),
            Self::Process(_) => Duration::from_secs(4),
        }
    }

    /// Has the broker write down what was declared: a queue that it forgets because it is killed just
    /// afterwards breaks no promise that a client could keep.
    pub(crate) async fn write_down(&self) -> Outcome {
        match self {
            Self::Memory { .. } => Ok(()),
            Self::Process(way) => Ok(way.process.write_metadata().await?),
        }
    }

    /// Ends what was started.
    pub(crate) async fn clear(&self) -> Outcome {
        match self {
            Self::Memory { .. } => Ok(()),
            Self::Process(way) => Ok(way.process.stop().await?),
        }
    }

    /// Ends what a run on this target had started that was given up.
    pub(crate) async fn abandon(target: Target) {
        if let Target::Broker { broker, .. } = target
            && let Ok(process) = BrokerProcess::start(broker, "prove").await
        {
            let _ = process.stop().await;
        }
    }

    /// A handle on the broker, by way of what can be broken.
    pub(crate) async fn connect(&self) -> enoki::Result<Broker> {
        match self {
            Self::Memory { between, .. } => Broker::connect(Arc::new(between.clone())).await,
            Self::Process(way) => {
                let options = BrokerOptions::new();
                let options = match &way.tls {
                    Some(tls) => options.tls(tls.clone()),
                    None => options,
                };
                enoki::connect_with(&way.url, options).await
            }
        }
    }

    /// Publishes a message to the queue that the broker cannot convert to its consumer's protocol.
    pub(crate) async fn publish_unreadable(&self, queue: &str) -> Outcome {
        let foreign = match self {
            Self::Memory { .. } => None,
            Self::Process(way) => way.foreign.as_ref(),
        };
        foreign.ok_or("no other client publishes here")?.publish_unreadable(queue).await
    }

    /// Loses all connections.
    pub(crate) fn lose_connections(&self) {
        match self {
            Self::Memory { memory, .. } => memory.drop_connections(),
            Self::Process(way) => way.proxy.cut(Cut::Reset),
        }
    }

    /// Breaks something and puts it right again, with what it leaves to chance drawn from `chance`.
    /// Calls `killed` when a broker has just died.
    pub(crate) async fn inject(
        &self,
        fault: Fault,
        chance: u64,
        doomed: &str,
        killed: impl FnOnce() + Send,
    ) -> Outcome {
        let mut random = fastrand::Rng::with_seed(chance);
        let a_while = Duration::from_millis(random.u64(200..2500));
        match self {
            Self::Memory { memory, between } => {
                memory::inject(memory, between, fault, a_while, &mut random, doomed).await
            }
            Self::Process(way) => {
                let Process { process, proxy, .. } = &**way;
                let faults = ProcessFaults { process, proxy, a_while };
                faults.inject(fault, &mut random, doomed, killed).await
            }
        }
    }
}

/// So often connections are closed in a burst, and so far apart: also while what was closed before is
/// being opened again.
const BURST: u32 = 20;
const BURST_PAUSE: Duration = Duration::from_millis(200);

/// The run's own user.
const USER: &str = "prove";
const PASSWORD: &str = "prove";
const PERMIT: &[&str] = &["set_permissions", "-p", "enoki", USER, ".*", ".*", ".*"];

/// How long another client may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds.
const HEARTBEAT: u32 = 2;
