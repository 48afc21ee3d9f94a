//! Which broker a URL names.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use enoki_core::{BrokerUrl, Error, ErrorKind, Result};

use crate::{SCHEMES, broker::Broker};

/// The name in the URL; empty for `memory:`.
pub(crate) fn name(url: &BrokerUrl) -> Result<&str> {
    if !SCHEMES.contains(&url.scheme()) {
        return Err(refuse(format!("{:?} is not a scheme of this transport", url.scheme()))
            .remedy("write memory: or memory://name"));
    }
    let part = if url.username().is_some() || url.password().is_some() {
        "a login"
    } else if url.port().is_some() {
        "a port"
    } else if url.path().is_some() {
        "a path"
    } else if let Some((key, _)) = url.parameters().next() {
        return Err(url.unknown_parameter(key, &[]));
    } else {
        return Ok(url.host().unwrap_or_default());
    };
    Err(refuse(format!("a broker in memory has no use for {part}"))
        .remedy("write memory: or memory://name"))
}

/// The broker of this name; the first to ask creates it.
pub(crate) fn broker(name: &str) -> Arc<Broker> {
    let mut brokers = BROKERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(broker) = brokers.get(name) {
        return Arc::clone(broker);
    }
    Arc::clone(brokers.entry(name.to_owned()).or_default())
}

fn refuse(reason: String) -> Error {
    Error::new(ErrorKind::Configuration, "read the broker URL").because(reason)
}

static BROKERS: LazyLock<Mutex<HashMap<String, Arc<Broker>>>> = LazyLock::new(Mutex::default);

#[cfg(test)]
mod tests {
    use super::*;

    fn name_in(url: &str) -> Result<String> {
        name(&BrokerUrl::parse(url)?).map(str::to_owned)
    }

    #[test]
    fn a_url_names_a_broker_and_nothing_else() {
        assert_eq!(name_in("memory:").unwrap(), "");
        assert_eq!(name_in("memory://").unwrap(), "");
        assert_eq!(name_in("memory://a").unwrap(), "a");
        for url in [
            "amqp091://a",
            "memory://user@a",
            "memory://user:secret@a",
            "memory://a:1",
            "memory://a/vhost",
            "memory://a?heartbeat=1",
        ] {
            let error = name_in(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{url}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn one_name_is_one_broker() {
        assert!(Arc::ptr_eq(&broker("registry-a"), &broker("registry-a")));
        assert!(!Arc::ptr_eq(&broker("registry-a"), &broker("registry-b")));
    }
}
