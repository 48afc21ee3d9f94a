//! Broker URLs as options for a connection. fe2o3-amqp is never handed a URL: it would put the
//! password of one into its errors.

use std::{
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering},
};

use enoki_core::{
    BrokerUrl, Result,
    transport::{Endpoint, Settings},
};
use enoki_socket::Connector;
use fe2o3_amqp::sasl_profile::SaslProfile;

/// What a URL says, checked, and as the client library wants it.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    endpoint: Endpoint,
    pub(crate) connector: Connector,
    /// The largest body that consumers take.
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

    /// The largest message that comes in whole: a body, and whatever else is with it.
    pub(crate) fn max_message(&self) -> usize {
        self.max_body.saturating_add(BESIDES_BODY)
    }

    /// The login. RabbitMQ asks for one even where it lets everybody in.
    pub(crate) fn login(&self) -> SaslProfile {
        match self.user() {
            Some(user) => SaslProfile::Plain {
                username: user.to_owned(),
                password: self.password.reveal().to_owned(),
            },
            // What becomes of it on the wire, `proto/login.rs` says.
            None => SaslProfile::Anonymous,
        }
    }

    /// What RabbitMQ takes for the name of a virtual host; to others it is the name of a host.
    pub(crate) fn hostname(&self) -> String {
        format!("vhost:{}", self.virtual_host)
    }

    /// How long the broker may be silent, in milliseconds: it is asked to say something twice as
    /// often as half of this.
    pub(crate) fn idle_timeout(&self) -> u32 {
        u32::from(self.heartbeat) * 2000
    }

    /// The name of this side: its own for each connection, unless the URL gives one.
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

/// How much headers and properties may have.
const BESIDES_BODY: usize = 256 * 1024;

/// Tells the connections of this process apart, for the eye of whoever looks at the broker.
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
    fn an_ipv6_host_stays_what_it_is() {
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
    fn what_cannot_be_meant_is_refused_by_name() {
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
