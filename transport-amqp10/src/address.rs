//! Addresses. Pure. Those of RabbitMQ 4 (version 2) are paths: names become segments, percent-encoded.

use fe2o3_amqp::types::{
    messaging::{Source, Target},
    primitives::{Array, Symbol},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::peer::Dialect;

/// Characters that RFC 3986 calls unreserved stay as they are.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> impl std::fmt::Display {
    utf8_percent_encode(name, SEGMENT)
}

/// The address of a queue. Brokers other than RabbitMQ have bare names for addresses.
fn plain(name: &str, dialect: Dialect) -> String {
    if dialect.rabbitmq { queue(name) } else { name.to_owned() }
}

/// The source of a link that receives from a queue.
pub(crate) fn source(name: &str, dialect: Dialect) -> Source {
    let source = Source::builder().address(plain(name, dialect));
    if dialect.rabbitmq { source.build() } else { source.capabilities(queue_like()).build() }
}

/// The anonymous terminus: the target of a link whose messages each say where they go.
pub(crate) fn anonymous(dialect: Dialect) -> Target {
    let capabilities = (!dialect.rabbitmq).then(queue_like);
    Target { capabilities, ..Target::default() }
}

/// Asks for a queue where the address may also be a topic. A broker accepts a message to a topic that no
/// consumer listens to, and drops it.
pub(crate) fn queue_like() -> Array<Symbol> {
    Array::from(vec![Symbol::from("queue")])
}

/// A queue: `/queues/billing`.
pub(crate) fn queue(name: &str) -> String {
    format!("/queues/{}", segment(name))
}

/// An exchange: `/exchanges/shop`. As a target it means the empty routing key.
pub(crate) fn exchange(name: &str) -> String {
    format!("/exchanges/{}", segment(name))
}

/// The address for an exchange and a routing key. The default exchange has no address: the queue that it
/// leads to has one.
pub(crate) fn target(exchange_name: &str, routing_key: &str, dialect: Dialect) -> String {
    if exchange_name.is_empty() {
        plain(routing_key, dialect)
    } else if routing_key.is_empty() {
        exchange(exchange_name)
    } else {
        format!("/exchanges/{}/{}", segment(exchange_name), segment(routing_key))
    }
}

/// Whether Artemis takes it for the name of a queue only: not for an address with a queue, a pattern, or a
/// name with parameters.
pub(crate) fn is_only_a_name(name: &str) -> bool {
    let pattern = name.split('.').any(|word| word == "*" || word == "#");
    !pattern && !name.contains("::") && !name.contains('?')
}

/// The queue that an address names; any other address as it is.
pub(crate) fn queue_of(address: &str) -> String {
    address
        .strip_prefix("/queues/")
        .and_then(|name| percent_decode_str(name).decode_utf8().ok())
        .map_or_else(|| address.to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_segments() {
        assert_eq!(queue("eu/billing #1"), "/queues/eu%2Fbilling%20%231");
        let rabbitmq = Dialect { rabbitmq: true, ..Dialect::default() };
        let target = |exchange, key| target(exchange, key, rabbitmq);
        assert_eq!(target("shop", "order.placed-~_"), "/exchanges/shop/order.placed-~_");
        assert_eq!(target("shop", ""), "/exchanges/shop");
        assert_eq!(target("", "billing"), "/queues/billing");
        assert_eq!(target("ü", "%"), "/exchanges/%C3%BC/%25");
        assert_eq!(super::target("", "eu/billing", Dialect::default()), "eu/billing");
        assert_eq!(queue_of("/exchanges/shop"), "/exchanges/shop");
        assert_eq!(queue_of("amq.rabbitmq.reply-to"), "amq.rabbitmq.reply-to");
    }

    #[test]
    fn some_names_say_more_to_artemis() {
        for name in ["a::b", "a.*", "#", "a.#.b", "a?b", "?"] {
            assert!(!is_only_a_name(name), "{name}");
        }
        for name in ["a", "a*", "a.#b", "a:b", "eu/billing #1"] {
            assert!(is_only_a_name(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_queue_is_found_again(name: String) {
            let address = queue(&name);
            prop_assert_eq!(queue_of(&address), name);
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
            prop_assert!(address.bytes().skip(8).all(plain));
        }
    }
}
