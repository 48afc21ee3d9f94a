//! Broker URLs as options for a connection. fe2o3-amqp is never handed a URL: it would put the
//! password of one into its errors.

use std::sync::atomic::{AtomicU64, Ordering};

use enoki_core::{BrokerUrl, Error, ErrorKind, Result, Secret};
use fe2o3_amqp::sasl_profile::SaslProfile;

/// What a URL says, checked.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) virtual_host: String,
    pub(crate) username: String,
    password: Secret,
    heartbeat: u16,
    connection_name: Option<String>,
}

impl Options {
    /// Reads a URL: `amqp10://user:password@host:5672/vhost?heartbeat=10&connection_name=billing`.
    pub(crate) fn read(url: &BrokerUrl) -> Result<Self> {
        let refuse = |reason: &'static str| {
            Error::new(ErrorKind::Configuration, "read the broker URL").because(reason)
        };
        match url.scheme() {
            "amqp10" => {}
            "amqp10s" => {
                return Err(Error::new(ErrorKind::Unsupported, "read the broker URL")
                    .because("TLS is not compiled in, so nothing is sent")
                    .remedy("use amqp10:// over a network you trust, or a TLS tunnel"));
            }
            _ => {
                return Err(Error::new(ErrorKind::Configuration, "read the broker URL").because(
                    format!("{:?} is not a scheme of the amqp10 transport", url.scheme()),
                ));
            }
        }
        let host = url
            .host()
            .ok_or_else(|| refuse("it names no host").remedy("write amqp10://localhost"))?;
        let virtual_host = url.virtual_host()?;
        if virtual_host.len() > 255 {
            return Err(refuse("the virtual host has more than 255 bytes"));
        }
        // As every AMQP client does: RabbitMQ has this login from the start, for localhost only.
        let (username, password) = match (url.username(), url.password()) {
            (None, None) => ("guest", Secret::new("guest")),
            (Some(username), Some(password)) => (username, password.clone()),
            (Some(username), None) => (username, Secret::new("")),
            (None, Some(_)) => {
                return Err(refuse("it has a password and no user name")
                    .remedy("write amqp10://user:password@host"));
            }
        };
        let mut options = Self {
            host: host.to_owned(),
            port: url.port().unwrap_or(5672),
            virtual_host: virtual_host.to_owned(),
            username: username.to_owned(),
            password,
            heartbeat: HEARTBEAT,
            connection_name: None,
        };
        let mut seen: Vec<&str> = Vec::new();
        for (key, value) in url.parameters() {
            if seen.contains(&key) {
                return Err(url.bad_parameter(key, "it is given twice"));
            }
            seen.push(key);
            options.set(url, key, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, url: &BrokerUrl, key: &str, value: &str) -> Result<()> {
        match key {
            "heartbeat" => {
                self.heartbeat = match value.parse() {
                    Ok(0) => {
                        return Err(url.bad_parameter(
                            key,
                            "0 would turn heartbeats off, and a dead broker would never be noticed",
                        ));
                    }
                    Ok(seconds) => seconds,
                    Err(_) => {
                        return Err(url.bad_parameter(
                            key,
                            format!("{value:?} is not a number of seconds from 1 to 65535"),
                        ));
                    }
                };
            }
            "connection_name" => self.connection_name = Some(value.to_owned()),
            key if TLS_PARAMETERS.contains(&key) => {
                return Err(url.bad_parameter(
                    key,
                    "it is about TLS, which is not supported here, so it would protect nothing",
                ));
            }
            _ => return Err(url.unknown_parameter(key, PARAMETERS)),
        }
        Ok(())
    }

    /// How errors name the broker. Never the password.
    pub(crate) fn subject(&self) -> String {
        let Self { host, port, virtual_host, username, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        format!("{host}:{port}, virtual host {virtual_host:?}, as {username:?}")
    }

    /// The login. RabbitMQ asks for one even where it lets everybody in.
    pub(crate) fn login(&self) -> SaslProfile {
        SaslProfile::Plain {
            username: self.username.clone(),
            password: self.password.reveal().to_owned(),
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

/// The parameters that a URL may have.
const PARAMETERS: &[&str] = &["heartbeat", "connection_name"];

/// Parameters of the Erlang client and others. Leaving them unread would look like protection.
const TLS_PARAMETERS: &[&str] = &[
    "verify",
    "cacertfile",
    "certfile",
    "keyfile",
    "password",
    "fail_if_no_peer_cert",
    "server_name_indication",
    "depth",
    "auth_mechanism",
    "ssl",
    "ssl_options",
    "cafile",
    "capath",
    "no_verify_ssl",
];

/// Seconds between heartbeats: a dead broker is noticed after twice as long.
const HEARTBEAT: u16 = 10;

/// Tells the connections of this process apart, for the eye of whoever looks at the broker.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Options> {
        Options::read(&BrokerUrl::parse(url)?)
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
            ("amqp10s://host", ErrorKind::Unsupported, "TLS is not compiled in"),
            ("amqp10://host?heartbeat=0", ErrorKind::Configuration, "never be noticed"),
            ("amqp10://host?heartbeat=65536", ErrorKind::Configuration, "from 1 to 65535"),
            ("amqp10://host?heartbeat=1&heartbeat=2", ErrorKind::Configuration, "twice"),
            ("amqp10://host?hearbeat=1", ErrorKind::Configuration, "did you mean \"heartbeat\""),
            ("amqp10://host?prefetch_everything=1", ErrorKind::Configuration, "known are"),
            ("amqp10://host?verify=verify_peer", ErrorKind::Configuration, "about TLS"),
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
