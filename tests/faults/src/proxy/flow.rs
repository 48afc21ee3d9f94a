//! How bytes flow in one direction.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

/// How bytes flow in one direction; unhindered unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    pub(super) held: bool,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) bytes_per_second: Option<NonZeroU32>,
    pub(super) slice: Option<NonZeroUsize>,
}

impl Flow {
    /// As the bytes come.
    pub fn free() -> Self {
        Self::default()
    }

    /// A black hole: nothing arrives, and neither side is told. What was sent into it arrives when it
    /// ends, as a network's retransmission would have it.
    pub fn held() -> Self {
        Self { held: true, ..Self::default() }
    }

    /// Everything arrives this much later, give or take the jitter, in order.
    pub fn delayed(delay: Duration, jitter: Duration) -> Self {
        Self { delay, jitter, ..Self::default() }
    }

    /// So many bytes a second; 0 is 1.
    pub fn limited(bytes_per_second: u32) -> Self {
        let rate = NonZeroU32::new(bytes_per_second).unwrap_or(NonZeroU32::MIN);
        Self { bytes_per_second: Some(rate), ..Self::default() }
    }

    /// In pieces of so many bytes, each a segment of its own; 0 is 1.
    pub fn sliced(bytes: usize) -> Self {
        Self {
            slice: Some(NonZeroUsize::new(bytes).unwrap_or(NonZeroUsize::MIN)),
            ..Self::default()
        }
    }

    /// How many bytes to write at a time, and how long to wait after them.
    pub(super) fn piece(&self, bytes: usize) -> (usize, Duration) {
        let Some(rate) = self.bytes_per_second else {
            return (self.slice.map_or(bytes, |slice| slice.get().min(bytes)), Duration::ZERO);
        };
        let rate = rate.get();
        let piece = bytes.min((rate as usize / PIECES_PER_SECOND).max(1));
        (piece, Duration::from_secs_f64(piece as f64 / f64::from(rate)))
    }
}

/// Often enough to be a flow, seldom enough to be cheap.
const PIECES_PER_SECOND: usize = 50;
