//! Reads what test programs print, line by line: libtest's form, which libtest-mimic has, too.

use std::fmt;

use crate::report::Report;

/// One line that means something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'l> {
    /// The next lines are of this program.
    Program(String),
    Passed(&'l str),
    Failed(&'l str),
    /// The name, and the reason where one is given.
    Ignored(&'l str, Option<&'l str>),
    /// The last line of a program.
    Result {
        passed: usize,
        failed: usize,
        ignored: usize,
    },
}

/// Reads one line of a test program's output; `None` for a line without a result. It has no colours.
pub(crate) fn read(line: &str) -> Option<Line<'_>> {
    let line = line.trim_end_matches('\r');
    if let Some(numbers) = line.strip_prefix("test result: ") {
        let of = |kind: &str| {
            let before = numbers.split(kind).next()?;
            before.rsplit(' ').find(|word| !word.is_empty())?.parse().ok()
        };
        let (passed, failed, ignored) = (of(" passed;")?, of(" failed;")?, of(" ignored;")?);
        return Some(Line::Result { passed, failed, ignored });
    }
    if let Some(rest) = line.strip_prefix("     Running ") {
        // `tests/broker.rs (target/debug/deps/broker-0123456789abcdef)`
        let file = rest.strip_suffix(')')?.rsplit(['/', '(']).next()?;
        let name = file.rsplit_once('-').map_or(file, |(name, _)| name);
        return Some(Line::Program(name.to_owned()));
    }
    if let Some(package) = line.strip_prefix("   Doc-tests ") {
        return Some(Line::Program(format!("documentation of {package}")));
    }
    // The last dots: a name may have some of its own.
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let name = name.trim_end();
    match outcome {
        "ok" => Some(Line::Passed(name)),
        "FAILED" => Some(Line::Failed(name)),
        "ignored" => Some(Line::Ignored(name, None)),
        _ => {
            // libtest writes the reason after a comma, libtest-mimic in brackets.
            let reason = outcome.strip_prefix("ignored, ").or_else(|| {
                outcome.strip_prefix("ignored (").and_then(|reason| reason.strip_suffix(')'))
            })?;
            Some(Line::Ignored(name, Some(reason)))
        }
    }
}

/// The results of the programs of one run.
///
/// The result lines decide the numbers, and the names only explain them: a test may print a line that
/// looks like a result, and a program that aborts prints no result line.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The program whose lines these are, if it has printed no result yet.
    silent: Option<String>,
    target: String,
    ran: usize,
    passed: usize,
    failed: usize,
    ignored: usize,
    failures: Vec<String>,
    reasons: Vec<String>,
    ended_silent: Vec<String>,
}

impl Tally {
    /// A tally of one program.
    pub(crate) fn of(program: &str) -> Self {
        let mut tally = Self::default();
        tally.starts(program.to_owned());
        tally
    }

    fn starts(&mut self, program: String) {
        self.ended_silent.extend(self.silent.take());
        self.target = program.clone();
        self.silent = Some(program);
    }

    /// Takes the next line.
    pub(crate) fn add(&mut self, line: Line<'_>) {
        match line {
            Line::Program(name) => self.starts(name),
            Line::Passed(_) => {}
            Line::Failed(name) => self.failures.push(format!("{}: {name}", self.target)),
            Line::Ignored(_, reason) => {
                self.reasons.push(reason.unwrap_or("no reason given").to_owned());
            }
            Line::Result { passed, failed, ignored } => {
                self.silent = None;
                self.ran += passed + failed;
                self.passed += passed;
                self.failed += failed;
                self.ignored += ignored;
            }
        }
    }

    /// Adds it to the sum. `ended_well` is what the exit code said; the name is told where there is no
    /// better one.
    pub(crate) fn add_to(mut self, report: &mut Report, name: &str, ended_well: bool) {
        self.ended_silent.extend(self.silent.take());
        self.failures.resize(self.failed, "a test whose name was not recognised".to_owned());
        self.reasons.resize(self.ignored, "no reason given".to_owned());
        let told = self.failed > 0 || !self.ended_silent.is_empty();
        for _ in 0..self.passed {
            report.passed();
        }
        for failure in self.failures {
            report.failed(failure);
        }
        for reason in self.reasons {
            report.skipped(reason);
        }
        if !ended_well {
            for program in self.ended_silent {
                report.failed(format!("ended without a result: {program}"));
            }
            if !told {
                report.failed(format!("{name}: ended with an error that names no test"));
            }
        }
    }

    /// How many ran.
    pub(crate) fn ran(&self) -> usize {
        self.ran
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, ignored, .. } = self;
        write!(f, "{passed} passed, {failed} failed, {ignored} skipped")
    }
}

/// A line without the colours that a terminal would show.
pub(crate) fn plain(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        let end = after.find(|letter: char| letter.is_ascii_alphabetic());
        rest = end.and_then(|end| after.get(end + 1..)).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(output: &str, ended_well: bool) -> (usize, Vec<String>, Vec<String>) {
        let mut tally = Tally::default();
        for line in output.lines() {
            if let Some(line) = read(&plain(line)) {
                tally.add(line);
            }
        }
        let mut report = Report::default();
        tally.add_to(&mut report, "cargo test", ended_well);
        report.into_parts()
    }

    const GOOD: &str = "
     Running unittests src/lib.rs (target/debug/deps/enoki_core-0123456789abcdef)

running 3 tests
test link::tests::one ... ok
test link::tests::a_name_with_dots ... in_it ... \u{1b}[32mok\u{1b}[0m
test link::tests::later ... ignored, needs more time

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

   Doc-tests enoki_core

running 1 test
test core/src/lib.rs - (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn what_passed_and_was_skipped_is_counted() {
        let (passed, failures, skips) = count(GOOD, true);
        assert_eq!((passed, failures.len()), (3, 0));
        assert_eq!(skips, ["needs more time"]);
    }

    #[test]
    fn a_failure_is_named_with_its_program() {
        let output = "
     Running tests/cases.rs (target/debug/deps/cases-0123456789abcdef)
test [rabbitmq-3] connect::one    ... FAILED
test [rabbitmq-3] connect::two    ... ignored (needs ENOKI_RABBITMQ_3)
test result: FAILED. 0 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out
error: test failed, to rerun pass `-p enoki-core --test cases`";
        let (passed, failures, skips) = count(output, false);
        assert_eq!(passed, 0);
        assert_eq!(failures, ["cases: [rabbitmq-3] connect::one"]);
        assert_eq!(skips, ["needs ENOKI_RABBITMQ_3"]);
    }

    #[test]
    fn the_result_decides_the_number_and_not_what_a_test_prints() {
        let output = "\
test something ... FAILED
test something ... FAILED
test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(count(output, false).1.len(), 1);
        let output = "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured";
        let (_, failures, skips) = count(output, false);
        assert_eq!(failures, ["a test whose name was not recognised"]);
        assert_eq!(skips, ["no reason given"]);
    }

    #[test]
    fn a_program_that_aborts_is_a_failure() {
        let output = GOOD.to_owned()
            + "     Running tests/aborts.rs (target/debug/deps/aborts-0123456789abcdef)\nrunning 3 tests";
        let (passed, failures, _) = count(&output, false);
        assert_eq!((passed, failures), (3, vec!["ended without a result: aborts".to_owned()]));
        // Also when the next one goes on.
        let (_, failures, _) = count(&(output + "\n" + GOOD), false);
        assert_eq!(failures, ["ended without a result: aborts"]);
    }

    #[test]
    fn an_error_without_a_test_is_a_failure() {
        let (_, failures, _) = count("error: could not compile `enoki-core`", false);
        assert_eq!(failures, ["cargo test: ended with an error that names no test"]);
    }
}
