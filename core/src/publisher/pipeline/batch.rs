//! The outcomes of messages published together.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Instant, timeout_at};

use crate::error::Result;

/// The outcomes of messages published together: one wake for all of them.
#[derive(Debug)]
pub(crate) struct Batch {
    state: Mutex<BatchState>,
    done: tokio::sync::Notify,
}

#[derive(Debug)]
struct BatchState {
    outcomes: Vec<Option<Result<()>>>,
    open: usize,
}

impl Batch {
    pub(crate) fn of(size: usize) -> Arc<Self> {
        let state = BatchState { outcomes: (0..size).map(|_| None).collect(), open: size };
        Arc::new(Self { state: Mutex::new(state), done: tokio::sync::Notify::new() })
    }

    pub(crate) fn settle(&self, at: usize, result: Result<()>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot @ None) = state.outcomes.get_mut(at) {
            *slot = Some(result);
            state.open -= 1;
            if state.open == 0 {
                self.done.notify_one();
            }
        }
    }

    /// Waits for all outcomes, at most until the deadline; what has none then is `None`.
    pub(crate) async fn outcomes(&self, deadline: Instant) -> Vec<Option<Result<()>>> {
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).open > 0 {
            let _ = timeout_at(deadline, self.done.notified()).await;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.outcomes)
    }
}
