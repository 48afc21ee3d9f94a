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

/// The longest time in which nothing was confirmed or handled although no fault was open and something
/// came later, and when that began.
pub(crate) fn standstill(samples: &[Sample], marks: &[Mark]) -> Option<(Duration, Duration)> {
    let is_still = |sample: &Sample| {
        let began = sample.at.saturating_sub(EACH);
        let is_open = |mark: &Mark| mark.from <= sample.at && began <= mark.to;
        sample.confirmed_per_second + sample.handled_per_second == 0.0 && !marks.iter().any(is_open)
    };
    let last = samples.iter().rposition(|sample| sample.handled_per_second > 0.0)?;
    let busy = samples.get(..last)?;
    let stretches = busy.chunk_by(|one, next| is_still(one) && is_still(next));
    let still = stretches.filter(|stretch| stretch.iter().all(is_still));
    let lengths = still.filter_map(|stretch| {
        let from = stretch.first()?.at.saturating_sub(EACH);
        Some((stretch.last()?.at.saturating_sub(from), from))
    });
    lengths.max()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_what_no_fault_explains() {
        let rates = [9.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0];
        let sample = |(number, rate)| Sample {
            at: EACH * number,
            confirmed_per_second: 0.0,
            handled_per_second: rate,
        };
        let samples: Vec<_> = (1..).zip(rates).map(sample).collect();
        assert_eq!(standstill(&samples, &[]), Some((4 * EACH, 4 * EACH)));
        let mark = Mark { fault: Fault::Reset, from: 5 * EACH, to: 7 * EACH, recovery: EACH };
        assert_eq!(standstill(&samples, &[mark]), Some((2 * EACH, EACH)));
        assert_eq!(standstill(&[], &[]), None);
    }
}
