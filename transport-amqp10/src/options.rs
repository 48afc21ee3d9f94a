//! Broker URLs as options for a connection. fe2o3-amqp never gets a URL, since its errors would show the
//! password.

use std::{
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering},
};

use enoki_amqp::{Connector, Endpoint};
use enoki_core::{BrokerUrl, Result, transport::Settings};
use fe2o3_amqp::sasl_profile::SaslProfile;

/// The parts of a URL, checked, in the form that the client library takes.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    endpoint: Endpoint,
    pub(crate) connector: Connector,
    /// The largest body that consumers take, in bytes.
    pub(crate) max_body: usize,
}

impl Deref for Options {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Options {
    /// Reads a URL: `amqp10://user:password@host:5672/vhost?heartbeat=10&connection_name=billing`.
    pub(crate) fn read(url: &BrokerUrl, settings: &Settings) -> Result<Self> {
        let endpoint = Endpoint::read(url, "amqp10", settings)?;
        let connector = Connector::new(&endpoint, &settings.tls)?;
        Ok(Self { endpoint, connector, max_body: settings.limits.max_body })
    }

    /// The largest message that comes in whole, in bytes: a body, and its headers and properties.
    pub(crate) fn max_message(&self) -> usize {
        self.max_body.saturating_add(BESIDES_BODY)
    }

    /// The login. RabbitMQ asks for one even where it accepts any.
    pub(crate) fn login(&self) -> SaslProfile {
        match self.user() {
            Some(user) => SaslProfile::Plain {
                username: user.to_owned(),
                password: self.password.reveal().to_owned(),
            },
            // On the wire it becomes a login by certificate: see `proto/login.rs`.
            None => SaslProfile::Anonymous,
        }
    }

    /// The hostname of the open (§2.7.1). RabbitMQ takes this for the name of a virtual host, other brokers
    /// for a host.
    pub(crate) fn hostname(&self) -> String {
        format!("vhost:{}", self.virtual_host)
    }

    /// How long the broker may be silent, in milliseconds. A peer should send at least twice in that time
    /// (§2.4.5), so the broker sends each `heartbeat` seconds.
    pub(crate) fn idle_timeout(&self) -> u32 {
        u32::from(self.heartbeat) * 2000
    }

    /// The name of this side. Each connection has its own, unless the URL has one.
    pub(crate) fn container_id(&self) -> String {
        match &self.connection_name {
            Some(name) => name.clone(),
            None => {
                let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
                format!("enoki-{}-{number}", std::process::id())
            }
        }
    }
}

/// How many bytes headers and properties may have.
const BESIDES_BODY: usize = 256 * 1024;

/// Makes the names of connections differ, for an operator who looks at the broker.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

#[cfg(test)]
mod tests {
    use enoki_core::ErrorKind;

    use super::*;

    fn read(url: &str) -> Result<Options> {
        Options::read(&BrokerUrl::parse(url)?, &Settings::default())
    }

    #[test]
    fn a_bare_host_gets_the_usual_defaults() {
        let options = read("amqp10://localhost").unwrap();
        assert_eq!(options.subject(), "localhost:5672, virtual host \"/\", as \"guest\"");
        assert_eq!(options.password.reveal(), "guest");
        assert_eq!(options.hostname(), "vhost:/");
        assert_eq!(options.idle_timeout(), 20_000);
        assert_ne!(options.container_id(), options.container_id());
    }

    #[test]
    fn an_ipv6_host_is_kept() {
        let options = read("amqp10://[2001:db8::5]:5673/vh").unwrap();
        assert_eq!((options.host.as_str(), options.port), ("2001:db8::5", 5673));
        assert_eq!(options.subject(), "[2001:db8::5]:5673, virtual host \"vh\", as \"guest\"");
    }

    #[test]
    fn every_part_of_the_url_is_used() {
        let options =
            read("amqp10://shop:s3cr%2Ft@host:1/eu%2Fprod?heartbeat=3&connection_name=a%20b")
                .unwrap();
        assert_eq!(options.hostname(), "vhost:eu/prod");
        assert_eq!(options.username, "shop");
        assert_eq!(options.password.reveal(), "s3cr/t");
        assert_eq!(options.idle_timeout(), 6000);
        assert_eq!(options.container_id(), "a b");
        assert!(!format!("{options:?} {}", options.subject()).contains("s3cr"));
    }

    #[test]
    fn a_url_that_cannot_be_meant_is_refused_by_name() {
        let table = [
            ("amqp10:", ErrorKind::Configuration, "names no host"),
            #[cfg(not(feature = "tls"))]
            ("amqp10s://host", ErrorKind::Unsupported, "TLS is not compiled in"),
            ("amqp10://host?heartbeat=0", ErrorKind::Configuration, "never be noticed"),
            ("amqp10://host?heartbeat=65536", ErrorKind::Configuration, "from 1 to 65535"),
            ("amqp10://host?heartbeat=1&heartbeat=2", ErrorKind::Configuration, "twice"),
            ("amqp10://host?hearbeat=1", ErrorKind::Configuration, "did you mean \"heartbeat\""),
            ("amqp10://host?prefetch_everything=1", ErrorKind::Configuration, "known are"),
            ("amqp10://host?verify=verify_peer", ErrorKind::Configuration, "not set in the URL"),
            ("amqp10://:secret@host", ErrorKind::Configuration, "no user name"),
            ("amqp10://host/", ErrorKind::Configuration, "empty name"),
            ("memory://host", ErrorKind::Configuration, "not a scheme"),
        ];
        for (url, kind, text) in table {
            let error = read(url).unwrap_err();
            assert_eq!(error.kind(), kind, "{url}: {error}");
            assert!(error.to_string().contains(text), "{url}: {error}");
            assert!(!error.to_string().contains("secret"), "{url}: {error}");
        }
    }
}
