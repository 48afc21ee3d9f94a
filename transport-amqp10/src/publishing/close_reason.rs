//! Which messages a broker's reason for ending a link is about. Pure.
//!
//! RabbitMQ answers a message that the login may not publish by ending the session around its link, with a
//! text that names the exchange and perhaps the routing key. docs/design/17-amqp10.md has the rule for which
//! messages were refused.

use std::cmp::Reverse;

use enoki_core::ShortStr;

use super::unconfirmed::Unconfirmed;

/// The text with which a broker ended a link, or its session, because of a message on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CloseReason<'a> {
    text: &'a str,
    /// Whether it is about one routing key of an exchange, and not about all of the exchange.
    is_topic: bool,
}

impl<'a> CloseReason<'a> {
    /// Reads a text such as `write access to exchange 'shop' in vhost '/' refused for user 'u'`, or for
    /// a routing key `write access to topic 'eu' in exchange 'shop' in vhost …`.
    pub(crate) fn read(text: &'a str) -> Self {
        Self { text, is_topic: text.contains("access to topic '") }
    }

    /// Whether it is about messages to where this one went.
    fn names(self, message: &Unconfirmed) -> bool {
        // RabbitMQ's name for the default exchange in such texts.
        let exchange = if message.exchange.is_empty() { "amq.default" } else { &*message.exchange };
        let exchange = format!("exchange '{exchange}' in vhost");
        match self.is_topic {
            true => self.text.contains(&format!("topic '{}' in {exchange}", message.routing_key)),
            false => self.text.contains(&exchange),
        }
    }

    /// Which of these messages without an outcome the broker refused, and cannot have taken.
    ///
    /// RabbitMQ reads the messages of a session in their order, and reads nothing behind the one that it
    /// refuses. So of the messages that the text names it may have taken all but the newest. And it remembers
    /// what it permitted a session: if it took none of them before, it refused the first, and took none.
    pub(crate) fn refused(self, lost: &[Unconfirmed], accepted: &AcceptedRoutes) -> Vec<u64> {
        let mut named: Vec<_> = lost.iter().filter(|message| self.names(message)).collect();
        named.sort_unstable_by_key(|message| Reverse(message.id));
        let newest_only = named.iter().any(|message| accepted.has(message, self.is_topic));
        named.truncate(if newest_only { 1 } else { named.len() });
        named.into_iter().map(|message| message.id).collect()
    }
}

/// The exchanges and routing keys of messages of one sender that the broker took, up to [`NOTED`] of them.
/// When it is full, any may have been taken.
#[derive(Debug, Default)]
pub(crate) struct AcceptedRoutes(Vec<(ShortStr, ShortStr)>);

impl AcceptedRoutes {
    pub(crate) fn note(&mut self, message: &Unconfirmed) {
        if self.0.len() < NOTED && !self.has(message, true) {
            self.0.push((message.exchange.clone(), message.routing_key.clone()));
        }
    }

    /// Whether the broker may have taken a message to the same exchange, and if `by_key` with the same
    /// routing key.
    fn has(&self, message: &Unconfirmed, by_key: bool) -> bool {
        let is_like = |(exchange, key): &(ShortStr, ShortStr)| {
            *exchange == message.exchange && (!by_key || *key == message.routing_key)
        };
        self.0.len() == NOTED || self.0.iter().any(is_like)
    }
}

/// How many exchanges and routing keys are noted.
const NOTED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: u64, exchange: &'static str, key: &'static str) -> Unconfirmed {
        Unconfirmed {
            id,
            mandatory: true,
            exchange: ShortStr::from_static(exchange),
            routing_key: ShortStr::from_static(key),
        }
    }

    fn refused(text: &str, lost: &[Unconfirmed], accepted: &AcceptedRoutes) -> Vec<u64> {
        let mut ids = CloseReason::read(text).refused(lost, accepted);
        ids.sort_unstable();
        ids
    }

    const EXCHANGE: &str = "write access to exchange 'shop' in vhost '/' refused for user 'u'";
    const TOPIC: &str = "write access to topic 'eu' in exchange 'shop' in vhost '/' refused";
    const DEFAULT: &str = "write access to exchange 'amq.default' in vhost '/' refused for 'u'";

    #[test]
    fn what_the_broker_names_was_refused_and_nothing_else() {
        let lost = [
            message(1, "shop", "eu"),
            message(2, "sho", "eu"),
            message(3, "", "eu"),
            message(4, "shop", "us"),
            message(5, "shop", "eu"),
        ];
        let none = AcceptedRoutes::default();
        assert_eq!(refused(EXCHANGE, &lost, &none), [1, 4, 5]);
        assert_eq!(refused(TOPIC, &lost, &none), [1, 5]);
        assert_eq!(refused(DEFAULT, &lost, &none), [3]);
        assert_eq!(refused("the node goes down", &lost, &none), [0; 0]);
        assert_eq!(refused(EXCHANGE, &[], &none), [0; 0]);
    }

    #[test]
    fn where_it_took_one_before_only_the_newest_is_sure() {
        let mut accepted = AcceptedRoutes::default();
        accepted.note(&message(1, "shop", "us"));
        // In whatever order they are told.
        let lost = [message(5, "shop", "eu"), message(7, "shop", "eu"), message(6, "shop", "eu")];
        assert_eq!(refused(EXCHANGE, &lost, &accepted), [7]);
        assert_eq!(
            refused(TOPIC, &lost, &accepted),
            [5, 6, 7],
            "another key is another permission"
        );
        accepted.note(&message(2, "shop", "eu"));
        assert_eq!(refused(TOPIC, &lost, &accepted), [7]);
    }

    #[test]
    fn what_is_not_noted_may_have_been() {
        let mut accepted = AcceptedRoutes::default();
        for number in 0..100 {
            let key = ShortStr::new(format!("k{number}")).unwrap();
            accepted.note(&Unconfirmed { routing_key: key, ..message(number, "others", "") });
        }
        assert_eq!(accepted.0.len(), NOTED);
        assert_eq!(
            refused(EXCHANGE, &[message(1, "shop", ""), message(2, "shop", "")], &accepted),
            [2]
        );
    }
}
