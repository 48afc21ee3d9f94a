//! What is on the screen while it runs.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::target::Target;

/// Two bars: messages and faults.
pub(crate) struct Progress {
    bars: MultiProgress,
    messages: ProgressBar,
    faults: ProgressBar,
}

impl Progress {
    pub(crate) fn start(target: Target, messages: u64, faults: usize) -> Self {
        let bars = MultiProgress::new();
        let bar = |length: u64, what: &'static str, template: &str| {
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bars.add(ProgressBar::new(length).with_style(style).with_prefix(what))
        };
        let handled = bar(
            messages,
            "handled",
            "{prefix:>8} [{wide_bar}] {pos}/{len} {per_sec:>10} {elapsed_precise}",
        );
        let faulty = bar(faults as u64, "faults", "{prefix:>8} [{wide_bar}] {pos}/{len} {msg:30!}");
        let progress = Self { bars, messages: handled, faults: faulty };
        progress.say(&format!("{target}: {messages} messages, {faults} faults"));
        progress
    }

    pub(crate) fn handled(&self, messages: u64) {
        self.messages.set_position(messages);
    }

    pub(crate) fn says(&self, now: impl Into<String>) {
        self.faults.set_message(now.into());
    }

    pub(crate) fn fault_over(&self, name: &str, at_message: u64, recovery: Option<Duration>) {
        self.faults.inc(1);
        self.faults.set_message("");
        let number = self.faults.position();
        self.say(&match recovery {
            Some(recovery) => format!(
                "{number:>4}  {name:<34} at message {at_message:>7}  works again after {:>5.1} s",
                recovery.as_secs_f64()
            ),
            None => {
                format!("{number:>4}  {name:<34} at message {at_message:>7}  DOES NOT WORK AGAIN")
            }
        });
    }

    /// A line that stays, also where there is no screen.
    pub(crate) fn say(&self, line: &str) {
        if self.messages.is_hidden() {
            println!("{line}");
        } else {
            let _ = self.bars.println(line);
        }
    }

    pub(crate) fn finish(&self) {
        let _ = self.bars.clear();
    }
}
