//! Points in time to wait until, made of any duration.

use std::time::Duration;

use tokio::time::Instant;

/// The time this much from now. Every wait of the toolkit ends at a time that is made here: adding to an
/// [`Instant`] panics where the clock cannot count that far, and `Duration::MAX` is how programs say
/// "no limit".
///
/// What is longer than 30 years is 30 years.
///
/// ```
/// use std::time::Duration;
/// use enoki_core::transport::deadline;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let answer = async { 42 };
/// let answered = tokio::time::timeout_at(deadline(Duration::MAX), answer).await;
/// assert_eq!(answered.ok(), Some(42));
/// # }
/// ```
pub fn deadline(within: Duration) -> Instant {
    later(Instant::now(), within)
}

/// The time this much after another; see [`deadline`].
pub fn later(time: Instant, by: Duration) -> Instant {
    time.checked_add(by.min(LONGEST)).unwrap_or(time)
}

/// Further away than any program runs, and near enough for every clock and timer.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_duration_makes_a_deadline() {
        let now = Instant::now();
        for (by, after) in [
            (Duration::ZERO, Duration::ZERO),
            (Duration::from_millis(1), Duration::from_millis(1)),
            (LONGEST, LONGEST),
            (Duration::from_secs(u64::MAX / 2), LONGEST),
            (Duration::MAX, LONGEST),
        ] {
            assert_eq!(later(now, by).duration_since(now), after, "{by:?}");
            assert!(deadline(by) >= later(now, by), "{by:?}");
        }
    }

    #[test]
    fn a_time_at_the_end_of_the_clock_stays_where_it_is() {
        let mut end = Instant::now();
        let mut step = Duration::MAX;
        while !step.is_zero() {
            match end.checked_add(step) {
                Some(later) => end = later,
                None => step /= 2,
            }
        }
        assert_eq!(later(end, Duration::from_secs(1)), end);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_of_any_length_waits_and_does_not_panic() {
        let forever = tokio::time::sleep_until(deadline(Duration::MAX));
        let soon = tokio::time::sleep(Duration::from_millis(1));
        tokio::select! {
            () = forever => panic!("it came"),
            () = soon => {}
        }
    }
}
