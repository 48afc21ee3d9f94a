//! The address of an AMQP broker, and the login.

use std::net::IpAddr;

use enoki_core::{
    BrokerUrl, Error, ErrorKind, Result, Secret,
    transport::{Login, Settings},
};

/// The URL of an AMQP broker, checked.
///
/// ```
/// use enoki_amqp::Endpoint;
/// use enoki_core::{BrokerUrl, transport::Settings};
///
/// let url = BrokerUrl::parse("amqp091s://shop:s3cret@[::1]/eu?heartbeat=5")?;
/// let endpoint = Endpoint::read(&url, "amqp091", &Settings::default())?;
/// assert!(endpoint.encrypted);
/// assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 5671));
/// assert_eq!(endpoint.heartbeat, 5);
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Endpoint {
    /// Whether the URL asks for TLS. A transport without TLS has to refuse it before a byte is sent.
    pub encrypted: bool,
    /// The host: a name or an address, an IPv6 address without its brackets.
    pub host: String,
    /// The port. By default 5672, with TLS 5671.
    pub port: u16,
    /// The virtual host.
    pub virtual_host: String,
    /// How to log in.
    pub login: Login,
    /// The user; empty if the certificate names it.
    pub username: String,
    /// The password; empty if there is none.
    pub password: Secret,
    /// Seconds between heartbeats. A connection that fell silent is given up after twice as long.
    pub heartbeat: u16,
    /// The name that the broker shows for the connection.
    pub connection_name: Option<String>,
}

impl Endpoint {
    /// Reads a URL of this scheme, or of this scheme with an `s` behind it, which asks for TLS:
    /// `amqp091://user:password@host:5672/vhost?heartbeat=10`.
    ///
    /// Parameters are `heartbeat` (seconds from 1 to 65,535; 10 by default) and `connection_name`. Any other
    /// is refused, also those that other clients read as TLS settings. Without user and password the login is
    /// `guest`, without a path the virtual host is `/`.
    pub fn read(url: &BrokerUrl, scheme: &str, settings: &Settings) -> Result<Self> {
        let refuse = |reason: &'static str| {
            Error::new(ErrorKind::Configuration, "read the broker URL").because(reason)
        };
        let encrypted = url.scheme().strip_suffix('s') == Some(scheme);
        if !encrypted && url.scheme() != scheme {
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
        let (username, password) = match (settings.login, url.username(), url.password()) {
            (Login::External, None, None) if !encrypted => {
                return Err(refuse("a login by certificate needs TLS")
                    .remedy(format!("write {scheme}s://")));
            }
            (Login::External, None, None) if settings.tls.certificate().is_none() => {
                return Err(refuse("a login by certificate needs a certificate")
                    .remedy("give one to Tls::client_certificate"));
            }
            (Login::External, None, None) => ("", Secret::new("")),
            (Login::External, ..) => {
                return Err(refuse("it names a user, and the login is by certificate")
                    .remedy("leave user and password out"));
            }
            // The default of other AMQP clients: a new RabbitMQ has this login, for localhost only.
            (Login::Password, None, None) => ("guest", Secret::new("guest")),
            (Login::Password, Some(username), Some(password)) => (username, password.clone()),
            (Login::Password, Some(username), None) => (username, Secret::new("")),
            (Login::Password, None, Some(_)) => {
                return Err(refuse("it has a password and no user name")
                    .remedy(format!("write {scheme}://user:password@host")));
            }
            // `Login` may get more kinds.
            (login, ..) => {
                return Err(Error::new(ErrorKind::Unsupported, "read the broker URL")
                    .because(format!("the {scheme} transport does not know the login {login:?}")));
            }
        };
        let mut options = Self {
            encrypted,
            host: host.to_owned(),
            port: url.port().unwrap_or(if encrypted { 5671 } else { 5672 }),
            virtual_host: virtual_host.to_owned(),
            login: settings.login,
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
                    "TLS and logins are not set in the URL but by BrokerOptions::tls and login, so it \
                     would protect nothing",
                ));
            }
            _ => return Err(url.unknown_parameter(key, PARAMETERS)),
        }
        Ok(())
    }

    /// How errors name the broker. It never has the password.
    pub fn subject(&self) -> String {
        let Self { host, port, virtual_host, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let user = match self.user() {
            Some(user) => format!("as {user:?}"),
            None => "by certificate".to_owned(),
        };
        format!("{host}:{port}, virtual host {virtual_host:?}, {user}")
    }

    /// The user of the login. `None` for a login by certificate: only the broker knows which user that is.
    pub fn user(&self) -> Option<&str> {
        (self.login == Login::Password).then_some(self.username.as_str())
    }

    /// The remedy in an error about a peer that does not speak AMQP.
    pub fn other_port(&self) -> &'static str {
        if self.encrypted {
            "use the port for AMQP over TLS"
        } else {
            "use the port for AMQP without TLS"
        }
    }

    /// Whether a password goes over a network in the clear.
    pub fn exposes_password(&self) -> bool {
        let loopback = match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost" || self.host.ends_with(".localhost"),
        };
        self.login == Login::Password && !self.encrypted && !loopback
    }
}

/// The parameters that a URL may have.
const PARAMETERS: &[&str] = &["heartbeat", "connection_name"];

/// Parameters for TLS of the Erlang client and others. To ignore them would look like protection.
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

/// Seconds between heartbeats by default.
const HEARTBEAT: u16 = 10;

#[cfg(test)]
mod tests {
    use enoki_core::Tls;

    use super::*;

    fn read(url: &str, settings: &Settings) -> Result<Endpoint> {
        Endpoint::read(&BrokerUrl::parse(url)?, "amqp091", settings)
    }

    #[test]
    fn an_s_asks_for_tls_and_moves_the_port() {
        let plain = read("amqp091://host", &Settings::default()).unwrap();
        assert_eq!((plain.encrypted, plain.port), (false, 5672));
        let encrypted = read("amqp091s://host", &Settings::default()).unwrap();
        assert_eq!((encrypted.encrypted, encrypted.port), (true, 5671));
        assert_eq!(read("amqp091s://host:5672", &Settings::default()).unwrap().port, 5672);
        assert!(read("amqp10s://host", &Settings::default()).is_err());
    }

    #[test]
    fn a_login_by_certificate_takes_a_certificate_tls_and_no_password() {
        let mut settings = Settings::default();
        settings.login = Login::External;
        let refused = |url, settings: &Settings| read(url, settings).unwrap_err().to_string();
        assert!(refused("amqp091s://host", &settings).contains("Tls::client_certificate"));
        settings.tls = Tls::new().client_certificate("chain", "key");
        assert!(refused("amqp091://host", &settings).contains("write amqp091s://"));
        for url in ["amqp091s://me:CANARY@host", "amqp091s://me@host", "amqp091s://:CANARY@host"] {
            let error = refused(url, &settings);
            assert!(error.contains("leave user and password out"), "{error}");
            assert!(!error.contains("CANARY"), "{error}");
        }
        let endpoint = read("amqp091s://host", &settings).unwrap();
        assert_eq!((endpoint.user(), endpoint.password.reveal()), (None, ""));
        assert_eq!(endpoint.subject(), "host:5671, virtual host \"/\", by certificate");
    }

    #[test]
    fn a_password_is_exposed_on_the_way_to_another_machine_without_tls() {
        let exposes = |url| read(url, &Settings::default()).unwrap().exposes_password();
        for url in ["amqp091://10.0.0.1", "amqp091://broker.example", "amqp091://[2001:db8::5]"] {
            assert!(exposes(url), "{url}");
        }
        for url in
            ["amqp091://localhost", "amqp091://127.0.0.2", "amqp091://[::1]", "amqp091s://10.0.0.1"]
        {
            assert!(!exposes(url), "{url}");
        }
    }
}
