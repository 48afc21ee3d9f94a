//! `dev/mutants`: breaks the code on purpose, one small change at a time, and says which changes no test noticed.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write as _},
    path::Path,
    process::{Command, ExitCode},
};

use serde_json::Value;

const HELP: &str = "\
dev/mutants [OPTION…]   changes the code in one small place after the other, and runs the tests that have to notice

Which code is changed, and which tests run, says .cargo/mutants.toml: publishing, connections, consuming and settling in
core/, and the senders and receivers of both AMQP transports; the unit tests and `tests/scripted` of the package that is
changed, which need no broker. The work is cargo-mutants', which is installed where it is missing; it works on a copy of the
code. All options are its own, for example:

  --file 'core/src/publisher/**'   only these files
  --shard 1/8                      the second eighth
  --list                           only says what it would change
  --iterate                        leaves out what was noticed in the last run

It takes hours; the step is no part of dev/test. At the end it says how many changes were noticed in each package, and which
were not. The exit code is 0 if at least 90 % were noticed in each. Everything else is in target/mutants/mutants.out.";

/// Where cargo-mutants writes.
const OUTPUT: &str = "target/mutants";

/// Of the mutants of each package that build, so many percent have to be noticed.
const ENOUGH: usize = 90;

pub(crate) fn main(arguments: Vec<String>) -> ExitCode {
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        // A reader that wants only its beginning, such as `head`, has closed it.
        let _ = writeln!(io::stdout(), "{HELP}");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dev/mutants: {error}; see dev/mutants --help");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<ExitCode, String> {
    install()?;
    fs::create_dir_all(OUTPUT).map_err(|error| format!("{OUTPUT}: {error}"))?;
    let mut mutants = cargo();
    mutants.args(["mutants", "--workspace", "--output", OUTPUT]).args(arguments);
    // A mutant is built and forgotten.
    mutants.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_TEST_DEBUG", "0");
    let ended = mutants.status().map_err(|error| format!("cargo mutants: {error}"))?;
    if arguments.iter().any(|argument| argument.starts_with("--list")) {
        return Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::from(2) });
    }
    // 2 and 3 mean that some were missed, or took too long: the table says which.
    if !matches!(ended.code(), Some(0 | 2 | 3)) {
        return Err(format!("cargo mutants: {ended}"));
    }
    let file = Path::new(OUTPUT).join("mutants.out/outcomes.json");
    let outcomes = fs::read_to_string(&file);
    let outcomes = outcomes.map_err(|error| format!("{}: {error}", file.display()))?;
    let packages = read(&outcomes)?;
    let _ = writeln!(io::stdout(), "\n{}", table(&packages));
    let is_enough = !packages.is_empty() && packages.values().all(Package::is_enough);
    Ok(if is_enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Cargo: the one that runs this program.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn install() -> Result<(), String> {
    let there = cargo().args(["mutants", "--version"]).output();
    if there.is_ok_and(|there| there.status.success()) {
        return Ok(());
    }
    let installed = cargo().args(["install", "--locked", "cargo-mutants"]).status();
    match installed {
        Ok(installed) if installed.success() => Ok(()),
        Ok(failed) => Err(format!("cargo install cargo-mutants: {failed}")),
        Err(error) => Err(format!("cargo install cargo-mutants: {error}")),
    }
}

/// What became of the mutants of one package.
#[derive(Debug, Default, PartialEq, Eq)]
struct Package {
    /// A test failed.
    caught: usize,
    /// The tests did not end in time, which is as good.
    timeouts: usize,
    /// It did not build, and says nothing.
    unviable: usize,
    /// No test noticed these.
    missed: Vec<String>,
}

impl Package {
    fn noticed(&self) -> usize {
        self.caught + self.timeouts
    }

    fn tested(&self) -> usize {
        self.noticed() + self.missed.len()
    }

    fn is_enough(&self) -> bool {
        self.noticed() * 100 >= self.tested() * ENOUGH
    }
}

/// Reads cargo-mutants' `outcomes.json`.
fn read(outcomes: &str) -> Result<BTreeMap<String, Package>, String> {
    let outcomes: Value = serde_json::from_str(outcomes).map_err(|error| error.to_string())?;
    let outcomes = outcomes.get("outcomes").and_then(Value::as_array);
    let mut packages = BTreeMap::<_, Package>::new();
    for outcome in outcomes.ok_or("there are no outcomes in it")? {
        // The first outcome is that of the code as it is.
        let Some(mutant) = outcome.pointer("/scenario/Mutant") else { continue };
        let text = |pointer: &str| mutant.pointer(pointer).and_then(Value::as_str);
        let package = text("/package").ok_or("a mutant without a package")?;
        let package = packages.entry(package.to_owned()).or_default();
        match outcome.get("summary").and_then(Value::as_str) {
            Some("CaughtMutant") => package.caught += 1,
            Some("Timeout") => package.timeouts += 1,
            Some("Unviable") => package.unviable += 1,
            Some("MissedMutant") => {
                package.missed.push(text("/name").unwrap_or("a mutant without a name").to_owned());
            }
            other => return Err(format!("cargo mutants calls an outcome {other:?}")),
        }
    }
    Ok(packages)
}

fn table(packages: &BTreeMap<String, Package>) -> String {
    let mut lines = Vec::new();
    for package in packages.values() {
        lines.extend(package.missed.iter().map(|missed| format!("not noticed: {missed}")));
    }
    lines.extend(packages.iter().map(|(name, package)| format!("{name}: {package}")));
    lines.join("\n")
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (noticed, tested) = (self.noticed(), self.tested());
        let percent = (noticed * 100).checked_div(tested).unwrap_or(100);
        write!(
            f,
            "{noticed} of {tested} noticed ({percent} %), {} of them by a timeout; {} did not build",
            self.timeouts, self.unviable
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(package: &str, name: &str, summary: &str) -> Value {
        let mutant = serde_json::json!({ "package": package, "name": name });
        serde_json::json!({ "scenario": { "Mutant": mutant }, "summary": summary })
    }

    #[test]
    fn each_package_has_its_own_share_and_what_does_not_build_counts_for_nothing() {
        let mut outcomes =
            vec![serde_json::json!({ "scenario": "Baseline", "summary": "Success" })];
        outcomes.extend((0..8).map(|_| outcome("a", "x", "CaughtMutant")));
        outcomes.push(outcome("a", "y", "Timeout"));
        outcomes.push(outcome("a", "the missed one", "MissedMutant"));
        outcomes.push(outcome("a", "z", "Unviable"));
        outcomes.push(outcome("b", "z", "MissedMutant"));
        let packages = read(&serde_json::json!({ "outcomes": outcomes }).to_string()).unwrap();
        assert_eq!((packages["a"].noticed(), packages["a"].tested()), (9, 10));
        assert!(packages["a"].is_enough());
        assert!(!packages["b"].is_enough());
        let table = table(&packages);
        assert!(table.contains("not noticed: the missed one"), "{table}");
        assert!(
            table.contains("a: 9 of 10 noticed (90 %), 1 of them by a timeout; 1 did not build")
        );
    }

    #[test]
    fn what_is_no_list_of_outcomes_is_a_mistake() {
        assert!(read("{}").is_err());
        assert!(read("no").is_err());
        let unknown = serde_json::json!({ "outcomes": [outcome("a", "x", "Else")] });
        assert!(read(&unknown.to_string()).unwrap_err().contains("Else"));
    }
}
