//! The options of a connection in the form that lapin takes. lapin never gets a URL, since it would read some
//! of them differently: an IPv6 host as `localhost`, for one.

use enoki_amqp::Endpoint;
use lapin::{
    ConnectionProperties,
    types::LongString,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism},
};

use crate::limits::FRAME_MAX;

/// The login and the settings of the connection. lapin does not open the socket, so it does not use the host.
///
/// The Debug of this type shows the password, so it is made, used and dropped in one place.
pub(crate) fn uri(endpoint: &Endpoint) -> AMQPUri {
    AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: endpoint.username.clone(),
                password: endpoint.password.reveal().to_owned(),
            },
            host: endpoint.host.clone(),
            port: endpoint.port,
        },
        vhost: endpoint.virtual_host.clone(),
        query: AMQPQueryString {
            frame_max: Some(FRAME_MAX),
            heartbeat: Some(endpoint.heartbeat),
            auth_mechanism: Some(match endpoint.user() {
                Some(_) => SASLMechanism::Plain,
                None => SASLMechanism::External,
            }),
            ..AMQPQueryString::default()
        },
    }
}

/// The properties that lapin sends to the broker. Automatic recovery stays off: a connection that recovers by
/// itself sometimes hangs for ever, and acknowledges by delivery tags of the old connection.
pub(crate) fn properties(endpoint: &Endpoint) -> ConnectionProperties {
    let text = |text: &str| LongString::from(text.as_bytes());
    let mut properties = ConnectionProperties::default();
    for (name, value) in [("product", "enoki"), ("version", env!("CARGO_PKG_VERSION"))] {
        properties = properties.with_client_property(name.into(), text(value));
    }
    if let Some(name) = &endpoint.connection_name {
        properties = properties.with_connection_name(text(name));
    }
    properties
}

#[cfg(test)]
mod tests {
    use enoki_core::{BrokerUrl, transport::Settings};

    use super::*;

    fn read(url: &str) -> AMQPUri {
        let url = BrokerUrl::parse(url).unwrap();
        uri(&Endpoint::read(&url, "amqp091", &Settings::default()).unwrap())
    }

    #[test]
    fn a_bare_host_gets_the_usual_defaults() {
        let uri = read("amqp091://localhost");
        assert_eq!(uri.authority.userinfo.password, "guest");
        assert_eq!(uri.query.frame_max, Some(131_072));
        assert_eq!(uri.query.heartbeat, Some(10));
    }

    #[test]
    fn an_ipv6_host_is_kept() {
        let uri = read("amqp091://[2001:db8::5]:5673/vh");
        assert_eq!((uri.authority.host.as_str(), uri.authority.port), ("2001:db8::5", 5673));
    }

    #[test]
    fn the_url_is_told_to_lapin() {
        let uri = read("amqp091://shop:s3cr%2Ft@host:1/eu%2Fprod?heartbeat=3");
        assert_eq!(uri.vhost, "eu/prod");
        assert_eq!(uri.authority.userinfo.username, "shop");
        assert_eq!(uri.authority.userinfo.password, "s3cr/t");
        assert_eq!(uri.query.heartbeat, Some(3));
    }
}
