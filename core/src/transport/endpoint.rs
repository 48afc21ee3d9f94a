//! Where an AMQP broker is, and as whom to log in.

use crate::{
    error::{Error, ErrorKind, Result},
    url::{BrokerUrl, Secret},
};

/// What the URL of an AMQP broker says, checked once for all transports.
///
/// ```
/// use enoki_core::{BrokerUrl, transport::Endpoint};
///
/// let url = BrokerUrl::parse("amqp091://shop:s3cret@[::1]/eu?heartbeat=5")?;
/// let endpoint = Endpoint::read(&url, "amqp091")?;
/// assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 5672));
/// assert_eq!(endpoint.heartbeat, 5);
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Endpoint {
    /// The host: a name or an address, an IPv6 address without its brackets.
    pub host: String,
    /// The port; 5672 unless the URL says otherwise.
    pub port: u16,
    /// The virtual host.
    pub virtual_host: String,
    /// The login.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// Seconds between heartbeats: a dead broker is noticed after twice as long.
    pub heartbeat: u16,
    /// What the broker is to show for the connection.
    pub connection_name: Option<String>,
}

impl Endpoint {
    /// Reads a URL of this scheme: `amqp091://user:password@host:5672/vhost?heartbeat=10`.
    ///
    /// The scheme with an `s` behind it is refused: TLS is not compiled in. Parameters are
    /// `heartbeat` (seconds from 1 to 65,535; 10 by default) and `connection_name`; what nobody
    /// knows is refused, and what other clients take for TLS settings, too. Without user and
    /// password the login is `guest`, without a path the virtual host is `/`.
    pub fn read(url: &BrokerUrl, scheme: &str) -> Result<Self> {
        let refuse = |reason: &'static str| {
            Error::new(ErrorKind::Configuration, "read the broker URL").because(reason)
        };
        if url.scheme().strip_suffix('s') == Some(scheme) {
            return Err(Error::new(ErrorKind::Unsupported, "read the broker URL")
                .because("TLS is not compiled in, so nothing is sent")
                .remedy(format!("use {scheme}:// over a network you trust, or a TLS tunnel")));
        }
        if url.scheme() != scheme {
            return Err(Error::new(ErrorKind::Configuration, "read the broker URL")
                .because(format!("{:?} is not a scheme of the {scheme} transport", url.scheme())));
        }
        let host = url.host().ok_or_else(|| {
            refuse("it names no host").remedy(format!("write {scheme}://localhost"))
        })?;
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
                    .remedy(format!("write {scheme}://user:password@host")));
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
    pub fn subject(&self) -> String {
        let Self { host, port, virtual_host, username, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        format!("{host}:{port}, virtual host {virtual_host:?}, as {username:?}")
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

/// Seconds between heartbeats, unless the URL says otherwise.
const HEARTBEAT: u16 = 10;
