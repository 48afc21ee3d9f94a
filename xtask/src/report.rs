//! The sum of everything: tests and steps count alike.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

/// How many of the slowest tests are shown.
const SLOWEST: usize = 20;

/// The results so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: usize,
    failures: Vec<String>,
    skips: Vec<String>,
    times: Vec<(Duration, String)>,
}

impl Report {
    pub(crate) fn passed(&mut self) {
        self.passed += 1;
    }

    pub(crate) fn failed(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    pub(crate) fn skipped(&mut self, why: impl Into<String>) {
        self.skips.push(why.into());
    }

    /// A test took so long.
    pub(crate) fn took(&mut self, time: Duration, test: String) {
        self.times.push((time, test));
        // A test that is not among the slowest now never will be.
        self.times.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        self.times.truncate(SLOWEST);
    }

    pub(crate) fn is_good(&self) -> bool {
        self.passed > 0 && self.failures.is_empty()
    }

    /// The lists and, as the last line, the numbers.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if !self.times.is_empty() {
            text.push_str("\nThe slowest tests:\n");
            for (time, test) in &self.times {
                let _ = writeln!(text, "{:7.1} s  {test}", time.as_secs_f64());
            }
        }
        for (title, lines) in [("Skipped, by reason:", &self.skips), ("Failed:", &self.failures)] {
            if !lines.is_empty() {
                let _ = writeln!(text, "\n{title}\n{}", counted(lines));
            }
        }
        let (failed, skipped) = (self.failures.len(), self.skips.len());
        let _ = write!(text, "\n{} passed, {failed} failed, {skipped} skipped", self.passed);
        text
    }

    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (usize, Vec<String>, Vec<String>) {
        (self.passed, self.failures, self.skips)
    }
}

/// Each line once, with how often it is there; the most frequent first.
fn counted(lines: &[String]) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for line in lines {
        *counts.entry(line).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let lines = counts.into_iter().map(|(line, count)| format!("{count:7} {line}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_sum() {
        let mut report = Report::default();
        assert!(!report.is_good(), "nothing passed");
        report.passed();
        assert!(report.is_good());
        for reason in ["needs B", "needs A", "needs B"] {
            report.skipped(reason);
        }
        report.failed("enoki-core: one");
        assert!(!report.is_good());
        let text = report.text();
        assert_eq!(text.lines().last(), Some("1 passed, 1 failed, 3 skipped"));
        let skipped = "Skipped, by reason:\n      2 needs B\n      1 needs A\n";
        assert!(text.contains(skipped), "{text}");
    }

    #[test]
    fn only_the_slowest_are_shown_and_they_come_first() {
        let mut report = Report::default();
        for number in 0..100 {
            report.took(Duration::from_secs(number), format!("test {number}"));
        }
        let text = report.text();
        assert_eq!(text.lines().filter(|line| line.contains(" s  test ")).count(), SLOWEST);
        assert!(text.contains("The slowest tests:\n   99.0 s  test 99\n"), "{text}");
    }
}
