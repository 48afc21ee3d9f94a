//! How long to wait between tries: of a connection, of what is asked of a session, and of a message.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use crate::{
    deadline::{LONGEST, deadline},
    error::{Error, ErrorKind},
};

/// Pauses between tries: the first one, and each twice as long as the one before it up to the longest.
/// Random times are added, so that programs which wait for the same broker do not all try at once.
///
/// ```
/// use std::time::Duration;
/// use enoki_core::{Backoff, BrokerOptions};
///
/// let patient = Backoff::new(Duration::from_millis(500), Duration::from_secs(120));
/// let options = BrokerOptions::new().reconnect(patient);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Pauses of these lengths. Where `longest` is shorter than `first`, all are of `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The pause after this many tries: this long at least, and at most twice as long.
    pub(crate) fn after(self, tries: u32) -> Duration {
        let tries = usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX).min(32);
        self.pauses(self.longest).nth(tries).unwrap_or(self.longest)
    }

    /// Pauses of which the longest are between half of this and all of it, or of the longest of all if
    /// that is shorter.
    pub(crate) fn up_to(self, longest: Duration) -> ExponentialBackoff {
        // The random time that is added is at most as long as the pause.
        self.pauses(longest.min(self.longest) / 2)
    }

    fn pauses(self, longest: Duration) -> ExponentialBackoff {
        let longest = longest.min(LONGEST);
        ExponentialBuilder::new()
            .with_min_delay(self.first.min(longest))
            .with_factor(2.0)
            .with_max_delay(longest)
            .with_jitter()
            .without_max_times()
            .build()
    }
}

/// How long to wait before the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    /// While a call waits for it.
    pub(crate) wanted: Duration,
    /// While none does.
    pub(crate) idle: Duration,
}

/// The pauses of a connection. Tries that fail and sessions that break are counted apart: a broker
/// that was away is there once a session is open, however long that took.
pub(crate) struct Pauses {
    failing: Growing,
    breaking: Growing,
    /// The pause after the last session.
    last: Duration,
}

impl Pauses {
    pub(crate) fn new(backoff: Backoff) -> Self {
        let growing = || Growing::new(backoff);
        Self { failing: growing(), breaking: growing(), last: Duration::ZERO }
    }

    /// After a try that failed with this. One more try costs a broker nothing while it cannot be reached,
    /// and the calls that wait need it at once; it costs work where the broker answers and refuses.
    pub(crate) fn after_a_failed_try(&mut self, reason: &Error) -> Pause {
        match reason.kind() {
            ErrorKind::Connection | ErrorKind::Timeout => self.failing.next(Pace::Away),
            _ if reason.is_transient() => self.failing.next(Pace::Busy),
            _ => self.failing.next(Pace::Refused),
        }
    }

    /// Pauses grow while sessions live shorter than they: a program that is cut off again and again
    /// waits no longer than it works, and one that is cut off at once waits longer and longer.
    pub(crate) fn after_a_session_of(&mut self, lived: Duration) -> Pause {
        self.failing.restart();
        if lived >= self.last.min(STEADY) {
            self.breaking.restart();
        }
        let pause = self.breaking.next(Pace::Away);
        self.last = pause.wanted;
        pause
    }
}

/// The pauses of what a session is asked for, while it fails on one session after the other. The
/// pauses between two sessions are the connection's.
#[derive(Debug)]
pub(crate) struct SessionPauses {
    /// Which session was tried last.
    tried: Option<u64>,
    growing: Growing,
    /// When the next try on that session may be made.
    not_before: Instant,
}

impl SessionPauses {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self { tried: None, growing: Growing::new(backoff), not_before: Instant::now() }
    }

    /// A try on the session of this epoch begins. It has to wait until then, if that is later than
    /// now; another session needs no pause.
    pub(crate) fn before_a_try_on(&mut self, epoch: u64) -> Option<Instant> {
        if self.tried.replace(epoch) == Some(epoch) {
            return Some(self.not_before).filter(|due| *due > Instant::now());
        }
        self.growing.restart();
        None
    }

    /// When the next try may be made, on whatever session, if that is later than now.
    pub(crate) fn due(&self) -> Option<Instant> {
        Some(self.not_before).filter(|due| *due > Instant::now())
    }

    /// What the try opened was ended by a failure of the broker, which the next try will repeat.
    pub(crate) fn ended_by_a_failure(&mut self) {
        self.wait(Pace::Refused);
    }

    /// The try failed with this.
    pub(crate) fn failed(&mut self, reason: &Error) {
        self.wait(if reason.is_transient() { Pace::Busy } else { Pace::Refused });
    }

    /// What the try opened lived so long before it ended.
    pub(crate) fn ended_after(&mut self, lived: Duration) {
        if lived >= STEADY {
            self.growing.restart();
        }
        self.wait(Pace::Busy);
    }

    fn wait(&mut self, pace: Pace) {
        self.not_before = deadline(self.growing.next(pace).wanted);
    }
}

/// Pauses that double.
#[derive(Debug)]
struct Growing {
    backoff: Backoff,
    away: ExponentialBackoff,
    busy: ExponentialBackoff,
    refused: ExponentialBackoff,
}

/// What a further try costs.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// Little: no broker answers, or the broker lets this program in.
    Away,
    /// The broker some work: it answers, and cannot for the time being.
    Busy,
    /// The broker some work for nothing: it refuses in a way that does not pass by itself.
    Refused,
}

impl Growing {
    fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            away: backoff.up_to(WANTED),
            busy: backoff.up_to(BUSY),
            refused: backoff.up_to(backoff.longest),
        }
    }

    /// The next pause is the first one again.
    fn restart(&mut self) {
        *self = Self::new(self.backoff);
    }

    fn next(&mut self, pace: Pace) -> Pause {
        let mut next = |backoff: fn(&mut Self) -> &mut ExponentialBackoff| {
            let longest = self.backoff.longest;
            backoff(self).next().unwrap_or(longest)
        };
        let away = next(|growing| &mut growing.away);
        let busy = next(|growing| &mut growing.busy);
        let idle = next(|growing| &mut growing.refused);
        let wanted = match pace {
            Pace::Away => away,
            Pace::Busy => busy,
            Pace::Refused => idle,
        };
        Pause { wanted: wanted.min(idle), idle }
    }
}

/// The longest time between two tries to reach a broker that a call waits for.
const WANTED: Duration = Duration::from_millis(1200);

/// The longest time between two tries of what a broker cannot do for the time being.
const BUSY: Duration = Duration::from_secs(5);

/// A session that lived this long was a good one, however long the pause before it was.
const STEADY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const SLOWEST: Duration = Duration::from_secs(30);
    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), SLOWEST);

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "connect to")
    }

    fn last_of(mut next: impl FnMut() -> Pause) -> Pause {
        (0..30).map(|_| next()).last().unwrap()
    }

    #[test]
    fn who_waits_for_a_broker_that_is_away_tries_about_each_second_and_others_seldom() {
        let mut pauses = Pauses::new(BACKOFF);
        let away = error(ErrorKind::Connection);
        let first = pauses.after_a_failed_try(&away);
        assert!(first.wanted >= Duration::from_millis(100), "{first:?}");
        assert!(first.wanted <= Duration::from_millis(200), "{first:?}");
        let last = last_of(|| pauses.after_a_failed_try(&away));
        assert!(last.wanted >= WANTED / 2 && last.wanted <= WANTED, "{last:?}");
        assert!(last.idle >= SLOWEST / 2 && last.idle <= SLOWEST, "{last:?}");
    }

    #[test]
    fn a_broker_that_answers_and_refuses_is_asked_less_often() {
        let mut pauses = Pauses::new(BACKOFF);
        let full = error(ErrorKind::Refused).transient(true);
        let last = last_of(|| pauses.after_a_failed_try(&full));
        assert!(last.wanted >= BUSY / 2 && last.wanted <= BUSY, "{last:?}");
        let denied = error(ErrorKind::Denied);
        let last = last_of(|| pauses.after_a_failed_try(&denied));
        assert!(last.wanted >= SLOWEST / 2, "{last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn another_session_needs_no_pause_and_the_same_one_a_longer_and_longer_one() {
        let mut pauses = SessionPauses::new(BACKOFF);
        let mut waits = Vec::new();
        for _ in 0..10 {
            if let Some(due) = pauses.before_a_try_on(1) {
                waits.push(due - Instant::now());
            }
            pauses.failed(&error(ErrorKind::Connection));
        }
        assert_eq!(waits.len(), 9);
        assert!(waits[0] <= Duration::from_millis(200) && waits[8] >= BUSY / 2, "{waits:?}");
        assert_eq!(pauses.before_a_try_on(2), None);
    }

    #[test]
    fn the_program_may_say_how_long_the_pauses_are() {
        let longest = Duration::from_millis(400);
        let mut pauses = Pauses::new(Backoff::new(Duration::from_millis(10), longest));
        let denied = error(ErrorKind::Denied);
        let first = pauses.after_a_failed_try(&denied);
        assert!(first.idle >= Duration::from_millis(10), "{first:?}");
        assert!(first.idle <= Duration::from_millis(20), "{first:?}");
        let last = last_of(|| pauses.after_a_failed_try(&denied));
        assert!(last.idle >= longest / 2 && last.idle <= longest, "{last:?}");
        assert_eq!(last.wanted, last.idle);
    }

    #[test]
    fn no_pause_is_too_long_or_too_short_to_be_waited_for() {
        for (first, longest) in [
            (Duration::ZERO, Duration::ZERO),
            (Duration::MAX, Duration::MAX),
            (Duration::MAX, Duration::ZERO),
            (Duration::ZERO, Duration::MAX),
        ] {
            let backoff = Backoff::new(first, longest);
            let mut pauses = Pauses::new(backoff);
            for tries in [0, 1, 30, u32::MAX] {
                let pause = pauses.after_a_failed_try(&error(ErrorKind::Denied));
                assert!(pause.wanted <= pause.idle, "{pause:?}");
                deadline(backoff.after(tries));
            }
        }
    }
}
