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
