//! How soon messages get through again once the cause of a fault is gone.

use std::{fmt, time::Duration};

use crate::{fault::Fault, timeline::Mark};

/// What is promised: half of the recoveries take no longer than this,
const HALF: Duration = Duration::from_millis(500);
/// and all but the slowest of each hundred no longer than this.
const ALMOST_ALL: Duration = Duration::from_secs(2);

/// Whether the promise is about this fault: a broker that refuses a login is asked less often than one
/// that is away, and a try that hangs has the whole time that the program gives it.
fn is_promised(fault: Fault) -> bool {
    !matches!(fault, Fault::PasswordChanged | Fault::PermissionsTaken | Fault::Hanging)
}

/// The times of the recoveries of a run that are promised, the shortest first.
pub(crate) struct Recoveries(Vec<Duration>);

impl Recoveries {
    pub(crate) fn of(marks: &[Mark]) -> Self {
        let marks = marks.iter().filter(|mark| is_promised(mark.fault));
        let mut times: Vec<_> = marks.map(|mark| mark.recovery).collect();
        times.sort_unstable();
        Self(times)
    }

    fn half(&self) -> Duration {
        self.longest_but(self.0.len() / 2)
    }

    /// Without the slowest of each hundred begun: of fewer than a hundred, without the slowest.
    fn almost_all(&self) -> Duration {
        self.longest_but(self.0.len().div_ceil(100))
    }

    /// The longest, when so many longer ones are left out.
    fn longest_but(&self, left_out: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last.saturating_sub(left_out)).copied().unwrap_or_default()
    }

    /// Whether that is slower than promised.
    pub(crate) fn failure(&self) -> Option<String> {
        let is_slow = self.half() > HALF || self.almost_all() > ALMOST_ALL;
        is_slow.then(|| format!("recovery is slower than {HALF:?} and {ALMOST_ALL:?}: {self}"))
    }
}

impl fmt::Display for Recoveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| time.as_secs_f64();
        write!(
            f,
            "half within {:.2} s, almost all within {:.2} s, all within {:.2} s",
            seconds(self.half()),
            seconds(self.almost_all()),
            seconds(self.longest_but(0))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(milliseconds: &[u64]) -> Recoveries {
        let mut times: Vec<_> = milliseconds.iter().copied().map(Duration::from_millis).collect();
        times.sort_unstable();
        Recoveries(times)
    }

    #[test]
    fn one_of_a_hundred_may_be_slow_and_no_more() {
        assert_eq!(of(&[]).failure(), None);
        let mut times = vec![100; 99];
        times.push(9000);
        assert_eq!(of(&times).failure(), None);
        times.push(9000);
        assert_eq!(of(&times).failure(), None, "of 101, two");
        times[0] = 9000;
        assert!(of(&times).failure().is_some());
        assert_eq!(of(&[100, 100, 9000]).failure(), None);
        assert!(of(&[100, 100, 100, 9000, 9000]).failure().is_some());
    }

    #[test]
    fn half_of_them_are_quick() {
        assert_eq!(of(&[100, 200, 400, 1900, 1900]).failure(), None);
        let slow = of(&[100, 200, 600, 700, 1900]).failure().unwrap();
        assert!(slow.contains("half within 0.60 s"), "{slow}");
    }
}
