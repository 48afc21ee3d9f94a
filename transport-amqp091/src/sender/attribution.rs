//! Which messages were returned as unroutable. Pure.
//!
//! The broker says `basic.return`, then acknowledges the message like any other. lapin pairs a
//! return with whichever acknowledgement comes next, so with several messages under way a lost
//! message looks stored and a stored one lost. The returned message itself says which it is: by
//! its message id.
//!
//! What is sure is this. A return comes before the acknowledgement of its message, and lapin gives
//! each answer one waiting return, if any waits. So an answer that carries none proves that every
//! earlier return was carried by an earlier answer. Hence:
//!
//! - a message whose own answer carries nothing was returned if, and only if, an earlier answer
//!   carried its return;
//! - a message whose answer carries the return of *another* is unsure until an answer that came
//!   later carries nothing, or until nothing is under way.
//!
//! Both need all earlier answers to have been seen, so answers are judged together, after as many
//! as there are have been looked at ([`Attribution::conclude`]).

use std::collections::HashMap;

use enoki_core::ShortStr;

/// The answer of the broker to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// `basic.ack`.
    Ack,
    /// `basic.nack`.
    Nack,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The broker has it.
    Confirmed,
    /// It was returned.
    Unroutable,
    /// The broker does not want it.
    Refused,
}

/// The messages under way, by the slot that each has while it is.
#[derive(Debug, Default)]
pub(crate) struct Attribution {
    flights: Vec<Flight>,
    /// Mandatory ones, by message id.
    mandatory: HashMap<ShortStr, usize>,
    /// Answered in this round, and sure once the round is over.
    answered: Vec<(usize, Answer)>,
    /// Answered in this round, with another's return.
    newly_unsure: Vec<usize>,
    /// Answered in an earlier round, with another's return.
    unsure: Vec<usize>,
    /// Whether an answer of this round carried nothing.
    none_waits: bool,
}

#[derive(Debug, Clone, Default)]
struct Flight {
    /// The message id, if the message is mandatory.
    mandatory: Option<ShortStr>,
    returned: bool,
}

impl Attribution {
    /// Whether a mandatory message of this id is under way. Two could not be told apart.
    pub(crate) fn has(&self, message_id: &str) -> bool {
        self.mandatory.contains_key(message_id)
    }

    /// A message is on its way, in a slot that is free; a mandatory one with its id.
    pub(crate) fn departed(&mut self, slot: usize, mandatory: Option<ShortStr>) {
        if let Some(message_id) = &mandatory {
            self.mandatory.insert(message_id.clone(), slot);
        }
        if self.flights.len() <= slot {
            self.flights.resize(slot + 1, Flight::default());
        }
        if let Some(flight) = self.flights.get_mut(slot) {
            *flight = Flight { mandatory, returned: false };
        }
    }

    /// An answer, and the id of the returned message that it carries, if it carries one.
    pub(crate) fn answered(&mut self, slot: usize, answer: Answer, carried: Option<&str>) {
        match carried {
            None => self.none_waits = true,
            Some(message_id) => {
                let returned = self.mandatory.get(message_id);
                if let Some(flight) = returned.and_then(|slot| self.flights.get_mut(*slot)) {
                    flight.returned = true;
                }
            }
        }
        let Some(flight) = self.flights.get(slot) else { return };
        let own = carried.is_none() || flight.returned;
        if answer == Answer::Ack && flight.mandatory.is_some() && !own {
            self.newly_unsure.push(slot);
        } else {
            self.answered.push((slot, answer));
        }
    }

    /// All answers there are have been looked at: judges what can be judged, and frees the slots.
    ///
    /// `all_answered` says that no message is left whose answer has not been seen.
    pub(crate) fn conclude(&mut self, all_answered: bool, mut judged: impl FnMut(usize, Verdict)) {
        let answered = std::mem::take(&mut self.answered);
        for (slot, answer) in &answered {
            let verdict = match answer {
                Answer::Nack => Verdict::Refused,
                Answer::Ack => self.verdict(*slot),
            };
            self.landed(*slot);
            judged(*slot, verdict);
        }
        self.answered = answered;
        self.answered.clear();

        let all = all_answered || std::mem::take(&mut self.none_waits);
        for slot in std::mem::take(&mut self.unsure) {
            self.judge_unsure(slot, all, &mut judged);
        }
        // An answer that carried nothing may have come before these.
        for slot in std::mem::take(&mut self.newly_unsure) {
            self.judge_unsure(slot, all_answered, &mut judged);
        }
    }

    fn judge_unsure(&mut self, slot: usize, sure: bool, judged: &mut impl FnMut(usize, Verdict)) {
        let verdict = self.verdict(slot);
        if sure || verdict == Verdict::Unroutable {
            self.landed(slot);
            judged(slot, verdict);
        } else {
            self.unsure.push(slot);
        }
    }

    fn verdict(&self, slot: usize) -> Verdict {
        match self.flights.get(slot) {
            Some(Flight { mandatory: Some(_), returned: true }) => Verdict::Unroutable,
            _ => Verdict::Confirmed,
        }
    }

    fn landed(&mut self, slot: usize) {
        if let Some(message_id) = self.flights.get_mut(slot).and_then(|f| f.mandatory.take()) {
            self.mandatory.remove(&message_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    fn id(number: usize) -> ShortStr {
        ShortStr::new(format!("m{number}")).unwrap()
    }

    fn round(
        attribution: &mut Attribution,
        answers: &[(usize, Answer, Option<usize>)],
        all_answered: bool,
    ) -> Vec<(usize, Verdict)> {
        for (slot, answer, carried) in answers {
            let carried = carried.map(id);
            attribution.answered(*slot, *answer, carried.as_deref());
        }
        let mut verdicts = Vec::new();
        attribution.conclude(all_answered, |slot, verdict| verdicts.push((slot, verdict)));
        verdicts
    }

    fn three() -> Attribution {
        let mut attribution = Attribution::default();
        (0..3).for_each(|slot| attribution.departed(slot, Some(id(slot))));
        attribution
    }

    use Answer::{Ack, Nack};
    use Verdict::{Confirmed, Refused, Unroutable};

    #[test]
    fn a_return_on_its_own_answer_is_sure() {
        let verdicts = round(&mut three(), &[(1, Ack, Some(1)), (0, Ack, None)], false);
        assert_eq!(verdicts, [(1, Unroutable), (0, Confirmed)]);
    }

    /// What lapin reports here is: 0 was returned, 1 was stored. Both are wrong.
    #[test]
    fn a_return_on_the_answer_to_another_belongs_to_the_message_it_names() {
        let mut attribution = three();
        let verdicts = round(&mut attribution, &[(0, Ack, Some(1)), (1, Ack, None)], false);
        assert_eq!(verdicts, [(1, Unroutable)]);
        assert_eq!(
            round(&mut attribution, &[(2, Ack, None)], true),
            [(2, Confirmed), (0, Confirmed)]
        );
    }

    #[test]
    fn a_carrier_that_was_itself_returned_hears_of_it_later() {
        let mut attribution = three();
        assert_eq!(round(&mut attribution, &[(0, Ack, Some(1))], false), []);
        assert_eq!(
            round(&mut attribution, &[(1, Ack, Some(0))], false),
            [(1, Unroutable), (0, Unroutable)]
        );
    }

    #[test]
    fn a_refused_message_is_refused_whatever_its_answer_carries() {
        let mut attribution = three();
        let verdicts = round(&mut attribution, &[(0, Nack, Some(1)), (1, Ack, None)], false);
        assert_eq!(verdicts, [(0, Refused), (1, Unroutable)]);
        assert!(!attribution.has("m1"));
        assert!(attribution.has("m2"));
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
        /// The sender looks at the answers, in whatever order it comes across them.
        Look(Vec<Index>),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..5u8, any::<bool>())
                .prop_map(|(n, routable)| Step::Publish { mandatory: n > 0, routable }),
            4 => Just(Step::Route),
            4 => (any::<Index>(), 0..9u8)
                .prop_map(|(which, n)| Step::Answer(which, if n == 0 { Nack } else { Ack })),
            1 => vec(any::<Index>(), 0..8).prop_map(Step::Look),
        ]
    }

    /// The broker and lapin, with everything that lies between them and the sender.
    #[derive(Default)]
    struct World {
        sent: usize,
        truth: BTreeMap<usize, Verdict>,
        wire: VecDeque<(usize, bool)>,
        routed: Vec<usize>,
        returns_waiting: VecDeque<usize>,
        answers: Vec<(usize, Answer, Option<usize>)>,
        attribution: Attribution,
        verdicts: BTreeMap<usize, Verdict>,
    }

    impl World {
        fn publish(&mut self, mandatory: bool, routable: bool) {
            let slot = self.sent;
            self.sent += 1;
            self.attribution.departed(slot, mandatory.then(|| id(slot)));
            let returned = mandatory && !routable;
            self.truth.insert(slot, if returned { Unroutable } else { Confirmed });
            self.wire.push_back((slot, returned));
        }

        fn route(&mut self) {
            if let Some((slot, returned)) = self.wire.pop_front() {
                self.routed.push(slot);
                if returned {
                    self.returns_waiting.push_back(slot);
                }
            }
        }

        /// As lapin does it: whichever answer comes next carries the return that waits longest.
        fn answer(&mut self, which: usize, answer: Answer) {
            let slot = self.routed.remove(which);
            // The broker does not refuse what it returns.
            let answer = if self.truth[&slot] == Unroutable { Ack } else { answer };
            if answer == Nack {
                self.truth.insert(slot, Refused);
            }
            self.answers.push((slot, answer, self.returns_waiting.pop_front()));
        }

        fn look(&mut self, order: &[Index]) {
            for (at, with) in order.iter().enumerate() {
                if at < self.answers.len() {
                    let with = with.index(self.answers.len());
                    self.answers.swap(at, with);
                }
            }
            let all = self.wire.is_empty() && self.routed.is_empty();
            for (slot, verdict) in round(&mut self.attribution, &self.answers, all) {
                assert!(self.verdicts.insert(slot, verdict).is_none(), "two verdicts for {slot}");
            }
            self.answers.clear();
        }
    }

    proptest! {
        #[test]
        fn every_message_gets_the_verdict_that_is_true(steps in vec(step(), 0..400)) {
            let mut world = World::default();
            for step in steps {
                match step {
                    Step::Publish { mandatory, routable } => world.publish(mandatory, routable),
                    Step::Route => world.route(),
                    Step::Answer(which, answer) if !world.routed.is_empty() => {
                        world.answer(which.index(world.routed.len()), answer);
                    }
                    Step::Answer(..) => {}
                    Step::Look(order) => world.look(&order),
                }
                for (slot, verdict) in &world.verdicts {
                    prop_assert_eq!(verdict, &world.truth[slot], "message {}", slot);
                }
            }
            while !world.wire.is_empty() {
                world.route();
            }
            while !world.routed.is_empty() {
                world.answer(0, Ack);
            }
            world.look(&[]);
            prop_assert_eq!(&world.verdicts, &world.truth);
        }
    }
}
