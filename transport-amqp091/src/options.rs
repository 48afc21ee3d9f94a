//! Broker URLs as lapin's options. lapin is never handed a URL: it would read some of them
//! differently, an IPv6 host as `localhost` among them.

use enoki_core::{BrokerUrl, Error, ErrorKind, Result, Secret};
use lapin::{
    ConnectionProperties,
    types::LongString,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};

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
    /// Reads a URL: `amqp091://user:password@host:5672/vhost?heartbeat=10&connection_name=billing`.
    pub(crate) fn read(url: &BrokerUrl) -> Result<Self> {
        let refuse = |reason: &'static str| {
            Error::new(ErrorKind::Configuration, "read the broker URL").because(reason)
        };
        match url.scheme() {
            "amqp091" => {}
            "amqp091s" => {
                return Err(Error::new(ErrorKind::Unsupported, "read the broker URL")
                    .because("TLS is not compiled in, so nothing is sent")
                    .remedy("use amqp091:// over a network you trust, or a TLS tunnel"));
            }
            _ => {
                return Err(Error::new(ErrorKind::Configuration, "read the broker URL").because(
                    format!("{:?} is not a scheme of the amqp091 transport", url.scheme()),
                ));
            }
        }
        let host = url
            .host()
            .ok_or_else(|| refuse("it names no host").remedy("write amqp091://localhost"))?;
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
                    .remedy("write amqp091://user:password@host"));
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

    /// Where and as whom lapin connects. Its Debug shows the password, so it is made, used and
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

/// What RabbitMQ proposes. Said here, so that a broker that proposes none or gigabytes does not
/// decide how much memory this side takes.
const FRAME_MAX: u32 = 131_072;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Options> {
        Options::read(&BrokerUrl::parse(url)?)
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
            ("amqp091s://host", ErrorKind::Unsupported, "TLS is not compiled in"),
            ("amqp091://host?heartbeat=0", ErrorKind::Configuration, "never be noticed"),
            ("amqp091://host?heartbeat=65536", ErrorKind::Configuration, "from 1 to 65535"),
            ("amqp091://host?heartbeat=1&heartbeat=2", ErrorKind::Configuration, "twice"),
            ("amqp091://host?hearbeat=1", ErrorKind::Configuration, "did you mean \"heartbeat\""),
            ("amqp091://host?prefetch_everything=1", ErrorKind::Configuration, "known are"),
            ("amqp091://host?verify=verify_peer", ErrorKind::Configuration, "about TLS"),
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
