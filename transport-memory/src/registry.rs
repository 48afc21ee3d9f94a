//! Which broker a URL names.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use enoki_core::{BrokerUrl, Error, ErrorKind, Result};

use crate::{SCHEMES, Version, broker::Broker};

/// The name in the URL, empty for `memory:`, and what the broker has to be like, if it says so.
pub(crate) fn name(url: &BrokerUrl) -> Result<(&str, Option<Version>)> {
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
    } else {
        return Ok((url.host().unwrap_or_default(), version(url)?));
    };
    Err(refuse(format!("a broker in memory has no use for {part}"))
        .remedy("write memory: or memory://name"))
}

fn version(url: &BrokerUrl) -> Result<Option<Version>> {
    let mut version = None;
    for (key, value) in url.parameters() {
        if key != AS {
            return Err(url.unknown_parameter(key, &[AS]));
        }
        version = Some(Version::named(value).ok_or_else(|| {
            let names: Vec<_> = Version::ALL.iter().map(|version| version.as_str()).collect();
            refuse(format!("there is no broker {value:?} to be like"))
                .remedy(format!("{AS} is one of {}", names.join(", ")))
        })?);
    }
    Ok(version)
}

/// The broker of this name; the first to ask creates it, and says what it is like.
pub(crate) fn broker(name: &str, version: Option<Version>) -> Result<Arc<Broker>> {
    let mut brokers = BROKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let broker = brokers
        .entry(name.to_owned())
        .or_insert_with(|| Arc::new(Broker::like(version.unwrap_or_default())));
    match version {
        Some(version) if version != broker.version() => {
            let reason = format!("memory://{name} is there, as {}", broker.version());
            Err(refuse(reason).remedy(format!("use another name for one as {version}")))
        }
        _ => Ok(Arc::clone(broker)),
    }
}

fn refuse(reason: String) -> Error {
    Error::new(ErrorKind::Configuration, "read the broker URL").because(reason)
}

/// The parameter that says what the broker is like.
const AS: &str = "as";

static BROKERS: LazyLock<Mutex<HashMap<String, Arc<Broker>>>> = LazyLock::new(Mutex::default);

#[cfg(test)]
mod tests {
    use super::*;

    fn name_in(url: &str) -> Result<String> {
        name(&BrokerUrl::parse(url)?).map(|(name, _)| name.to_owned())
    }

    fn version_in(url: &str) -> Result<Option<Version>> {
        name(&BrokerUrl::parse(url)?).map(|(_, version)| version)
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
    fn a_url_may_say_what_the_broker_is_like() {
        assert_eq!(version_in("memory://a").unwrap(), None);
        for version in Version::ALL {
            assert_eq!(version_in(&format!("memory://?as={version}")).unwrap(), Some(*version));
        }
        let error = version_in("memory://a?as=rabbitmq-5").unwrap_err().to_string();
        assert!(error.contains("\"rabbitmq-5\"") && error.contains("rabbitmq-3.10, "), "{error}");
    }

    #[test]
    fn one_name_is_one_broker() {
        let (a, b) = (broker("registry-a", None).unwrap(), broker("registry-b", None).unwrap());
        assert!(Arc::ptr_eq(&a, &broker("registry-a", None).unwrap()));
        assert!(!Arc::ptr_eq(&a, &b));
    }

    #[test]
    fn a_broker_stays_like_what_it_is() {
        let old = broker("registry-c", Some(Version::RabbitMq3_10)).unwrap();
        assert!(Arc::ptr_eq(&old, &broker("registry-c", None).unwrap()), "who does not say joins");
        let error = broker("registry-c", Some(Version::RabbitMq4_0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("memory://registry-c is there, as rabbitmq-3.10"));
    }
}
