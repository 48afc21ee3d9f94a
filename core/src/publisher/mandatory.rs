//! A mandatory publisher to a broker that does not report messages which no queue gets.
//!
//! There is then no saying afterwards that a message went nowhere. So it is made sure before: such a
//! publisher publishes to one queue, by its name, and that queue is there whenever it connects.

use super::PublisherOptions;
use crate::{
    capability::{Capability, Peer},
    error::{Error, ErrorKind, Result},
    required::has_exchanges,
    short_str::ShortStr,
    topology::{QueueSpec, Topology},
};

/// Adds the queue that has to be there to what a publisher declares; nothing where unroutable
/// messages are reported, or need not be.
pub(crate) fn require_queue(
    peer: &Peer,
    options: &PublisherOptions,
    exchange: &ShortStr,
    key: &ShortStr,
    topology: &mut Topology,
) -> Result<()> {
    if !options.mandatory || peer.can(Capability::UnroutableDetection) {
        return Ok(());
    }
    if !exchange.is_empty() {
        // Where there are none, declaring it says so, and better.
        let declarable = has_exchanges(peer);
        return if declarable { Err(unreported(peer, exchange)) } else { Ok(()) };
    }
    if topology.queues().iter().all(|queue| queue.name != *key) {
        let mut queue = QueueSpec::named(key.clone());
        queue.passive = true;
        topology.add_queue(queue);
    }
    Ok(())
}

/// Refuses a mandatory message to another queue than the one that was made sure of.
pub(super) fn check(peer: &Peer, exchange: &ShortStr, is_sure: bool) -> Result<()> {
    if is_sure || peer.can(Capability::UnroutableDetection) {
        return Ok(());
    }
    Err(unreported(peer, exchange))
}

fn unreported(peer: &Peer, exchange: &ShortStr) -> Error {
    let subject = match exchange.is_empty() {
        true => "the default exchange".to_owned(),
        false => format!("exchange {:?}", exchange.as_str()),
    };
    Error::new(ErrorKind::Unsupported, "publish to")
        .on(subject)
        .because(format!("{peer} does not report messages that no queue gets"))
        .remedy("publish with `optional`, or by a publisher to the queue itself")
}
