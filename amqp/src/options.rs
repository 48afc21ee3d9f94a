//! A broker URL and the program's settings, as a transport for AMQP needs them.

use enoki_core::{BrokerUrl, Result, transport::Settings};

use crate::{endpoint::Endpoint, socket::Connector};

/// The options for connections to one broker.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The address of the broker, and the login.
    pub endpoint: Endpoint,
    /// Opens sockets to it.
    pub connector: Connector,
    /// The largest body that consumers take, in bytes.
    pub max_body: usize,
}

impl Options {
    /// Reads a URL of this scheme, or of this scheme with an `s` behind it, which asks for TLS. Nothing is
    /// sent yet.
    ///
    /// Fails as [`Endpoint::read`] and [`Connector::new`] do.
    pub fn read(url: &BrokerUrl, scheme: &str, settings: &Settings) -> Result<Self> {
        let endpoint = Endpoint::read(url, scheme, settings)?;
        let connector = Connector::new(&endpoint, &settings.tls)?;
        Ok(Self { endpoint, connector, max_body: settings.limits.max_body })
    }

    /// [`Endpoint::subject`]: how errors name the broker.
    pub fn subject(&self) -> String {
        self.endpoint.subject()
    }

    /// [`Endpoint::user`]: the user of the login, if it is known here.
    pub fn user(&self) -> Option<&str> {
        self.endpoint.user()
    }
}

#[cfg(test)]
mod tests {
    use enoki_core::ErrorKind;

    use super::*;

    fn read(url: &str) -> Result<Options> {
        Options::read(&BrokerUrl::parse(url)?, "amqp091", &Settings::default())
    }

    #[test]
    fn a_bare_host_gets_the_usual_defaults() {
        let options = read("amqp091://localhost").unwrap();
        assert_eq!(options.subject(), "localhost:5672, virtual host \"/\", as \"guest\"");
        let endpoint = options.endpoint;
        assert_eq!((endpoint.password.reveal(), endpoint.heartbeat), ("guest", 10));
        assert_eq!(endpoint.connection_name, None);
    }

    #[test]
    fn an_ipv6_host_is_kept() {
        let options = read("amqp091://[2001:db8::5]:5673/vh").unwrap();
        let Endpoint { host, port, .. } = &options.endpoint;
        assert_eq!((host.as_str(), *port), ("2001:db8::5", 5673));
        assert_eq!(options.subject(), "[2001:db8::5]:5673, virtual host \"vh\", as \"guest\"");
    }

    #[test]
    fn every_part_of_the_url_is_used() {
        let options =
            read("amqp091://shop:s3cr%2Ft@host:1/eu%2Fprod?heartbeat=3&connection_name=a%20b")
                .unwrap();
        assert!(!format!("{options:?} {}", options.subject()).contains("s3cr"));
        let endpoint = options.endpoint;
        assert_eq!((endpoint.virtual_host.as_str(), endpoint.heartbeat), ("eu/prod", 3));
        assert_eq!((endpoint.username.as_str(), endpoint.password.reveal()), ("shop", "s3cr/t"));
        assert_eq!(endpoint.connection_name.as_deref(), Some("a b"));
    }

    #[test]
    fn a_url_that_cannot_be_meant_is_refused_by_name() {
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
