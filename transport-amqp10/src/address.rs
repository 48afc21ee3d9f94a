//! Addresses. Those of RabbitMQ 4, version 2, are paths: names become segments, percent-encoded. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::peer::Dialect;

/// What RFC 3986 calls unreserved stays as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> impl std::fmt::Display {
    utf8_percent_encode(name, SEGMENT)
}

/// Where deliveries of a queue come from. Brokers other than RabbitMQ have bare names for addresses.
pub(crate) fn source(name: &str, dialect: Dialect) -> String {
    if dialect.rabbitmq { queue(name) } else { name.to_owned() }
}

/// A queue: `/queues/billing`.
pub(crate) fn queue(name: &str) -> String {
    format!("/queues/{}", segment(name))
}

/// An exchange: `/exchanges/shop`. As a target it means the empty routing key.
pub(crate) fn exchange(name: &str) -> String {
    format!("/exchanges/{}", segment(name))
}

/// Where a message goes. The default exchange has no address: it leads to queues, and they have one.
pub(crate) fn target(exchange_name: &str, routing_key: &str, dialect: Dialect) -> String {
    if exchange_name.is_empty() {
        source(routing_key, dialect)
    } else if routing_key.is_empty() {
        exchange(exchange_name)
    } else {
        format!("/exchanges/{}/{}", segment(exchange_name), segment(routing_key))
    }
}

/// The queue that an address names; of any other address the address itself.
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
