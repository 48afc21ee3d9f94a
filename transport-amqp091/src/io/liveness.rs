//! When lapin is shown a heartbeat in place of the bytes that it did not get.
//!
//! A broker sends no heartbeats while it sends other frames (§4.2.7). lapin gives up a connection on which it reads
//! nothing for twice the heartbeat interval. While a broker sends nothing but answers to published messages, lapin
//! gets none of them.

use std::time::{Duration, Instant};

/// What lapin has seen of the broker lately.
#[derive(Debug)]
pub(super) struct Liveness {
    /// When lapin last got something, be it a heartbeat in place of other bytes.
    shown: Instant,
    /// Whether bytes were left out since lapin last got such a heartbeat.
    left_out: bool,
}

impl Liveness {
    pub(super) fn new() -> Self {
        Self { shown: Instant::now(), left_out: false }
    }

    /// The broker sent bytes: whether some were left out, and whether lapin can read something now. Returns whether
    /// lapin is to be shown a heartbeat.
    pub(super) fn received(&mut self, left_out: bool, can_read: bool) -> bool {
        self.left_out |= left_out;
        if can_read {
            self.shown = Instant::now();
            return false;
        }
        let due = self.left_out && self.shown.elapsed() >= INTERVAL;
        if due {
            *self = Self::new();
        }
        due
    }
}

/// How often lapin is shown a heartbeat, at most. It gives up after two seconds where heartbeats come every second.
const INTERVAL: Duration = Duration::from_millis(250);
