//! The options of a connection in the form that fe2o3-amqp takes. It never gets a URL, since its errors would
//! show the password.

use std::sync::atomic::{AtomicU64, Ordering};

use enoki_amqp::{Endpoint, Options};
use fe2o3_amqp::sasl_profile::SaslProfile;

/// The largest message that comes in whole, in bytes: a body, and its headers and properties.
pub(crate) fn max_message(options: &Options) -> usize {
    options.max_body.saturating_add(BESIDES_BODY)
}

/// The login. RabbitMQ asks for one even where it accepts any.
pub(crate) fn login(endpoint: &Endpoint) -> SaslProfile {
    match endpoint.user() {
        Some(user) => SaslProfile::Plain {
            username: user.to_owned(),
            password: endpoint.password.reveal().to_owned(),
        },
        // On the wire it becomes a login by certificate: see `proto/login.rs`.
        None => SaslProfile::Anonymous,
    }
}

/// The hostname of the open (§2.7.1). RabbitMQ takes this for the name of a virtual host, other brokers for a
/// host.
pub(crate) fn hostname(endpoint: &Endpoint) -> String {
    format!("vhost:{}", endpoint.virtual_host)
}

/// How long the broker may be silent, in milliseconds. A peer should send at least twice in that time
/// (§2.4.5), so the broker sends each `heartbeat` seconds.
pub(crate) fn idle_timeout(endpoint: &Endpoint) -> u32 {
    u32::from(endpoint.heartbeat) * 2000
}

/// The name of this side. Each connection has its own, unless the URL has one.
pub(crate) fn container_id(endpoint: &Endpoint) -> String {
    match &endpoint.connection_name {
        Some(name) => name.clone(),
        None => {
            let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
            format!("enoki-{}-{number}", std::process::id())
        }
    }
}

/// How many bytes headers and properties may have.
const BESIDES_BODY: usize = 256 * 1024;

/// Makes the names of connections differ, for an operator who looks at the broker.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

#[cfg(test)]
mod tests {
    use enoki_core::{BrokerUrl, transport::Settings};

    use super::*;

    fn read(url: &str) -> Endpoint {
        let url = BrokerUrl::parse(url).unwrap();
        Endpoint::read(&url, "amqp10", &Settings::default()).unwrap()
    }

    #[test]
    fn a_bare_host_gets_the_usual_defaults() {
        let endpoint = read("amqp10://localhost");
        assert_eq!(hostname(&endpoint), "vhost:/");
        assert_eq!(idle_timeout(&endpoint), 20_000);
        assert_ne!(container_id(&endpoint), container_id(&endpoint));
    }

    #[test]
    fn the_url_is_told_to_the_broker() {
        let endpoint =
            read("amqp10://shop:s3cr%2Ft@host:1/eu%2Fprod?heartbeat=3&connection_name=a%20b");
        assert_eq!(hostname(&endpoint), "vhost:eu/prod");
        assert_eq!(idle_timeout(&endpoint), 6000);
        assert_eq!(container_id(&endpoint), "a b");
        let SaslProfile::Plain { username, password } = login(&endpoint) else {
            panic!("no login by password")
        };
        assert_eq!((username.as_str(), password.as_str()), ("shop", "s3cr/t"));
    }
}
