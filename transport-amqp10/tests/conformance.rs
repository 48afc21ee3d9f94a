//! The suite that every transport passes, against each broker that the environment names.
//!
//! `dev/brokers` starts them: `eval "$(dev/brokers env)"`.

use std::{net::TcpListener, process::ExitCode, sync::Arc};

use async_trait::async_trait;
use enoki_conformance::{Broken, Harness};
use enoki_core::{BrokerUrl, Capability, Error, ErrorKind, Result, Transport};
use enoki_transport_amqp10::Amqp10Transport;

/// A broker, where an environment variable says it is.
#[derive(Debug)]
struct Broker {
    name: &'static str,
    variable: &'static str,
    url: Option<String>,
    capabilities: Vec<Capability>,
    /// Whether it has virtual hosts; otherwise any name of one is as good as another.
    virtual_hosts: bool,
    /// Accepts connections, and that is all. The system does it, so nobody has to listen.
    silent: Option<TcpListener>,
}

impl Broker {
    fn named_by(
        name: &'static str,
        variable: &'static str,
        virtual_hosts: bool,
        capabilities: &[&[Capability]],
    ) -> Arc<dyn Harness> {
        Arc::new(Self {
            name,
            variable,
            url: std::env::var(variable).ok().filter(|url| !url.is_empty()),
            capabilities: capabilities.concat(),
            virtual_hosts,
            silent: TcpListener::bind("127.0.0.1:0").ok(),
        })
    }

    fn url(&self) -> Result<BrokerUrl> {
        let missing = || Error::new(ErrorKind::Configuration, "find a broker");
        // The variables name RabbitMQ for AMQP 0-9-1; both protocols share a port.
        let url = self.url.as_deref().ok_or_else(missing)?;
        BrokerUrl::parse(&url.replacen("amqp091", "amqp10", 1))
    }
}

#[async_trait]
impl Harness for Broker {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> Vec<Capability> {
        self.capabilities.clone()
    }

    async fn transport(&self) -> Result<Arc<dyn Transport>> {
        Ok(Arc::new(Amqp10Transport::new(&self.url()?)?))
    }

    fn broken(&self, how: Broken) -> Option<Arc<dyn Transport>> {
        let url = self.url().ok()?;
        // Without its password, which is the point of printing it.
        let shown = url.to_string();
        let (user, rest) = shown.strip_prefix("amqp10://")?.split_once('@')?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, "%2F"));
        let password = url.password()?.reveal();
        let broken = match how {
            Broken::WrongPassword => format!("{user}:{}@{address}/{path}", Broken::PASSWORD),
            Broken::MissingVirtualHost if self.virtual_hosts => {
                format!("{user}:{password}@{address}/{}", Broken::VIRTUAL_HOST)
            }
            // Reserved, and nobody listens there.
            Broken::Unreachable => format!("{user}:{}@127.0.0.1:1/{path}", Broken::PASSWORD),
            Broken::Silent => {
                let address = self.silent.as_ref()?.local_addr().ok()?;
                format!("{user}:{password}@{address}/{path}")
            }
            _ => return None,
        };
        let url = BrokerUrl::parse(&format!("amqp10://{broken}")).ok()?;
        Some(Arc::new(Amqp10Transport::new(&url).ok()?))
    }

    fn unavailable(&self) -> Option<String> {
        self.url.is_none().then(|| format!("needs {}", self.variable))
    }
}

const RABBITMQ: &[Capability] = &[
    Capability::Exchanges,
    Capability::UnroutableDetection,
    Capability::ReplicatedDeliveryCount,
    Capability::RedeliveredFlag,
    Capability::DeadLetter,
    Capability::Expiry,
    Capability::LengthLimit,
    Capability::Priority,
    Capability::ReplicatedQueues,
    Capability::ExclusiveQueues,
    Capability::SingleActiveConsumer,
    Capability::NestedHeaders,
];

/// Since 4.3 every queue counts the deliveries that failed, and only these; and replicated ones
/// requeue for later.
const RABBITMQ_4_3: &[Capability] = &[
    Capability::DeliveryCount,
    Capability::UncountedRelease,
    Capability::ReplicatedDelayedRequeue,
];

/// It has no exchanges, and what its queues can do is set by its administrator.
const ARTEMIS: &[Capability] = &[
    Capability::DeliveryCount,
    Capability::UncountedRelease,
    Capability::SingleActiveConsumer,
    Capability::NestedHeaders,
];

fn main() -> ExitCode {
    enoki_conformance::main_all(vec![
        Broker::named_by("rabbitmq-4", "ENOKI_RABBITMQ_4", true, &[RABBITMQ]),
        Broker::named_by("rabbitmq-4.3", "ENOKI_RABBITMQ_4_3", true, &[RABBITMQ, RABBITMQ_4_3]),
        Broker::named_by("artemis", "ENOKI_ARTEMIS", false, &[ARTEMIS]),
    ])
}
