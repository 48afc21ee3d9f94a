//! A path for messages to the broker.

use std::{collections::VecDeque, fmt, num::NonZeroU16, sync::Arc};

use async_trait::async_trait;
use enoki_core::{
    Result,
    transport::{Outgoing, PublishOutcome, Sender},
};

use crate::{
    broker::{Broker, LastRoute},
    connection::Connection,
    error,
    fault::Fault,
};

pub(crate) struct MemorySender {
    broker: Arc<Broker>,
    connection: Arc<Connection>,
    window: usize,
    /// The broker decides at once; these have not been asked for yet.
    decided: Vec<(u64, PublishOutcome)>,
    /// How many will never be decided, by [`Fault::ConfirmsAreLost`].
    lost: usize,
}

impl MemorySender {
    pub(crate) fn new(
        broker: Arc<Broker>,
        connection: Arc<Connection>,
        window: NonZeroU16,
    ) -> Self {
        Self { broker, connection, window: window.get().into(), decided: Vec::new(), lost: 0 }
    }
}

#[async_trait]
impl Sender for MemorySender {
    async fn submit(&mut self, messages: &mut VecDeque<Outgoing>) -> Result<()> {
        let Self { broker, connection, window, decided, lost } = self;
        broker.with(|state, now| {
            connection.check("publish")?;
            let room = window.saturating_sub(decided.len() + *lost).min(messages.len());
            decided.reserve(room);
            let mut last = LastRoute::default();
            for outgoing in messages.drain(..room) {
                let outcome = state.publish(&outgoing, &mut last, now);
                if state.faults.has(Fault::ConfirmsAreLost) {
                    *lost += 1;
                } else {
                    decided.push((outgoing.id, outcome));
                }
            }
            Ok(())
        })
    }

    async fn outcomes(&mut self, into: &mut Vec<(u64, PublishOutcome)>) -> Result<()> {
        // A future that is always ready would keep its thread from other tasks.
        tokio::task::coop::consume_budget().await;
        if self.decided.is_empty() {
            return Err(error::ended("publish", self.connection.ended().await));
        }
        into.append(&mut self.decided);
        Ok(())
    }
}

impl fmt::Debug for MemorySender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySender").field("window", &self.window).finish_non_exhaustive()
    }
}
