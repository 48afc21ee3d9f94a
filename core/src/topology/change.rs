//! Changes to what exists on a broker, and what they find.

use crate::{
    short_str::ShortStr,
    topology::{BindingSpec, ExchangeSpec, QueueSpec},
};

/// A change to a broker's topology.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// Creates the exchange, or finds an equal one.
    DeclareExchange(ExchangeSpec),
    /// Finds an equal exchange, creates nothing; a passive one by its name alone.
    VerifyExchange(ExchangeSpec),
    /// Removes the exchange, if there is one.
    DeleteExchange(ShortStr),
    /// Creates the queue, or finds an equal one.
    DeclareQueue(QueueSpec),
    /// Finds an equal queue, creates nothing; a passive one by its name alone.
    VerifyQueue(QueueSpec),
    /// Removes the queue, if there is one.
    DeleteQueue(ShortStr),
    /// Removes the messages that wait in the queue.
    PurgeQueue(ShortStr),
    /// Makes the binding, or finds an equal one.
    Bind(BindingSpec),
    /// Removes the binding, if there is one.
    Unbind(BindingSpec),
}

/// What a [`Change`] of a queue found, or removed.
///
/// Exhaustive: transports make one of its fields, and a count that is added is one that each has to give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Messages ready for delivery; an estimate where the broker replicates.
    pub messages: u64,
    /// Consumers.
    pub consumers: u32,
}
