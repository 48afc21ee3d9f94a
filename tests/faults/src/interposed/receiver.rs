//! A receiver whose deliveries can be held back or delayed, and whose settlements can be lost.

use std::sync::Arc;

use async_trait::async_trait;
use enoki::{
    Error, ErrorKind, Result,
    transport::{Delivered, End, Receiver, Settle},
};
use tokio::{sync::watch, time::Instant};

use super::{
    Control,
    session::{self, lost},
};

#[derive(Debug)]
pub(super) struct InterposedReceiver {
    inner: Box<dyn Receiver>,
    control: Arc<Control>,
    severed: watch::Receiver<bool>,
    ends: watch::Receiver<u64>,
    cancels: watch::Receiver<u64>,
    ended: Option<Ended>,
    /// When those are due that are there and not through yet.
    due: Instant,
    waiting: Vec<Delivered>,
}

#[derive(Debug, Clone, Copy)]
enum Ended {
    Lost,
    Cancelled,
}

impl InterposedReceiver {
    pub(super) fn new(
        inner: Box<dyn Receiver>,
        control: Arc<Control>,
        severed: watch::Receiver<bool>,
    ) -> Self {
        let (mut ends, mut cancels) =
            (control.receiver_ends.subscribe(), control.receiver_cancels.subscribe());
        ends.mark_unchanged();
        cancels.mark_unchanged();
        Self {
            inner,
            control,
            severed,
            ends,
            cancels,
            ended: None,
            due: Instant::now(),
            waiting: Vec::new(),
        }
    }

    fn end(&self, ended: Ended) -> End {
        match ended {
            Ended::Lost => End::Lost(lost()),
            Ended::Cancelled => End::Cancelled(
                Error::new(ErrorKind::NotFound, "consume").because("a test has cancelled it"),
            ),
        }
    }
}

#[async_trait]
impl Receiver for InterposedReceiver {
    async fn receive(&mut self, into: &mut Vec<Delivered>, max: usize) -> Result<(), End> {
        loop {
            if let Some(ended) = self.ended {
                return Err(self.end(ended));
            }
            let Self { inner, control, severed, ends, cancels, ended, due, waiting } = self;
            let held_back = !waiting.is_empty();
            tokio::select! {
                biased;
                () = session::severed(severed) => *ended = Some(Ended::Lost),
                _ = ends.changed() => *ended = Some(Ended::Lost),
                _ = cancels.changed() => *ended = Some(Ended::Cancelled),
                () = control.pass(*due, |state| state.deliveries_held), if held_back => {
                    let count = waiting.len().min(max);
                    into.extend(waiting.drain(..count));
                    return Ok(());
                }
                received = inner.receive(waiting, max), if !held_back => {
                    *due = control.due();
                    received?;
                }
            }
        }
    }

    fn settle(&mut self, settlements: &[Settle]) {
        // What has ended for the program can have no settlement any more.
        if *self.severed.borrow() || self.ended.is_some_and(|ended| matches!(ended, Ended::Lost)) {
            return;
        }
        let vanish = self.control.take(|state| &mut state.settlements_to_drop, settlements.len());
        if let Some(rest) = settlements.get(vanish..) {
            self.inner.settle(rest);
        }
    }

    async fn stop(&mut self) -> Result<()> {
        self.inner.stop().await
    }

    async fn stop_last(&mut self) -> Result<()> {
        self.inner.stop_last().await
    }

    async fn close(&mut self) -> Result<()> {
        self.inner.close().await
    }
}
