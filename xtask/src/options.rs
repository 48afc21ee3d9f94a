//! The arguments of `dev/test`.

use std::path::PathBuf;

pub(crate) const HELP: &str = "\
dev/test [OPTION…] [STEP…]   runs all steps, or those that are named, and goes on after one that fails
dev/test release [OPTION…]   what a release needs besides, and takes long: package, pairs, oldest and semver
dev/test quick [OPTION…]     for every day: fmt, clippy, and the test programs on memory and on RabbitMQ 4.0; it harms no
                             broker, starts no other, and runs no test of the documentation

  fmt        cargo fmt --check
  clippy     cargo clippy on everything, warnings are errors
  features   the facade builds without features, and with each one alone; without TLS it refuses what asks for it
  test       unit, conformance, interop, compile-fail, fault and documentation tests: each test program of the workspace,
             several at a time, and `cargo test --doc`
  style      the rules of CONTRIBUTING.md that a program can see, and circles among modules
  doc        cargo doc, warnings are errors
  examples   each example runs to its end, in memory
  deny       cargo deny: licences, advisories, which crate may depend on which
  api        the public interface of enoki and enoki-core is the text in `api/`; needs a nightly Rust

  package    every crate builds from its package alone
  pairs      the facade builds with every pair of features
  oldest     everything builds with the oldest Rust that Cargo.toml names
  semver     the public interface breaks nothing since the last release

  --no-brokers    without real brokers, whatever the environment says
  --only WORD     of the test programs, only those that have this in their name (`enoki-faults cases`, `conformance`), and
                  no test of the documentation; may be given several times
  --times N       runs the test programs N times, one time after the other
  --under-load    keeps every core busy while the test programs run: no test may depend on how fast the machine is
  --verbose, -v   show all output, not only that of steps that fail
  --count FILE    only sum up a recorded output of cargo test
  --help, -h

It needs Rust. What else is missing it installs: a C compiler and pkg-config (as root on Debian), rustfmt and clippy
(with rustup), the commands of cargo that a step needs (cargo-deny, cargo-public-api, cargo-hack, cargo-semver-checks; by
cargo install), and for the step `test` the brokers, which dev/brokers starts, and clients in Python, which dev/python
installs. The brokers keep running, to be quick the next time (`dev/brokers stop` ends them); with CI=true, those that
were started here are stopped.

  ENOKI_RABBITMQ_3, ENOKI_RABBITMQ_4, ENOKI_RABBITMQ_4_3, ENOKI_ARTEMIS   URLs of brokers of your own, used instead; for
                            the tests of TLS also ENOKI_…_TLS and ENOKI_…_TLS_FILES, as `dev/brokers --help` says
  ENOKI_PYTHON              a Python of your own that has the clients
  ENOKI_REQUIRE_BROKERS=1   a broker or client that cannot be had is a failure; otherwise it is skipped, with the reason
  ENOKI_STEP_TIMEOUT=3000   seconds after which a step, or one test program, is ended

While it runs it says what runs, how many tests are done and how long it has taken; failures are shown as they happen, and
the twenty slowest tests at the end. All output is in target/dev-test.log. The last line is always
`N passed, N failed, N skipped`, over all tests and steps; the exit code is 0 only if something passed and nothing failed.";

/// One thing that must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Fmt,
    Clippy,
    Features,
    Test,
    Doc,
    Examples,
    Style,
    Deny,
    Api,
    Package,
    Pairs,
    Oldest,
    Semver,
}

impl Step {
    const NAMES: [(&'static str, Self); 13] = [
        ("fmt", Self::Fmt),
        ("style", Self::Style),
        ("clippy", Self::Clippy),
        ("features", Self::Features),
        ("test", Self::Test),
        ("doc", Self::Doc),
        ("examples", Self::Examples),
        ("deny", Self::Deny),
        ("api", Self::Api),
        ("package", Self::Package),
        ("pairs", Self::Pairs),
        ("oldest", Self::Oldest),
        ("semver", Self::Semver),
    ];
    const RELEASE: [Self; 4] = [Self::Package, Self::Pairs, Self::Oldest, Self::Semver];
    const QUICK: [Self; 4] = [Self::Fmt, Self::Style, Self::Clippy, Self::Test];

    /// The steps that a change needs: all but those of a release.
    fn usual() -> Vec<Self> {
        let steps = Self::NAMES.iter().map(|(_, step)| *step);
        steps.filter(|step| !Self::RELEASE.contains(step)).collect()
    }

    fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(it, _)| *it == name).map(|(_, step)| *step)
    }
}

/// The task that the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Help,
    /// Sum up what this file has recorded.
    Count(PathBuf),
    Run(Options),
}

/// How to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) steps: Vec<Step>,
    pub(crate) quick: bool,
    pub(crate) brokers: bool,
    pub(crate) only: Vec<String>,
    pub(crate) times: u32,
    pub(crate) under_load: bool,
    pub(crate) verbose: bool,
}

impl Options {
    pub(crate) fn wants(&self, step: Step) -> bool {
        self.steps.contains(&step)
    }

    /// Whether a test program of this name is to run.
    pub(crate) fn wants_program(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word))
    }
}

/// Reads the arguments. `brokers_are_required` is what the environment says.
pub(crate) fn read(arguments: Vec<String>, brokers_are_required: bool) -> Result<Task, String> {
    let mut options = Options {
        steps: Vec::new(),
        quick: false,
        brokers: true,
        only: Vec::new(),
        times: 1,
        under_load: false,
        verbose: false,
    };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(Task::Help),
            "--count" => return Ok(Task::Count(value()?.into())),
            "--no-brokers" => options.brokers = false,
            "--verbose" | "-v" => options.verbose = true,
            "--under-load" => options.under_load = true,
            "--only" => options.only.push(value()?),
            "--times" => {
                let times = value()?;
                options.times = times.parse().ok().filter(|times| *times > 0).ok_or_else(|| {
                    format!("--times needs a number from 1, and {times:?} is none")
                })?;
            }
            "quick" => options.quick = true,
            "release" => options.steps.extend(Step::RELEASE),
            other => match Step::named(other) {
                Some(step) => options.steps.push(step),
                None => return Err(format!("there is no step or option {other:?}")),
            },
        }
    }
    if options.quick && !options.steps.is_empty() {
        return Err("`quick` names its steps itself".to_owned());
    }
    if options.steps.is_empty() {
        options.steps = if options.quick { Step::QUICK.to_vec() } else { Step::usual() };
    }
    if brokers_are_required && (options.quick || !options.brokers) {
        let word = if options.quick { "quick" } else { "--no-brokers" };
        return Err(format!("{word} and ENOKI_REQUIRE_BROKERS=1 contradict each other"));
    }
    Ok(Task::Run(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Options {
        match read(arguments.iter().map(ToString::to_string).collect(), false) {
            Ok(Task::Run(options)) => options,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    fn mistake(arguments: &[&str], brokers_are_required: bool) -> String {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        read(arguments, brokers_are_required).unwrap_err()
    }

    #[test]
    fn without_a_word_everything_is_wanted() {
        assert_eq!(run(&[]).steps.len(), Step::NAMES.len() - Step::RELEASE.len());
        assert_eq!(run(&["--no-brokers"]).steps, run(&[]).steps);
        assert_eq!(run(&["release"]).steps, Step::RELEASE);
        assert_eq!(run(&["doc", "fmt"]).steps, [Step::Doc, Step::Fmt]);
        assert_eq!(run(&["quick"]).steps, Step::QUICK);
    }

    #[test]
    fn programs_are_chosen_by_a_part_of_their_name() {
        let options = run(&["test", "--only", "cases", "--only", "scripted", "--times", "10"]);
        assert_eq!(options.times, 10);
        assert!(options.wants_program("enoki-faults cases"));
        assert!(options.wants_program("enoki-core scripted"));
        assert!(!options.wants_program("enoki-core"));
        assert!(run(&[]).wants_program("enoki-core"));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(mistake(&["--fast"], false).contains("--fast"));
        assert!(mistake(&["--times", "0"], false).contains("\"0\""));
        assert!(mistake(&["--only"], false).contains("--only"));
        assert!(mistake(&["quick", "doc"], false).contains("quick"));
        assert!(mistake(&["--no-brokers"], true).contains("ENOKI_REQUIRE_BROKERS"));
        assert!(mistake(&["quick"], true).contains("ENOKI_REQUIRE_BROKERS"));
    }

    #[test]
    fn help_and_counting_do_nothing_else() {
        let read = |words: &[&str]| read(words.iter().map(ToString::to_string).collect(), true);
        assert_eq!(read(&["fmt", "--help"]), Ok(Task::Help));
        assert_eq!(read(&["--count", "a.log"]), Ok(Task::Count("a.log".into())));
    }
}
