//! Broker URLs as lapin's options. lapin is never handed a URL: it would read some of them
//! differently, an IPv6 host as `localhost` among them.

use std::ops::Deref;

use enoki_amqp::{Connector, Endpoint};
use enoki_core::{BrokerUrl, Result, transport::Settings};
use lapin::{
    ConnectionProperties,
    types::LongString,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism},
};

use crate::limits::FRAME_MAX;

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
    /// Reads a URL: `amqp091://user:password@host:5672/vhost?heartbeat=10&connection_name=billing`.
    pub(crate) fn read(url: &BrokerUrl, settings: &Settings) -> Result<Self> {
        let endpoint = Endpoint::read(url, "amqp091", settings)?;
        let connector = Connector::new(&endpoint, &settings.tls)?;
        Ok(Self { endpoint, connector, max_body: settings.limits.max_body })
    }

    /// As whom lapin connects; where is the connector's affair. Its Debug shows the password, so it is made, used and
    /// forgotten in one place.
    pub(crate) fn uri(&self) -> AMQPUri {
        AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.username.clone(),
                    password: self.password.reveal().to_owned(),
                },
                host: self.host.clone(),
                port: self.port,
            },
            vhost: self.virtual_host.clone(),
            query: AMQPQueryString {
                frame_max: Some(FRAME_MAX),
                heartbeat: Some(self.heartbeat),
                auth_mechanism: Some(match self.user() {
                    Some(_) => SASLMechanism::Plain,
                    None => SASLMechanism::External,
                }),
                ..AMQPQueryString::default()
            },
        }
    }

    /// What lapin tells the broker about this side. Automatic recovery stays off: a connection
    /// that recovers by itself hangs for good now and then, and acknowledges by stale tags.
    pub(crate) fn properties(&self) -> ConnectionProperties {
        let text = |text: &str| LongString::from(text.as_bytes());
        let mut properties = ConnectionProperties::default();
        for (name, value) in [("product", "enoki"), ("version", env!("CARGO_PKG_VERSION"))] {
            properties = properties.with_client_property(name.into(), text(value));
        }
        if let Some(name) = &self.connection_name {
            properties = properties.with_connection_name(text(name));
        }
        properties
    }
}

#[cfg(test)]
mod tests {
    use enoki_core::ErrorKind;

    use super::*;

    fn read(url: &str) -> Result<Options> {
        Options::read(&BrokerUrl::parse(url)?, &Settings::default())
    }

    #[test]
    fn a_bare_host_gets_the_usual_defaults() {
        let options = read("amqp091://localhost").unwrap();
        assert_eq!(options.subject(), "localhost:5672, virtual host \"/\", as \"guest\"");
        let uri = options.uri();
        assert_eq!(uri.authority.userinfo.password, "guest");
        assert_eq!(uri.query.frame_max, Some(131_072));
        assert_eq!(uri.query.heartbeat, Some(10));
    }

    #[test]
    fn an_ipv6_host_stays_what_it_is() {
        let options = read("amqp091://[2001:db8::5]:5673/vh").unwrap();
        assert_eq!(options.uri().authority.host, "2001:db8::5");
        assert_eq!(options.uri().authority.port, 5673);
        assert_eq!(options.subject(), "[2001:db8::5]:5673, virtual host \"vh\", as \"guest\"");
    }

    #[test]
    fn every_part_of_the_url_is_used() {
        let options =
            read("amqp091://shop:s3cr%2Ft@host:1/eu%2Fprod?heartbeat=3&connection_name=a%20b")
                .unwrap();
        let uri = options.uri();
        assert_eq!(uri.vhost, "eu/prod");
        assert_eq!(uri.authority.userinfo.username, "shop");
        assert_eq!(uri.authority.userinfo.password, "s3cr/t");
        assert_eq!(uri.query.heartbeat, Some(3));
        assert_eq!(options.connection_name.as_deref(), Some("a b"));
        assert!(!format!("{options:?} {}", options.subject()).contains("s3cr"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let table = [
            ("amqp091:", ErrorKind::Configuration, "names no host"),
            #[cfg(not(feature = "tls"))]
            ("amqp091s://host", ErrorKind::Unsupported, "TLS is not compiled in"),
            ("amqp091://host?heartbeat=0", ErrorKind::Configuration, "never be noticed"),
            ("amqp091://host?heartbeat=65536", ErrorKind::Configuration, "from 1 to 65535"),
            ("amqp091://host?heartbeat=1&heartbeat=2", ErrorKind::Configuration, "twice"),
            ("amqp091://host?hearbeat=1", ErrorKind::Configuration, "did you mean \"heartbeat\""),
            ("amqp091://host?prefetch_everything=1", ErrorKind::Configuration, "known are"),
            ("amqp091://host?verify=verify_peer", ErrorKind::Configuration, "not set in the URL"),
            ("amqp091://:secret@host", ErrorKind::Configuration, "no user name"),
            ("amqp091://host/", ErrorKind::Configuration, "empty name"),
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
