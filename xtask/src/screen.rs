//! The display while steps run: lines that stay, and below them the steps that run now.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write as _},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How often a terminal, or a log that someone follows, is told what is going on.
const ON_A_TERMINAL: Duration = Duration::from_millis(500);
const IN_A_LOG: Duration = Duration::from_secs(20);

/// How wide a terminal is, unless it says so: a line that wraps cannot be drawn again.
const WIDTH: usize = 80;

/// The terminal or the log that the output goes to.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    width: usize,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    running: BTreeMap<u64, Running>,
    tests: Tests,
}

#[derive(Debug)]
struct Running {
    name: String,
    /// The last that it said.
    said: String,
}

/// Tests of all programs.
#[derive(Debug, Default)]
struct Tests {
    done: usize,
    all: usize,
    failed: usize,
}

/// Shown as running until it is dropped.
#[derive(Debug)]
pub(crate) struct Shown<'s> {
    screen: &'s Screen,
    number: u64,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        Self {
            terminal: std::io::stdout().is_terminal(),
            width: columns.unwrap_or(WIDTH),
            began: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// Writes a line, or several, that stay.
    pub(crate) fn say(&self, text: &str) {
        let state = self.state();
        let mut out = std::io::stdout().lock();
        // A screen that cannot be written to is no reason to stop testing.
        let _ = writeln!(out, "{}{text}", if self.terminal { CLEAR } else { "" });
        self.draw(&state);
    }

    /// Shows that this runs.
    pub(crate) fn show(&self, name: &str) -> Shown<'_> {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.running.insert(number, Running { name: name.to_owned(), said: String::new() });
        Shown { screen: self, number }
    }

    /// Adds to the number of tests that will run.
    pub(crate) fn tests_to_run(&self, number: usize) {
        self.state().tests.all += number;
    }

    /// A test ended.
    pub(crate) fn test_done(&self, well: bool) {
        let tests = &mut self.state().tests;
        tests.done += 1;
        tests.failed += usize::from(!well);
    }

    /// Goes on to show what is going on; never ends.
    pub(crate) async fn refresh(&self) {
        loop {
            tokio::time::sleep(if self.terminal { ON_A_TERMINAL } else { IN_A_LOG }).await;
            let state = self.state();
            if self.terminal {
                self.draw(&state);
            } else {
                let status = state.status(self.began.elapsed());
                let _ = writeln!(std::io::stdout(), "  … {status}");
            }
        }
    }

    fn draw(&self, state: &State) {
        if !self.terminal {
            return;
        }
        let status = state.status(self.began.elapsed());
        let status: String = status.chars().take(self.width.saturating_sub(1)).collect();
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "{CLEAR}{status}");
        let _ = out.flush();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(std::io::stdout(), "{CLEAR}");
        }
    }
}

/// Back to the beginning of the line, which is then empty.
const CLEAR: &str = "\r\u{1b}[K";

impl State {
    fn status(&self, elapsed: Duration) -> String {
        let seconds = elapsed.as_secs();
        let mut parts = vec![format!("{}:{:02}", seconds / 60, seconds % 60)];
        if self.tests.all > 0 {
            let Tests { done, all, failed } = self.tests;
            parts.push(format!("{done} of {all} tests, {failed} failed"));
        }
        let running = self.running.values().map(|running| {
            let Running { name, said } = running;
            if said.is_empty() { name.clone() } else { format!("{name}: {said}") }
        });
        parts.extend(running);
        parts.join(" | ")
    }
}

impl Shown<'_> {
    /// Shows the last that it said.
    pub(crate) fn said(&self, text: &str) {
        if let Some(running) = self.screen.state().running.get_mut(&self.number) {
            running.said = text.trim().chars().take(WIDTH / 2).collect();
        }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.screen.state().running.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_how_long_how_many_and_what() {
        let screen = Screen::new();
        screen.tests_to_run(3);
        screen.test_done(true);
        screen.test_done(false);
        let doc = screen.show("cargo doc");
        doc.said("  Documenting enoki-core\n");
        let cases = screen.show("cases");
        let status = screen.state().status(Duration::from_secs(125));
        let expected = "2:05 | 2 of 3 tests, 1 failed | cargo doc: Documenting enoki-core | cases";
        assert_eq!(status, expected);
        drop((doc, cases));
        let status = screen.state().status(Duration::ZERO);
        assert_eq!(status, "0:00 | 2 of 3 tests, 1 failed");
    }
}
