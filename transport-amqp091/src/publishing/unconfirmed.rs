//! The messages of a channel that the broker has not answered, and the outcome that each answer means.
//!
//! The broker answers by number: one message, or all up to one. A message that it returns as unroutable it names by
//! nothing but the message itself, and it does so some time before the answer. So mandatory messages are known by
//! their message ids. `docs/design/05-publishing.md` has the reasons.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use enoki_core::{
    Error, ErrorKind, ShortStr,
    transport::{Outgoing, PublishOutcome},
};

use super::close_reason::CloseReason;
use crate::{
    error::{self, exchange_subject},
    proto::event::Answer,
};

/// The messages that the broker has not answered.
#[derive(Debug, Default)]
pub(super) struct UnconfirmedMessages {
    /// By their number, which is the broker's: the first message on the channel is 1. No number is above `last`.
    messages: BTreeMap<u64, Unconfirmed>,
    /// The number of the last message that was sent, answered or not; 0 before the first.
    last: u64,
    /// The numbers of the mandatory messages among `messages`, by message id: exactly those that have one in
    /// `Unconfirmed::mandatory`.
    mandatory: HashMap<ShortStr, u64>,
    /// Where a message of this sender was accepted: that exchange existed, and this login was permitted to publish
    /// there.
    accepted: AcceptedRoutes,
}

/// A message that the broker has not answered.
#[derive(Debug)]
struct Unconfirmed {
    /// The core's id for the message.
    id: u64,
    exchange: ShortStr,
    routing_key: ShortStr,
    /// The message id, if the message is mandatory.
    mandatory: Option<ShortStr>,
    /// The length of the body, in bytes.
    body: usize,
    /// Whether the broker returned it. Never set unless it is mandatory.
    returned: bool,
}

impl UnconfirmedMessages {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether a mandatory message of this id has no answer yet. Two of one id could not be told apart.
    pub(super) fn has(&self, message_id: &str) -> bool {
        self.mandatory.contains_key(message_id)
    }

    /// A message was sent, after those before it. Its id is not that of another mandatory message here.
    pub(super) fn sent(&mut self, outgoing: &Outgoing) {
        self.last += 1;
        let message_id = &outgoing.message.properties.message_id;
        let mandatory = message_id.as_ref().filter(|_| outgoing.mandatory);
        if let Some(message_id) = mandatory {
            self.mandatory.insert(message_id.clone(), self.last);
        }
        self.messages.insert(
            self.last,
            Unconfirmed {
                id: outgoing.id,
                exchange: outgoing.exchange.clone(),
                routing_key: outgoing.routing_key.clone(),
                mandatory: mandatory.cloned(),
                body: outgoing.message.body.len(),
                returned: false,
            },
        );
    }

    /// The broker returned a message; its answer is still to come.
    pub(super) fn returned(&mut self, message_id: &str) {
        let number = self.mandatory.get(message_id);
        if let Some(message) = number.and_then(|number| self.messages.get_mut(number)) {
            message.returned = true;
        }
    }

    /// The broker answers one message, or all that are left up to it, and their outcomes are appended. Unknown numbers
    /// are ignored.
    pub(super) fn answered(
        &mut self,
        number: u64,
        multiple: bool,
        answer: Answer,
        into: &mut Vec<(u64, PublishOutcome)>,
    ) {
        if multiple {
            while let Some(first) = self.messages.first_entry()
                && *first.key() <= number
            {
                let message = first.remove();
                into.push(self.resolve(message, answer));
            }
        } else if let Some(message) = self.messages.remove(&number) {
            into.push(self.resolve(message, answer));
        }
    }

    fn resolve(&mut self, message: Unconfirmed, answer: Answer) -> (u64, PublishOutcome) {
        if let Some(message_id) = &message.mandatory {
            self.mandatory.remove(message_id);
        }
        let outcome = match answer {
            Answer::Nack => PublishOutcome::Rejected(
                Error::new(ErrorKind::Refused, PUBLISH)
                    .on(exchange_subject(&message.exchange))
                    .because("the broker refused the message, as a full queue does, or one whose node is down"),
            ),
            Answer::Ack if message.returned => PublishOutcome::Unroutable,
            Answer::Ack => {
                self.accepted.record(&message.exchange);
                self.accepted.record(&(&message.exchange, &message.routing_key));
                PublishOutcome::Confirmed
            }
        };
        (message.id, outcome)
    }

    /// The broker closed the channel. Where its text says which messages it refused, their outcomes are appended; the
    /// outcome of the others is not known. Says whether there are any of the first kind.
    pub(super) fn fail_on_close(
        &mut self,
        code: u16,
        text: &str,
        error: &lapin::Error,
        into: &mut Vec<(u64, PublishOutcome)>,
    ) -> bool {
        let reason = CloseReason::read(code, text);
        let mut is_newest = true;
        let before = into.len();
        // The newest message first.
        for message in self.messages.values().rev() {
            let Unconfirmed { exchange, routing_key, .. } = message;
            let refused = match reason {
                CloseReason::Target(_) if !reason.names_target(exchange, routing_key) => false,
                // An exchange that accepted messages may have been deleted a moment ago, or this login may have
                // lost the permission. So the broker may have accepted messages that are not confirmed yet, but not
                // the newest.
                CloseReason::Target(_) => {
                    let was_accepted = if reason.is_about_routing_key() {
                        self.accepted.may_contain(&(exchange, routing_key))
                    } else {
                        self.accepted.may_contain(exchange)
                    };
                    std::mem::take(&mut is_newest) || !was_accepted
                }
                CloseReason::TooLarge(limit) => message.body > limit,
                CloseReason::Other => false,
            };
            if refused {
                let error = error::failed(PUBLISH, exchange_subject(&message.exchange), error);
                into.push((message.id, PublishOutcome::Rejected(error)));
            }
        }
        self.messages.clear();
        self.mandatory.clear();
        into.len() > before
    }
}

/// Exchanges, and pairs of an exchange and a routing key, that accepted a message.
///
/// A Bloom filter with one hash and 4096 bits: it may also seem to contain an item that was never recorded. Then a
/// message that was refused is believed to have no known outcome, and is published again.
#[derive(Debug)]
struct AcceptedRoutes([u64; 64]);

impl Default for AcceptedRoutes {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl AcceptedRoutes {
    fn record(&mut self, item: &impl Hash) {
        let (word, bit) = Self::place(item);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Never `false` for an item that was recorded.
    fn may_contain(&self, item: &impl Hash) -> bool {
        let (word, bit) = Self::place(item);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn place(item: &impl Hash) -> (usize, u64) {
        let mut hasher = DefaultHasher::new();
        item.hash(&mut hasher);
        let [word, bit, ..] = hasher.finish().to_be_bytes();
        (usize::from(word % 64), 1 << (bit % 64))
    }
}

/// The operation of publishing a message, in errors.
pub(crate) const PUBLISH: &str = "publish to";

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Arc};

    use bytes::Bytes;
    use enoki_core::{Message, Properties};
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::{
        Answer::{Ack, Nack},
        *,
    };

    fn outgoing(id: u64, exchange: &'static str, mandatory: bool, body: usize) -> Outgoing {
        let properties = Properties {
            message_id: Some(ShortStr::new(format!("m{id}")).unwrap()),
            ..Properties::default()
        };
        Outgoing {
            id,
            exchange: ShortStr::from_static(exchange),
            routing_key: ShortStr::EMPTY,
            mandatory,
            message: Arc::new(Message {
                body: Bytes::from(vec![0; body]),
                properties,
                ..Message::default()
            }),
        }
    }

    fn refused_on_close(unconfirmed: &mut UnconfirmedMessages, code: u16, text: &str) -> Vec<u64> {
        let error = lapin::ErrorKind::ChannelsLimitReached.into();
        let mut outcomes = Vec::new();
        let explained = unconfirmed.fail_on_close(code, text, &error, &mut outcomes);
        assert!(unconfirmed.is_empty());
        assert_eq!(explained, !outcomes.is_empty());
        let mut ids: Vec<_> = outcomes.into_iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_missing_exchange_refuses_what_cannot_be_stored_and_nothing_else() {
        let text = "NOT_FOUND - no exchange 'gone' in vhost '/'";
        let mut unconfirmed = UnconfirmedMessages::default();
        for (id, exchange) in [(1, "shop"), (2, "gone"), (3, "gone"), (4, "shop")] {
            unconfirmed.sent(&outgoing(id, exchange, true, 0));
        }
        assert_eq!(refused_on_close(&mut unconfirmed, 404, text), [2, 3]);
        // The exchange was there a moment ago: only the newest message is certainly refused.
        for id in 5..9 {
            unconfirmed.sent(&outgoing(id, "gone", true, 0));
        }
        unconfirmed.answered(5, false, Ack, &mut Vec::new());
        assert_eq!(refused_on_close(&mut unconfirmed, 404, text), [8]);
        unconfirmed.sent(&outgoing(9, "gone", true, 0));
        assert!(refused_on_close(&mut unconfirmed, 541, "INTERNAL_ERROR").is_empty());
        let large = "PRECONDITION_FAILED - message size 9 is larger than configured max size 8";
        unconfirmed.sent(&outgoing(10, "shop", true, 8));
        unconfirmed.sent(&outgoing(11, "shop", true, 9));
        assert_eq!(refused_on_close(&mut unconfirmed, 406, large), [11]);
    }

    #[test]
    fn a_refused_topic_refuses_its_key_and_no_other() {
        let text = "ACCESS_REFUSED - access to topic 'no' in exchange 'shop' in vhost '/' refused for user 'u'";
        let mut unconfirmed = UnconfirmedMessages::default();
        let to = |id, exchange, key| Outgoing {
            routing_key: ShortStr::from_static(key),
            ..outgoing(id, exchange, true, 0)
        };
        // That the login may use another key says nothing about this one.
        unconfirmed.sent(&to(1, "shop", "yes"));
        unconfirmed.answered(1, false, Ack, &mut Vec::new());
        let all =
            [("shop", "no"), ("shop", "yes"), ("shop", "no"), ("mart", "no"), ("shop", "yes")];
        for (id, (exchange, key)) in (2..).zip(all) {
            unconfirmed.sent(&to(id, exchange, key));
        }
        assert_eq!(refused_on_close(&mut unconfirmed, 403, text), [2, 4]);
        // The key was permitted a moment ago: only the newest message is certainly refused.
        for id in 7..10 {
            unconfirmed.sent(&to(id, "shop", "no"));
        }
        unconfirmed.answered(7, false, Ack, &mut Vec::new());
        assert_eq!(refused_on_close(&mut unconfirmed, 403, text), [9]);
    }

    #[test]
    fn a_refused_default_exchange_refuses_what_was_published_by_the_name_of_a_queue() {
        let text =
            "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'u'";
        let mut unconfirmed = UnconfirmedMessages::default();
        for (id, exchange) in [(1, ""), (2, "shop"), (3, "")] {
            unconfirmed.sent(&outgoing(id, exchange, true, 0));
        }
        assert_eq!(refused_on_close(&mut unconfirmed, 403, text), [1, 3]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Publish {
            mandatory: bool,
            routable: bool,
        },
        /// The broker looks at the next message, and returns it where that is called for.
        Route,
        /// The broker answers one of those it has looked at.
        Answer(Index, Answer),
        /// The broker answers all that it has looked at.
        AnswerMany,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..5u8, any::<bool>())
                .prop_map(|(n, routable)| Step::Publish { mandatory: n > 0, routable }),
            4 => Just(Step::Route),
            3 => (any::<Index>(), 0..9u8)
                .prop_map(|(which, n)| Step::Answer(which, if n == 0 { Nack } else { Ack })),
            1 => Just(Step::AnswerMany),
        ]
    }

    proptest! {
        #[test]
        fn every_message_gets_the_outcome_that_is_true(steps in vec(step(), 0..400)) {
            let mut unconfirmed = UnconfirmedMessages::default();
            let (mut sent, mut outcomes) = (0, Vec::new());
            let mut wire: VecDeque<(u64, bool)> = VecDeque::new();
            let mut routed: Vec<(u64, bool)> = Vec::new();
            let mut truth: BTreeMap<u64, &str> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Publish { mandatory, routable } => {
                        sent += 1;
                        unconfirmed.sent(&outgoing(sent, "", mandatory, 0));
                        wire.push_back((sent, mandatory && !routable));
                    }
                    Step::Route => if let Some((number, returned)) = wire.pop_front() {
                        if returned {
                            unconfirmed.returned(&format!("m{number}"));
                        }
                        routed.push((number, returned));
                    },
                    Step::Answer(which, answer) if !routed.is_empty() => {
                        let (number, returned) = routed.remove(which.index(routed.len()));
                        // The broker does not refuse a message that it returns.
                        let answer = if returned { Ack } else { answer };
                        unconfirmed.answered(number, false, answer, &mut outcomes);
                        truth.insert(number, match (answer, returned) {
                            (Nack, _) => "Rejected",
                            (Ack, true) => "Unroutable",
                            (Ack, false) => "Confirmed",
                        });
                    }
                    Step::Answer(..) => {}
                    Step::AnswerMany => if let Some((last, _)) = routed.iter().max() {
                        unconfirmed.answered(*last, true, Ack, &mut outcomes);
                        for (number, returned) in routed.drain(..) {
                            truth.insert(number, if returned { "Unroutable" } else { "Confirmed" });
                        }
                    },
                }
                prop_assert_eq!(unconfirmed.len(), wire.len() + routed.len());
                prop_assert!(unconfirmed.mandatory.len() <= unconfirmed.len());
            }
            prop_assert_eq!(outcomes.len(), truth.len());
            for (id, outcome) in outcomes {
                let outcome = format!("{outcome:?}");
                prop_assert!(outcome.starts_with(truth[&id]), "message {}: {}", id, outcome);
            }
        }
    }
}
