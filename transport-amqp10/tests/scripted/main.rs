//! A broker that says what it is told to: what senders and receivers write, in which order, and what they make
//! of the answers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod peer;
mod receiver;
mod sender;

use std::time::Duration;

/// How long to wait for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
