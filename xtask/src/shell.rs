//! Runs other programs: each within its time, with all that it says in the log.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Write as _},
    path::Path,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
    process::Command,
    time::sleep,
};

use crate::{
    report::Report,
    results::plain,
    screen::{Screen, Shown},
};

/// How long a program that has ended may leave its output open, by way of others that it started.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Of the output of what failed, so many lines are shown.
const SHOWN_LINES: usize = 200;

/// The state that all steps share.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) screen: Screen,
    verbose: bool,
    report: Mutex<Report>,
    log: Mutex<File>,
    /// The process groups that run.
    groups: Mutex<BTreeSet<u32>>,
}

/// How a program ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// It ended by itself, and said that all is well.
    pub(crate) well: bool,
    /// All that it wrote, to either stream.
    pub(crate) output: String,
    pub(crate) took: Duration,
}

impl Shell {
    pub(crate) fn new(log: &Path, verbose: bool) -> io::Result<Self> {
        Ok(Self {
            screen: Screen::new(),
            verbose,
            report: Mutex::default(),
            log: Mutex::new(File::create(log)?),
            groups: Mutex::default(),
        })
    }

    pub(crate) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes to the log alone.
    pub(crate) fn log(&self, text: &str) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk is no reason to stop testing.
        let _ = writeln!(log, "{text}");
    }

    /// Runs a step, which passes or fails as a whole.
    pub(crate) async fn step(&self, name: &str, limit: Duration, command: Command) -> bool {
        let ended = self.run(name, limit, command, |_, _| {}).await;
        self.tell(name, &ended, "");
        if ended.well {
            self.report().passed();
        } else {
            self.report().failed(name);
        }
        ended.well
    }

    pub(crate) fn skip(&self, name: &str, reason: &str) {
        self.screen.say(&format!("{name:<44} skipped: {reason}"));
        self.report().skipped(format!("{name}: {reason}"));
    }

    /// Runs a program within its time, and gives each line, without its colours, to `heard`. Counts
    /// and says nothing.
    pub(crate) async fn run(
        &self,
        name: &str,
        limit: Duration,
        mut command: Command,
        mut heard: impl FnMut(&str, &Shown<'_>),
    ) -> Ended {
        let began = Instant::now();
        let shown = self.screen.show(name);
        let mut output = String::new();
        let mut line = |line: &str| {
            let line = plain(line.trim_end_matches('\r'));
            if self.verbose {
                self.screen.say(&line);
            }
            heard(&line, &shown);
            output.push_str(&line);
            output.push('\n');
        };
        command.env("LC_ALL", "C").env("CARGO_TERM_COLOR", "never");
        let words = [command.as_std().get_program()].into_iter().chain(command.as_std().get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        let header = format!("\n=== {name}: {}", words.join(" "));
        let ran = self.run_to_its_end(limit, command, &mut line).await;
        let well = match ran {
            Ok(well) => well,
            Err(error) => {
                line(&error.to_string());
                false
            }
        };
        self.log(&format!("{header}\n{output}"));
        Ended { well, output, took: began.elapsed() }
    }

    async fn run_to_its_end(
        &self,
        limit: Duration,
        mut command: Command,
        line: &mut impl FnMut(&str),
    ) -> io::Result<bool> {
        // One pipe for both streams keeps their lines in order.
        let (reader, writer) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        // A process group of its own, so that the processes it starts can be ended with it.
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        drop(command);
        let group = Group::new(self, child.id());
        let reader = pipe::Receiver::from_owned_fd(reader.into())?;
        let mut lines = BufReader::new(reader).split(b'\n');
        let (overdue, hung) = (sleep(limit), sleep(Duration::MAX));
        tokio::pin!(overdue, hung);
        let (mut status, mut open) = (None, true);
        while status.is_none() || open {
            tokio::select! {
                segment = lines.next_segment(), if open => match segment? {
                    Some(segment) => line(&String::from_utf8_lossy(&segment)),
                    None => open = false,
                },
                ended = child.wait(), if status.is_none() => {
                    status = Some(ended?);
                    hung.as_mut().reset(tokio::time::Instant::now() + LAST_WORDS);
                }
                () = &mut overdue, if status.is_none() => {
                    line(&format!("ended after {limit:?}"));
                    group.end();
                    return Ok(false);
                }
                () = &mut hung => break,
            }
        }
        Ok(status.is_some_and(|status| status.success()))
    }

    /// Says how it went; what failed is shown with the end of its output.
    pub(crate) fn tell(&self, name: &str, ended: &Ended, count: &str) {
        let how = if ended.well { "ok" } else { "FAILED" };
        let seconds = ended.took.as_secs_f64();
        self.screen.say(&format!("{name:<44} {how:<6} {seconds:6.1} s  {count}"));
        if ended.well || self.verbose {
            return;
        }
        // The lines of tests that passed are in the log only.
        let is_said = |line: &&str| {
            let fine = ["ok", "ignored"].iter().any(|outcome| {
                line.starts_with("test ") && line.contains(&format!(" ... {outcome}"))
            });
            let building = ["Compiling ", "Checking ", "Downloaded ", "Documenting ", "Fresh "]
                .iter()
                .any(|word| line.trim_start().starts_with(word));
            !fine && !building && !line.starts_with('{')
        };
        let lines: Vec<_> = ended.output.lines().filter(is_said).collect();
        for line in lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)) {
            self.screen.say(&format!("  | {line}"));
        }
    }

    /// Ends everything that runs.
    pub(crate) fn end_all(&self) {
        for group in self.groups().iter() {
            kill(*group);
        }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process group that runs.
#[derive(Debug)]
struct Group<'s> {
    shell: &'s Shell,
    number: Option<u32>,
}

impl<'s> Group<'s> {
    fn new(shell: &'s Shell, number: Option<u32>) -> Self {
        shell.groups().extend(number);
        Self { shell, number }
    }

    fn end(&self) {
        if let Some(number) = self.number {
            kill(number);
        }
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shell.groups().remove(&number);
        }
    }
}

fn kill(group: u32) {
    let mut kill = std::process::Command::new("kill");
    // It may have ended meanwhile.
    let _ = kill.args(["-KILL", "--", &format!("-{group}")]).stderr(Stdio::null()).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str, limit: Duration) -> (Ended, Vec<String>) {
        let shell = Shell::new(Path::new("/dev/null"), false).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut heard = Vec::new();
        let ended = shell.run("a script", limit, command, |line, _| heard.push(line.into())).await;
        assert!(shell.groups().is_empty());
        (ended, heard)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn both_streams_are_heard_in_order_and_without_colours() {
        let script = r"echo one; echo two >&2; printf '\033[32mthree\033[0m'; exit 3";
        let (ended, heard) = run(script, LONG).await;
        assert_eq!(heard, ["one", "two", "three"]);
        assert_eq!(ended.output, "one\ntwo\nthree\n");
        assert!(!ended.well);
        assert!(run("true", LONG).await.0.well);
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended_with_what_it_started() {
        let (ended, heard) = run("sleep 1000 & echo $!; wait", Duration::from_millis(300)).await;
        assert!(!ended.well);
        let [started, said] = &heard[..] else { panic!("{heard:?}") };
        assert!(said.contains("ended after"), "{said}");
        // A process that has ended stays in the table until its parent, or init, has asked for it.
        let state = || std::fs::read_to_string(format!("/proc/{started}/stat"));
        while state().is_ok_and(|state| !state.contains(") Z ")) {
            sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_goes_on_in_the_background_is_not_waited_for() {
        let (ended, _) = run("sleep 1000 & echo said", LONG).await;
        assert!(ended.well);
        assert_eq!(ended.output, "said\n");
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_a_failure_with_a_reason() {
        let shell = Shell::new(Path::new("/dev/null"), false).unwrap();
        let command = Command::new("/nowhere/at/all");
        let ended = shell.run("nothing", LONG, command, |_, _| {}).await;
        assert!(!ended.well);
        assert!(ended.output.contains("No such file"), "{}", ended.output);
    }
}
