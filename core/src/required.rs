//! What a program asks for, compared with what the peer can: once, before a transport is asked.
//!
//! A transport refuses what it could not say all the same, as the last resort: it knows more of its broker
//! than capabilities tell. Options that no capability is about, such as arguments by name, are its own.
//! Why: `docs/design/15-capabilities.md`.

use std::{fmt::Display, time::Duration};

use crate::{
    capability::{Capability, Peer},
    error::{Error, ErrorKind, Result},
    topology::{
        BindingSpec, Change, Destination, ExchangeKind, ExchangeSpec, Overflow, QueueOption,
        QueueSpec,
    },
};

/// Fails where the change asks for what the peer lacks.
pub(crate) fn change(peer: &Peer, change: &Change) -> Result<()> {
    match change {
        Change::DeclareExchange(spec) => exchange(peer, "declare", spec),
        Change::VerifyExchange(spec) if !spec.passive => exchange(peer, "verify", spec),
        Change::DeclareQueue(spec) => queue(peer, "declare", spec),
        Change::VerifyQueue(spec) if !spec.passive => queue(peer, "verify", spec),
        Change::Bind(spec) => binding(peer, spec),
        // Looked for by name, or removed: whether it is there, the broker says.
        Change::VerifyExchange(_)
        | Change::VerifyQueue(_)
        | Change::DeleteExchange(_)
        | Change::DeleteQueue(_)
        | Change::PurgeQueue(_)
        | Change::Unbind(_) => Ok(()),
    }
}

/// Fails where a message would wait longer than it may. A priority is a hint, and no broker refuses it.
pub(crate) fn expiration(peer: &Peer, expiration: Option<Duration>) -> Result<()> {
    let mut lacks = Lacks::new(peer);
    if expiration.is_some() {
        lacks.note("expiry of messages", &[Capability::MessageExpiry]);
    }
    lacks.done("publish", String::new)
}

/// Whether any kind of exchange can be declared.
pub(crate) fn has_exchanges(peer: &Peer) -> bool {
    EXCHANGES.iter().any(|kind| peer.can(*kind))
}

fn exchange(peer: &Peer, operation: &'static str, spec: &ExchangeSpec) -> Result<()> {
    // The default exchange is how every queue is reached by its name.
    if spec.name.is_empty() {
        return Ok(());
    }
    let mut lacks = Lacks::new(peer);
    match &spec.kind {
        ExchangeKind::Direct => lacks.note("direct exchanges", &[Capability::DirectExchanges]),
        ExchangeKind::Fanout => lacks.note("fanout exchanges", &[Capability::FanoutExchanges]),
        ExchangeKind::Topic => lacks.note("topic exchanges", &[Capability::TopicExchanges]),
        ExchangeKind::Headers => lacks.note("headers exchanges", &[Capability::HeadersExchanges]),
        // The broker knows its plugins.
        ExchangeKind::Plugin(_) => {}
    }
    if spec.alternate.is_some() {
        lacks.note("alternate exchanges", &[Capability::AlternateExchanges]);
    }
    if spec.auto_delete {
        lacks.note("exchanges that go with their bindings", &[Capability::AutoDeleteExchanges]);
    }
    lacks.done(operation, || spec.subject())
}

fn queue(peer: &Peer, operation: &'static str, spec: &QueueSpec) -> Result<()> {
    let mut lacks = Lacks::new(peer);
    for option in spec.options() {
        lacks.note(option, needed(&option, spec));
    }
    lacks.done(operation, || spec.subject())
}

/// What a peer has to be capable of for one option. Without a `_`: an option that is added has a line here.
fn needed(option: &QueueOption<'_>, spec: &QueueSpec) -> &'static [Capability] {
    let has_dead_letters = spec.dead_letter.is_some();
    match option {
        QueueOption::Replicated => &[Capability::ReplicatedQueues],
        QueueOption::Exclusive => &[Capability::ExclusiveQueues],
        QueueOption::AutoDelete => &[Capability::AutoDeleteQueues],
        QueueOption::MessageTtl(_) if has_dead_letters => {
            &[Capability::QueueMessageExpiry, Capability::DeadLetterExpired]
        }
        QueueOption::MessageTtl(_) => &[Capability::QueueMessageExpiry],
        QueueOption::Expires(_) => &[Capability::QueueExpiry],
        // A queue that refuses what is too much drops nothing.
        QueueOption::MaxLength(_) | QueueOption::MaxBytes(_)
            if has_dead_letters && spec.overflow != Some(Overflow::RejectPublish) =>
        {
            &[Capability::LengthLimit, Capability::DeadLetterDropped]
        }
        QueueOption::MaxLength(_) | QueueOption::MaxBytes(_) | QueueOption::Overflow(_) => {
            &[Capability::LengthLimit]
        }
        QueueOption::DeadLetter(_) => &[Capability::DeadLetterRejected],
        QueueOption::MaxPriority(_) => &[Capability::Priority],
        QueueOption::SingleActiveConsumer => &[Capability::SingleActiveConsumer],
        QueueOption::DeliveryLimit(_) => &[Capability::DeliveryLimit],
        // Every broker has transient queues or refuses them by itself, and names its arguments itself.
        QueueOption::Transient | QueueOption::Argument(..) => &[],
    }
}

fn binding(peer: &Peer, spec: &BindingSpec) -> Result<()> {
    let mut lacks = Lacks::new(peer);
    if let Destination::Exchange(_) = spec.destination {
        lacks.note("bindings between exchanges", &[Capability::ExchangeBindings]);
    }
    lacks.done("bind", || spec.subject())
}

/// What a peer lacks of what is asked for.
struct Lacks<'a> {
    peer: &'a Peer,
    things: Vec<String>,
    capabilities: Vec<Capability>,
}

impl<'a> Lacks<'a> {
    fn new(peer: &'a Peer) -> Self {
        Self { peer, things: Vec::new(), capabilities: Vec::new() }
    }

    fn note(&mut self, thing: impl Display, needed: &[Capability]) {
        let missing = needed.iter().filter(|needed| !self.peer.can(**needed));
        let before = self.capabilities.len();
        self.capabilities.extend(missing);
        if self.capabilities.len() > before {
            self.things.push(thing.to_string());
        }
    }

    fn done(self, operation: &'static str, subject: impl FnOnce() -> String) -> Result<()> {
        if self.things.is_empty() {
            return Ok(());
        }
        let mut capabilities: Vec<_> =
            self.capabilities.iter().map(|capability| format!("`{capability}`")).collect();
        capabilities.dedup();
        Err(Error::new(ErrorKind::Unsupported, operation)
            .on(subject())
            .because(format!("{} has no {}", self.peer, self.things.join(", no ")))
            .remedy(format!(
                "ask for less, set it on the broker where that is possible, or use a broker with {}",
                capabilities.join(", ")
            )))
    }
}

const EXCHANGES: [Capability; 4] = [
    Capability::DirectExchanges,
    Capability::FanoutExchanges,
    Capability::TopicExchanges,
    Capability::HeadersExchanges,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{short_str::ShortStr, topology::DeadLetter};

    fn spec() -> QueueSpec {
        let mut spec = QueueSpec::new("q").unwrap();
        spec.dead_letter = Some(DeadLetter::to_queue(ShortStr::from_static("dead")));
        spec
    }

    fn refused(capabilities: &[Capability], spec: QueueSpec) -> Option<String> {
        let peer = Peer::new("Pigeon", "1", capabilities.iter().copied());
        change(&peer, &Change::DeclareQueue(spec)).err().map(|error| {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            error.to_string()
        })
    }

    #[test]
    fn an_error_names_the_queue_the_peer_and_everything_that_is_missing() {
        let mut asked = spec();
        asked.max_priority = Some(3);
        let error = refused(&[], asked).unwrap();
        for part in ["queue \"q\"", "Pigeon 1 has no dead letters, no priorities", "`priority`"] {
            assert!(error.contains(part), "{part} is missing in {error}");
        }
    }

    #[test]
    fn dead_letters_need_what_can_die_in_the_queue() {
        let rejected = [Capability::DeadLetterRejected];
        assert_eq!(refused(&rejected, spec()), None);
        let mut asked = spec();
        asked.message_ttl = Some(Duration::from_secs(1));
        let error = refused(&[rejected[0], Capability::QueueMessageExpiry], asked).unwrap();
        assert!(error.contains("`dead-letter-expired`"), "{error}");
        let mut asked = spec();
        asked.max_length = Some(1);
        let limited = [rejected[0], Capability::LengthLimit];
        assert!(refused(&limited, asked.clone()).unwrap().contains("`dead-letter-dropped`"));
        asked.overflow = Some(Overflow::RejectPublish);
        assert_eq!(refused(&limited, asked), None);
    }

    #[test]
    fn an_expiration_needs_a_broker_that_keeps_it() {
        let (less, more) =
            (Peer::new("x", "1", []), Peer::new("x", "1", [Capability::MessageExpiry]));
        assert!(expiration(&less, Some(Duration::ZERO)).is_err());
        assert!(expiration(&less, None).is_ok() && expiration(&more, Some(Duration::ZERO)).is_ok());
    }
}
