//! The suite that every transport passes, against each broker that the environment names.
//!
//! `dev/brokers` starts them: `eval "$(dev/brokers env)"`.

use std::{net::TcpListener, process::ExitCode, sync::Arc};

use async_trait::async_trait;
use enoki_conformance::{Broken, Harness};
use enoki_core::{BrokerUrl, Capability, Error, ErrorKind, Result, Transport};
use enoki_transport_amqp091::Amqp091Transport;

/// RabbitMQ, where an environment variable says it is.
#[derive(Debug)]
struct RabbitMq {
    name: &'static str,
    variable: &'static str,
    url: Option<String>,
    /// Whether only `basic.reject` counts as an attempt, as it is since 4.3.
    releases: bool,
    /// Accepts connections, and that is all. The system does it, so nobody has to listen.
    silent: Option<TcpListener>,
}

impl RabbitMq {
    fn named_by(name: &'static str, variable: &'static str, releases: bool) -> Arc<dyn Harness> {
        let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
        let silent = TcpListener::bind("127.0.0.1:0").ok();
        Arc::new(Self { name, variable, url, releases, silent })
    }

    fn url(&self) -> Result<BrokerUrl> {
        let missing = || Error::new(ErrorKind::Configuration, "find a broker");
        BrokerUrl::parse(self.url.as_deref().ok_or_else(missing)?)
    }
}

#[async_trait]
impl Harness for RabbitMq {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> Vec<Capability> {
        let mut capabilities = vec![
            Capability::Exchanges,
            Capability::UnroutableDetection,
            Capability::RedeliveredFlag,
            Capability::ReplicatedDeliveryCount,
            Capability::DeadLetter,
            Capability::Expiry,
            Capability::LengthLimit,
            Capability::Priority,
            Capability::ReplicatedQueues,
            Capability::ExclusiveQueues,
            Capability::SingleActiveConsumer,
            Capability::NestedHeaders,
        ];
        if self.releases {
            capabilities.push(Capability::UncountedRelease);
        }
        capabilities
    }

    async fn transport(&self) -> Result<Arc<dyn Transport>> {
        Ok(Arc::new(Amqp091Transport::new(&self.url()?)?))
    }

    fn broken(&self, how: Broken) -> Option<Arc<dyn Transport>> {
        let url = self.url().ok()?;
        // Without its password, which is the point of printing it.
        let shown = url.to_string();
        let (user, rest) = shown.strip_prefix("amqp091://")?.split_once('@')?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, "%2F"));
        let password = url.password()?.reveal();
        let broken = match how {
            Broken::WrongPassword => format!("{user}:{}@{address}/{path}", Broken::PASSWORD),
            Broken::MissingVirtualHost => {
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
        let url = BrokerUrl::parse(&format!("amqp091://{broken}")).ok()?;
        Some(Arc::new(Amqp091Transport::new(&url).ok()?))
    }

    fn unavailable(&self) -> Option<String> {
        self.url.is_none().then(|| format!("needs {}", self.variable))
    }
}

fn main() -> ExitCode {
    enoki_conformance::main_all(vec![
        RabbitMq::named_by("rabbitmq-3", "ENOKI_RABBITMQ_3", false),
        RabbitMq::named_by("rabbitmq-4", "ENOKI_RABBITMQ_4", false),
        RabbitMq::named_by("rabbitmq-4.3", "ENOKI_RABBITMQ_4_3", true),
    ])
}
