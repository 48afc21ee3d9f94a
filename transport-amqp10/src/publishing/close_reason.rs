//! What the broker says when it ends a link, or its session, for a message on it. Pure.

use std::cmp::Reverse;

use enoki_core::ShortStr;

use crate::sender::Fate;

/// What the broker says when it ends a link, or its session, for a message on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastWords<'a> {
    text: &'a str,
    /// Whether they are about a routing key of an exchange, and not about all of it.
    is_topic: bool,
}

impl<'a> LastWords<'a> {
    /// `write access to exchange 'shop' in vhost '/' refused for user 'u'`, or of a routing key
    /// `write access to topic 'eu' in exchange 'shop' in vhost …`.
    pub(crate) fn read(text: &'a str) -> Self {
        Self { text, is_topic: text.contains("access to topic '") }
    }

    /// Whether they are about messages like this one.
    fn name(self, fate: &Fate) -> bool {
        // What the default exchange is called where it needs a name.
        let exchange = if fate.exchange.is_empty() { "amq.default" } else { &*fate.exchange };
        let exchange = format!("exchange '{exchange}' in vhost");
        match self.is_topic {
            true => self.text.contains(&format!("topic '{}' in {exchange}", fate.routing_key)),
            false => self.text.contains(&exchange),
        }
    }

    /// Which of these messages without an outcome the broker refused, and cannot have taken.
    ///
    /// It reads a session's messages in their order, and nothing behind the one that it refuses. So of
    /// those that it names it took no more than all but the newest. And it remembers what it permitted a
    /// session: where it took none before, the first of them was refused.
    pub(crate) fn refused(self, lost: &[Fate], taken: &Taken) -> Vec<u64> {
        let mut named: Vec<_> = lost.iter().filter(|fate| self.name(fate)).collect();
        named.sort_unstable_by_key(|fate| Reverse(fate.id));
        let newest_only = named.iter().any(|fate| taken.has(fate, self.is_topic));
        named.truncate(if newest_only { 1 } else { named.len() });
        named.into_iter().map(|fate| fate.id).collect()
    }
}

/// Where messages of this sender went that the broker took, as far as there is room to note it.
#[derive(Debug, Default)]
pub(crate) struct Taken(Vec<(ShortStr, ShortStr)>);

impl Taken {
    pub(crate) fn note(&mut self, fate: &Fate) {
        if self.0.len() < NOTED && !self.has(fate, true) {
            self.0.push((fate.exchange.clone(), fate.routing_key.clone()));
        }
    }

    /// Whether it may have taken one like this: to the same exchange, and with the same routing key if
    /// that matters.
    fn has(&self, fate: &Fate, by_key: bool) -> bool {
        let is_like = |(exchange, key): &(ShortStr, ShortStr)| {
            *exchange == fate.exchange && (!by_key || *key == fate.routing_key)
        };
        self.0.len() == NOTED || self.0.iter().any(is_like)
    }
}

/// How many exchanges and routing keys are noted. Behind that, any may have been.
const NOTED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(id: u64, exchange: &'static str, key: &'static str) -> Fate {
        Fate {
            id,
            mandatory: true,
            exchange: ShortStr::from_static(exchange),
            routing_key: ShortStr::from_static(key),
        }
    }

    fn refused(text: &str, lost: &[Fate], taken: &Taken) -> Vec<u64> {
        let mut ids = LastWords::read(text).refused(lost, taken);
        ids.sort_unstable();
        ids
    }

    const EXCHANGE: &str = "write access to exchange 'shop' in vhost '/' refused for user 'u'";
    const TOPIC: &str = "write access to topic 'eu' in exchange 'shop' in vhost '/' refused";
    const DEFAULT: &str = "write access to exchange 'amq.default' in vhost '/' refused for 'u'";

    #[test]
    fn what_the_broker_names_was_refused_and_nothing_else() {
        let lost = [
            fate(1, "shop", "eu"),
            fate(2, "sho", "eu"),
            fate(3, "", "eu"),
            fate(4, "shop", "us"),
            fate(5, "shop", "eu"),
        ];
        let none = Taken::default();
        assert_eq!(refused(EXCHANGE, &lost, &none), [1, 4, 5]);
        assert_eq!(refused(TOPIC, &lost, &none), [1, 5]);
        assert_eq!(refused(DEFAULT, &lost, &none), [3]);
        assert_eq!(refused("the node goes down", &lost, &none), [0; 0]);
        assert_eq!(refused(EXCHANGE, &[], &none), [0; 0]);
    }

    #[test]
    fn where_it_took_one_before_only_the_newest_is_sure() {
        let mut taken = Taken::default();
        taken.note(&fate(1, "shop", "us"));
        // In whatever order they are told.
        let lost = [fate(5, "shop", "eu"), fate(7, "shop", "eu"), fate(6, "shop", "eu")];
        assert_eq!(refused(EXCHANGE, &lost, &taken), [7]);
        assert_eq!(refused(TOPIC, &lost, &taken), [5, 6, 7], "another key is another permission");
        taken.note(&fate(2, "shop", "eu"));
        assert_eq!(refused(TOPIC, &lost, &taken), [7]);
    }

    #[test]
    fn what_is_not_noted_may_have_been() {
        let mut taken = Taken::default();
        for number in 0..100 {
            let key = ShortStr::new(format!("k{number}")).unwrap();
            taken.note(&Fate { routing_key: key, ..fate(number, "others", "") });
        }
        assert_eq!(taken.0.len(), NOTED);
        assert_eq!(refused(EXCHANGE, &[fate(1, "shop", ""), fate(2, "shop", "")], &taken), [2]);
    }
}
