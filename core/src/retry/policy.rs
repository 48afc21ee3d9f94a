//! How often a failed message is tried again, and how long after. Pure.

use std::{fmt, time::Duration};

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};

/// Tries a failed message again later, a limited number of times; then it is a dead letter that says why.
///
/// Made by [`OnError::retry`](crate::OnError::retry). The nth retry comes `first` × `factor`ⁿ⁻¹ after the
/// failure, and no later than `at_most`: by default 1, 2, 4 and 8 seconds.
///
/// ```
/// use std::time::Duration;
/// use enoki_core::{Body, Handler, OnError};
///
/// async fn bill(Body(cents): Body<u32>) -> Result<(), String> {
///     if cents == 0 { Err("nothing to pay".to_owned()) } else { Ok(()) }
/// }
///
/// fn is_handler<A>(_: impl Handler<u32, (), A>) {}
/// is_handler(bill.on_error(OnError::retry().attempts(3).first(Duration::from_secs(30))));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it is given to `Handler::on_error`"]
pub struct Retry {
    attempts: u32,
    first: Duration,
    factor: u32,
    at_most: Duration,
    /// In thousandths of a delay: 0 to 100.
    jitter: u16,
}

impl Retry {
    /// The longest delay: 20 days. A wait queue has to outlive what waits in it, and brokers count the life
    /// of a queue in milliseconds, to 49.7 days.
    pub const LONGEST_DELAY: Duration = Duration::from_secs(20 * 24 * 60 * 60);

    /// How many different delays there are at most, since each may need a queue of its own. A policy of more
    /// keeps six of them, the longest among them, and waits a little longer in place of the others.
    pub const LEVELS: usize = 6;

    pub(crate) const fn new() -> Self {
        Self {
            attempts: 5,
            first: Duration::from_secs(1),
            factor: 2,
            at_most: Duration::from_secs(10 * 60),
            jitter: 100,
        }
    }

    /// How often the handler runs for one message, the first time included; 5 by default. A consumer with 0
    /// does not start. With 1 the first failure is the last.
    pub const fn attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// How long after the first failure the second attempt comes; 1 second by default. Whole milliseconds
    /// (rounded up), at least one.
    pub const fn first(self, delay: Duration) -> Self {
        Self { first: delay, ..self }
    }

    /// By how much each delay is longer than the one before; 2 by default. 1, or 0, keeps them equal.
    pub const fn factor(self, factor: u32) -> Self {
        Self { factor, ..self }
    }

    /// No delay is longer than this; 10 minutes by default, [`Retry::LONGEST_DELAY`] at most.
    pub const fn at_most(self, delay: Duration) -> Self {
        Self { at_most: delay, ..self }
    }

    /// How much longer than said a delay may be, at random, as a part of it: 0.1 by default, which is also
    /// the most. A delay is never shorter, so that messages that failed together do not all come back at the
    /// same time.
    pub const fn jitter(self, part: f64) -> Self {
        // Not a number counts as none.
        let part = if part > 0.1 {
            0.1
        } else if part > 0.0 {
            part
        } else {
            0.0
        };
        Self { jitter: (part * 1000.0) as u16, ..self }
    }

    pub(crate) fn check(self) -> Result<()> {
        if self.attempts > 0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Configuration, "consume")
            .because("with 0 attempts no message is ever handled")
            .remedy("1 attempt or more; 5 is the default"))
    }

    pub(crate) const fn most_attempts(self) -> u32 {
        self.attempts
    }

    /// How long after a message has failed for the nth time it is tried again, n from 1; `None` after the
    /// last attempt. It is one of [`levels`](Self::levels), and has no jitter.
    pub(crate) fn delay_after(self, failures: u32) -> Option<Duration> {
        if failures >= self.attempts {
            return None;
        }
        let exact = self.exact(failures);
        self.levels().into_iter().find(|level| *level >= exact).or(Some(exact))
    }

    /// The different delays, ascending.
    pub(crate) fn levels(self) -> Vec<Duration> {
        let mut delays = Vec::new();
        // Each is longer than the one before, or it is the longest; so this ends after some dozen steps.
        for failures in 1..self.attempts {
            let delay = self.exact(failures);
            if delays.last() == Some(&delay) {
                break;
            }
            delays.push(delay);
        }
        let many = delays.len();
        if many <= Self::LEVELS {
            return delays;
        }
        let kept = (1..=Self::LEVELS).map(|level| (level * many).div_ceil(Self::LEVELS) - 1);
        kept.filter_map(|at| delays.get(at).copied()).collect()
    }

    /// The longest of them, and the first delay where there is none.
    pub(crate) fn longest(self) -> Duration {
        self.levels().last().copied().unwrap_or_else(|| self.exact(1))
    }

    fn exact(self, failures: u32) -> Duration {
        let factor = self.factor.max(1).saturating_pow(failures.saturating_sub(1));
        let first = whole_millis(self.first.min(Self::LONGEST_DELAY));
        let at_most = whole_millis(self.at_most.min(Self::LONGEST_DELAY));
        first.checked_mul(factor).map_or(at_most, |delay| delay.min(at_most))
    }

    /// The delay, longer by a random part of it.
    pub(crate) fn lengthened(self, delay: Duration) -> Duration {
        // The last bits of such a UUID are random.
        let random = (Uuid::now_v7().as_u128() & 0xFFFF) as u32;
        let most = delay / 1000 * u32::from(self.jitter);
        delay.saturating_add(most.mul_f64(f64::from(random) / 65_535.0))
    }

    /// The longest that [`lengthened`](Self::lengthened) makes of a delay, whatever the jitter of a policy is.
    pub(crate) fn at_the_longest(delay: Duration) -> Duration {
        delay.saturating_add(delay / 10)
    }
}

/// Rounded up, and at least one: so a delay grows by its factor from the first on.
fn whole_millis(delay: Duration) -> Duration {
    let millis = delay.as_nanos().div_ceil(1_000_000).max(1);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} attempts", self.attempts)?;
        for (at, delay) in self.levels().iter().enumerate() {
            write!(f, "{}{delay:?}", if at == 0 { ", after " } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(delays: impl IntoIterator<Item = Duration>) -> Vec<u64> {
        delays.into_iter().map(|delay| delay.as_secs()).collect()
    }

    #[test]
    fn the_defaults_are_five_attempts_after_1_2_4_and_8_seconds() {
        let policy = Retry::new();
        let delays = (1..).map_while(|failures| policy.delay_after(failures));
        assert_eq!(seconds(delays), [1, 2, 4, 8]);
        assert_eq!(seconds(policy.levels()), [1, 2, 4, 8]);
        assert_eq!(policy.to_string(), "5 attempts, after 1s, 2s, 4s, 8s");
        assert_eq!(Retry::new().attempts(1).to_string(), "1 attempts");
    }

    #[test]
    fn delays_grow_by_the_factor_to_the_longest() {
        let policy = |attempts, first, factor, at_most| {
            let at_most = Duration::from_secs(at_most);
            let policy = Retry::new().attempts(attempts).factor(factor).at_most(at_most);
            policy.first(Duration::from_secs(first))
        };
        for (policy, delays, levels) in [
            (policy(4, 10, 3, 60), vec![10, 30, 60], vec![10, 30, 60]),
            (policy(4, 10, 1, 60), vec![10, 10, 10], vec![10]),
            (policy(4, 10, 0, 60), vec![10, 10, 10], vec![10]),
            (policy(3, 90, 2, 60), vec![60, 60], vec![60]),
            (policy(1, 1, 2, 60), vec![], vec![]),
            // Eight delays, of which six are kept: what is between waits for the next one.
            (policy(9, 1, 2, 600), vec![2, 2, 4, 8, 32, 32, 64, 128], vec![2, 4, 8, 32, 64, 128]),
        ] {
            let found = (1..).map_while(|failures| policy.delay_after(failures));
            assert_eq!(seconds(found), delays, "{policy:?}");
            assert_eq!(seconds(policy.levels()), levels, "{policy:?}");
        }
    }

    #[test]
    fn a_policy_without_attempts_is_refused_and_names_the_way_out() {
        let error = Retry::new().attempts(0).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("1 attempt or more"), "{error}");
        Retry::new().attempts(1).check().unwrap();
    }

    #[test]
    fn a_jitter_is_a_part_from_nothing_to_a_tenth() {
        for (part, kept) in
            [(0.0, 0), (-1.0, 0), (f64::NAN, 0), (0.05, 50), (0.1, 100), (f64::INFINITY, 100)]
        {
            assert_eq!(Retry::new().jitter(part).jitter, kept, "{part}");
        }
    }

    proptest! {
        #[test]
        fn any_policy_has_few_levels_and_each_delay_is_one_of_them(
            attempts in any::<u32>(),
            first in any::<u64>(),
            at_most in any::<u64>(),
            factor in any::<u32>(),
            failures in any::<u32>(),
            jitter in any::<f64>(),
        ) {
            let scale = |number: u64| Duration::from_nanos(number) * (number as u32 % 4 * 1000);
            let policy = Retry::new()
                .attempts(attempts)
                .first(scale(first))
                .at_most(scale(at_most))
                .factor(factor)
                .jitter(jitter);
            let levels = policy.levels();
            prop_assert!(levels.len() <= Retry::LEVELS);
            prop_assert!(levels.is_sorted_by(|one, next| one < next));
            if let Some(delay) = policy.delay_after(failures) {
                prop_assert!(failures < attempts && delay <= Retry::LONGEST_DELAY);
                prop_assert!(failures == 0 || levels.contains(&delay), "{delay:?} of {levels:?}");
                prop_assert!(delay >= Duration::from_millis(1));
                let longer = policy.lengthened(delay);
                prop_assert!(delay <= longer && longer <= Retry::at_the_longest(delay));
            }
            prop_assert!(policy.longest() <= Retry::LONGEST_DELAY);
        }

        #[test]
        fn the_longest_of_all_durations_is_a_delay(attempts in any::<u32>(), failures in any::<u32>()) {
            let policy = Retry::new().attempts(attempts).first(Duration::MAX).at_most(Duration::MAX);
            prop_assert_eq!(policy.longest(), Retry::LONGEST_DELAY);
            if let Some(delay) = policy.delay_after(failures) {
                prop_assert_eq!(delay, Retry::LONGEST_DELAY);
            }
        }
    }
}
