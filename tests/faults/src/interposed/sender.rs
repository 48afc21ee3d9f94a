//! A sender whose outcomes can be held back, delayed or lost.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use enoki::{
    Result,
    transport::{Outgoing, PublishOutcome, Sender},
};
use tokio::{sync::watch, time::Instant};

use super::{
    Control,
    session::{self, lost},
};

#[derive(Debug)]
pub(super) struct InterposedSender {
    inner: Box<dyn Sender>,
    control: Arc<Control>,
    severed: watch::Receiver<bool>,
    ends: watch::Receiver<u64>,
    /// When those are due that are there and not through yet.
    due: Instant,
    waiting: Vec<(u64, PublishOutcome)>,
}

impl InterposedSender {
    pub(super) fn new(
        inner: Box<dyn Sender>,
        control: Arc<Control>,
        severed: watch::Receiver<bool>,
    ) -> Self {
        let mut ends = control.sender_ends.subscribe();
        ends.mark_unchanged();
        Self { inner, control, severed, ends, due: Instant::now(), waiting: Vec::new() }
    }

    fn has_ended(&self) -> bool {
        *self.severed.borrow() || self.ends.has_changed().unwrap_or(true)
    }
}

#[async_trait]
impl Sender for InterposedSender {
    async fn submit(&mut self, messages: &mut VecDeque<Outgoing>) -> Result<()> {
        if self.has_ended() {
            return Err(lost());
        }
        self.inner.submit(messages).await
    }

    async fn outcomes(&mut self, into: &mut Vec<(u64, PublishOutcome)>) -> Result<()> {
        loop {
            if self.has_ended() {
                return Err(lost());
            }
            let Self { inner, control, severed, ends, due, waiting } = self;
            let held_back = !waiting.is_empty();
            tokio::select! {
                biased;
                () = session::severed(severed) => return Err(lost()),
                _ = ends.changed() => return Err(lost()),
                () = control.pass(*due, |state| state.outcomes_held), if held_back => {
                    let vanish = control.take(|state| &mut state.outcomes_to_drop, waiting.len());
                    waiting.drain(..vanish);
                    if !waiting.is_empty() {
                        into.append(waiting);
                        return Ok(());
                    }
                }
                outcomes = inner.outcomes(waiting), if !held_back => {
                    *due = control.due();
                    if let Err(error) = outcomes {
                        into.append(waiting);
                        return Err(error);
                    }
                }
            }
        }
    }
}
