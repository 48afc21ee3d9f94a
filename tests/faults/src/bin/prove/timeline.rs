//! What happened when: how fast it went, and the faults in between.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, interval};

use crate::fault::Fault;

/// Counts what is confirmed and handled.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) confirmed: AtomicU64,
    pub(crate) handled: AtomicU64,
}

impl Meter {
    fn read(&self) -> (u64, u64) {
        (self.confirmed.load(Ordering::Relaxed), self.handled.load(Ordering::Relaxed))
    }
}

/// One stretch of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    confirmed_per_second: f64,
    handled_per_second: f64,
}

impl Sample {
    pub(crate) fn confirmed(&self) -> f64 {
        self.confirmed_per_second
    }

    pub(crate) fn handled(&self) -> f64 {
        self.handled_per_second
    }
}

/// A fault in time.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) fault: Fault,
    pub(crate) from: Duration,
    /// When messages got through again.
    pub(crate) to: Duration,
    /// How long that took after the cause was gone.
    pub(crate) recovery: Duration,
}

/// Measures until it is aborted; what it measured goes to `samples`.
pub(crate) async fn measure(
    meter: Arc<Meter>,
    began: Instant,
    samples: tokio::sync::mpsc::UnboundedSender<Sample>,
) {
    let mut ticks = interval(EACH);
    ticks.tick().await;
    let mut last = (began.elapsed(), meter.read());
    loop {
        ticks.tick().await;
        let now = (began.elapsed(), meter.read());
        let seconds = (now.0 - last.0).as_secs_f64().max(f64::EPSILON);
        let rate = |now: u64, last: u64| now.saturating_sub(last) as f64 / seconds;
        let sample = Sample {
            at: now.0,
            confirmed_per_second: rate(now.1.0, last.1.0),
            handled_per_second: rate(now.1.1, last.1.1),
        };
        if samples.send(sample).is_err() {
            return;
        }
        last = now;
    }
}

/// Short enough to see a fault, long enough to be a rate.
const EACH: Duration = Duration::from_millis(250);
