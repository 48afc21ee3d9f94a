//! The messages of a channel that the broker has not answered. Pure.
//!
//! The broker answers by number, one message or all up to one. What it returns as unroutable it names by
//! nothing but the message itself, some time before the answer: so mandatory ones are known by their
//! message ids.

use std::collections::{BTreeMap, HashMap};

use enoki_core::{
    Error, ErrorKind, ShortStr,
    transport::{Outgoing, PublishOutcome},
};

use super::{PUBLISH, last_words::LastWords, target};
use crate::error;

/// The messages that the broker has not answered, by the number it knows them by.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: BTreeMap<u64, Flight>,
    /// The number of the last one.
    last: u64,
    /// Mandatory ones, by message id.
    mandatory: HashMap<ShortStr, u64>,
    /// Exchanges that took a message of this sender: it is known that they were there.
    seen: Vec<ShortStr>,
}

#[derive(Debug)]
struct Flight {
    /// The core's name for the message.
    id: u64,
    exchange: ShortStr,
    /// The message id, if the message is mandatory.
    mandatory: Option<ShortStr>,
    body: usize,
    returned: bool,
}

/// The answer of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// `basic.ack`.
    Ack,
    /// `basic.nack`.
    Nack,
}

impl Flights {
    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether a mandatory message of this id is under way. Two could not be told apart.
    pub(super) fn has(&self, message_id: &str) -> bool {
        self.mandatory.contains_key(message_id)
    }

    /// A message is on its way, behind those before it.
    pub(super) fn departed(&mut self, outgoing: &Outgoing) {
        self.last += 1;
        let message_id = &outgoing.message.properties.message_id;
        let mandatory = message_id.as_ref().filter(|_| outgoing.mandatory);
        if let Some(message_id) = mandatory {
            self.mandatory.insert(message_id.clone(), self.last);
        }
        self.flights.insert(
            self.last,
            Flight {
                id: outgoing.id,
                exchange: outgoing.exchange.clone(),
                mandatory: mandatory.cloned(),
                body: outgoing.message.body.len(),
                returned: false,
            },
        );
    }

    /// The broker gave a message back; its answer is yet to come.
    pub(super) fn returned(&mut self, message_id: &str) {
        let number = self.mandatory.get(message_id);
        if let Some(flight) = number.and_then(|number| self.flights.get_mut(number)) {
            flight.returned = true;
        }
    }

    /// The broker answers one message, or all that are left up to it. Of others it knows nothing.
    pub(super) fn answered(
        &mut self,
        number: u64,
        multiple: bool,
        answer: Answer,
        into: &mut Vec<(u64, PublishOutcome)>,
    ) {
        if multiple {
            while let Some(first) = self.flights.first_entry()
                && *first.key() <= number
            {
                let flight = first.remove();
                into.push(self.landed(flight, answer));
            }
        } else if let Some(flight) = self.flights.remove(&number) {
            into.push(self.landed(flight, answer));
        }
    }

    fn landed(&mut self, flight: Flight, answer: Answer) -> (u64, PublishOutcome) {
        if let Some(message_id) = &flight.mandatory {
            self.mandatory.remove(message_id);
        }
        let outcome = match answer {
            Answer::Nack => PublishOutcome::Rejected(
                Error::new(ErrorKind::Refused, PUBLISH)
                    .on(target(&flight.exchange))
                    .because("the broker refused the message, as a full queue does"),
            ),
            Answer::Ack if flight.returned => PublishOutcome::Unroutable,
            Answer::Ack => {
                if !self.seen.contains(&flight.exchange) {
                    self.seen.push(flight.exchange);
                }
                PublishOutcome::Confirmed
            }
        };
        (flight.id, outcome)
    }

    /// The broker closed the channel. Where its last words say which messages it refused, those have
    /// an outcome; nobody knows about the others.
    pub(super) fn abandon(
        &mut self,
        code: u16,
        text: &str,
        error: &lapin::Error,
        into: &mut Vec<(u64, PublishOutcome)>,
    ) {
        let words = LastWords::read(code, text);
        let mut named = Vec::new();
        // The newest first.
        for flight in self.flights.values().rev() {
            let refused = match words {
                LastWords::Exchange(_) if !words.name(&flight.exchange) => false,
                // An exchange that was there may have gone a moment ago, after it had taken
                // messages that are not confirmed yet. The last one it cannot have taken.
                LastWords::Exchange(_) => {
                    let newest = !named.contains(&&flight.exchange);
                    named.push(&flight.exchange);
                    newest || !self.seen.contains(&flight.exchange)
                }
                LastWords::TooLarge(limit) => flight.body > limit,
                LastWords::Other => false,
            };
            if refused {
                let error = error::failed(PUBLISH, target(&flight.exchange), error);
                into.push((flight.id, PublishOutcome::Rejected(error)));
            }
        }
        self.flights.clear();
        self.mandatory.clear();
    }
}
