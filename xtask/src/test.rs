//! `dev/test`: everything that must hold before a change is good, in one command and one count.
//!
//! Two things go on side by side. Cargo builds and checks, one command after the other, since its commands
//! would wait for each other anyway. As soon as the test programs are built and the brokers are there,
//! the test programs run.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    cargo::{Program, cargo, programs},
    circles,
    options::{self, HELP, Options, Step, Task},
    prepare, programs as pool, release,
    report::Report,
    results::{self, Tally},
    shell::Shell,
    style,
};

const LOG: &str = "target/dev-test.log";

/// For one example, which is built by then.
const EXAMPLE: Duration = Duration::from_secs(60);

/// For any other command: one that hangs must not hang for ever.
const COMMAND: Duration = Duration::from_secs(3000);

pub(crate) fn main(arguments: Vec<String>) -> ExitCode {
    match options::read(arguments, prepare::required()) {
        Ok(Task::Help) => {
            // A reader that wants only its beginning, such as `head`, has closed it.
            let _ = writeln!(io::stdout(), "{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Task::Count(file)) => count(&file),
        Ok(Task::Run(options)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .map_err(|error| error.to_string())
                .and_then(|it| it.block_on(run(options)))
                .unwrap_or_else(|error| wrong(&error))
        }
        Err(error) => wrong(&error),
    }
}

fn wrong(error: &str) -> ExitCode {
    eprintln!("dev/test: {error}; see dev/test --help");
    ExitCode::from(2)
}

/// Sums up what a run of cargo test has printed.
fn count(file: &Path) -> ExitCode {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return wrong(&format!("{}: {error}", file.display())),
    };
    let mut tally = Tally::default();
    for line in text.lines() {
        if let Some(line) = results::read(&results::plain(line)) {
            tally.add(line);
        }
    }
    let ended_well = !text.lines().any(|line| line.starts_with("error: "));
    let mut report = Report::default();
    if ended_well && tally.ran() == 0 {
        report.failed("cargo test: ran no test");
    }
    tally.add_to(&mut report, "cargo test", ended_well);
    end(&report)
}

fn end(report: &Report) -> ExitCode {
    let _ = writeln!(io::stdout(), "{}", report.text());
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(options: Options) -> Result<ExitCode, String> {
    fs::create_dir_all("target").map_err(|error| format!("target: {error}"))?;
    let shell = Shell::new(Path::new(LOG), options.verbose);
    let shell = Arc::new(shell.map_err(|error| format!("{LOG}: {error}"))?);
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let [interrupt, terminate] = signals;
    let failed = |error: std::io::Error| format!("signals: {error}");
    let (mut interrupt, mut terminate) = (interrupt.map_err(failed)?, terminate.map_err(failed)?);
    tokio::select! {
        () = everything(&shell, &options) => {}
        () = shell.screen.refresh() => {}
        _ = interrupt.recv() => return Ok(interrupted(&shell)),
        _ = terminate.recv() => return Ok(interrupted(&shell)),
    }
    let report = shell.report();
    let text = report.text();
    shell.log(&text);
    shell.screen.say(&format!("\nall output: {LOG}\n{text}"));
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn interrupted(shell: &Shell) -> ExitCode {
    shell.end_all();
    ExitCode::from(130)
}

async fn everything(shell: &Arc<Shell>, options: &Options) {
    let limit = std::env::var("ENOKI_STEP_TIMEOUT").ok().and_then(|seconds| seconds.parse().ok());
    let limit = limit.map_or(COMMAND, Duration::from_secs);
    prepare::tools(shell, options).await;
    let (built, programs) = oneshot::channel();
    tokio::join!(checks(shell, options, limit, built), tests(shell, options, limit, programs));
}

/// Runs the test programs, when they are built and the brokers are there.
async fn tests(
    shell: &Arc<Shell>,
    options: &Options,
    limit: Duration,
    programs: oneshot::Receiver<Vec<Program>>,
) {
    if !options.wants(Step::Test) {
        return;
    }
    let (prepared, programs) = tokio::join!(prepare::brokers(shell, options), programs);
    // Otherwise the report says why there are none.
    if let Some(prepared) = prepared {
        if let Ok(programs) = programs {
            pool::run(shell, options, &prepared.environment, limit, programs).await;
        }
        prepare::put_away(shell, &prepared).await;
    }
}

/// Runs what is cargo's business, one command after the other.
async fn checks(
    shell: &Shell,
    options: &Options,
    limit: Duration,
    built: oneshot::Sender<Vec<Program>>,
) {
    if options.wants(Step::Fmt) {
        let fmt = cargo(&["fmt", "--all", "--check", "--", "--color", "never"]);
        shell.step("cargo fmt", limit, fmt).await;
    }
    if options.wants(Step::Style) {
        check_style(shell);
    }
    if options.wants(Step::Test)
        && let Some(programs) = build_tests(shell, limit).await
    {
        // The receiver is there until everything ended.
        let _ = built.send(programs);
    }
    if options.wants(Step::Clippy) {
        let clippy = ["--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
        step(shell, limit, "cargo clippy", "clippy", &clippy).await;
    }
    if options.wants(Step::Test) && !options.quick && options.only.is_empty() {
        test_documentation(shell, limit).await;
    }
    if options.wants(Step::Features) {
        features(shell, limit).await;
    }
    if options.wants(Step::Doc) {
        let mut doc = cargo(&["doc", "--workspace", "--all-features", "--no-deps"]);
        doc.env("RUSTDOCFLAGS", "-D warnings");
        shell.step("cargo doc", limit, doc).await;
    }
    if options.wants(Step::Examples) {
        examples(shell, limit).await;
    }
    if options.wants(Step::Deny) {
        deny(shell, limit).await;
    }
    if options.wants(Step::Api) {
        release::api(shell, limit).await;
    }
    if options.wants(Step::Package) {
        release::package(shell, limit).await;
    }
    if options.wants(Step::Pairs) {
        release::pairs(shell, limit).await;
    }
    if options.wants(Step::Oldest) {
        release::oldest(shell, limit).await;
    }
    if options.wants(Step::Semver) {
        release::semver(shell, limit).await;
    }
}

/// The words, links and circles of the repository, without a compiler.
fn check_style(shell: &Shell) {
    let root = Path::new(".");
    let circles = circles::check(root).map(|found| found.iter().map(ToString::to_string).collect());
    let words = style::check(root).map(|found| found.iter().map(ToString::to_string).collect());
    for (name, found) in [("circles", circles), ("style", words)] {
        let found: Vec<String> = found.unwrap_or_else(|error| vec![error.to_string()]);
        let how = if found.is_empty() { "ok" } else { "FAILED" };
        shell.screen.say(&format!("{name:<44} {how}"));
        for finding in &found {
            shell.screen.say(&format!("  | {finding}"));
        }
        if found.is_empty() {
            shell.report().passed();
        } else {
            shell.report().failed(format!("{name}: {} places", found.len()));
        }
    }
}

/// One command of cargo that passes or fails as a whole.
async fn step(shell: &Shell, limit: Duration, name: &str, command: &str, arguments: &[&str]) {
    let arguments: Vec<_> = [command].iter().chain(arguments).copied().collect();
    shell.step(name, limit, cargo(&arguments)).await;
}

async fn build_tests(shell: &Shell, limit: Duration) -> Option<Vec<Program>> {
    let name = "build the tests";
    let build = ["test", "--workspace", "--all-features", "--no-run", "--message-format"];
    let build = cargo(&[&build[..], &["json-render-diagnostics"]].concat());
    let heard = |line: &str, shown: &crate::screen::Shown<'_>| {
        if !line.starts_with('{') {
            shown.said(line);
        }
    };
    let built = shell.run(name, limit, build, heard).await;
    shell.tell(name, &built, "");
    if built.well {
        return Some(programs(&built.output));
    }
    shell.report().failed(name);
    None
}

async fn test_documentation(shell: &Shell, limit: Duration) {
    let name = "cargo test --doc";
    let test = cargo(&["test", "--workspace", "--all-features", "--doc", "--no-fail-fast"]);
    let mut tally = Tally::default();
    let ended = shell
        .run(name, limit, test, |line, shown| {
            if let Some(line) = results::read(line) {
                if let results::Line::Failed(test) = line {
                    shell.screen.say(&format!("FAILED {name}: {test}"));
                }
                tally.add(line);
            } else {
                shown.said(line);
            }
        })
        .await;
    shell.tell(name, &ended, &tally.to_string());
    tally.add_to(&mut shell.report(), name, ended.well);
}

async fn features(shell: &Shell, limit: Duration) {
    let alone = ["--package", "enoki", "--no-default-features"];
    step(shell, limit, "without features", "check", &alone).await;
    let manifest = fs::read_to_string("Cargo.toml").unwrap_or_default();
    for name in facade_features(&manifest) {
        let arguments = [&alone[..], &["--features", name]].concat();
        step(shell, limit, &format!("feature {name} alone"), "check", &arguments).await;
    }
    // The workspace as a whole has TLS, so what a build without it promises is tested here.
    let arguments = [&alone[..], &["--lib", "--features", "amqp091,amqp10"]].concat();
    step(shell, limit, "without TLS", "test", &arguments).await;
}

/// The keys of `[features]` in the facade's manifest, but for `default`.
fn facade_features(manifest: &str) -> Vec<&str> {
    let section = manifest.lines().skip_while(|line| *line != "[features]").skip(1);
    let section = section.take_while(|line| !line.starts_with('['));
    let keys =
        section.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    keys.map(|(key, _)| key.trim()).filter(|key| *key != "default").collect()
}

async fn examples(shell: &Shell, limit: Duration) {
    // First all of them, so that the time for one example is spent on running it.
    let arguments = ["--package", "enoki", "--examples", "--all-features"];
    step(shell, limit, "build the examples", "build", &arguments).await;
    for name in example_names(Path::new("examples")) {
        let run = ["run", "--quiet", "--package", "enoki", "--all-features", "--example", &name];
        let mut run = cargo(&run);
        run.env("BROKER_URL", "memory:");
        shell.step(&format!("example {name}"), EXAMPLE, run).await;
    }
}

/// `NAME.rs` and `NAME/main.rs`, as cargo finds them.
fn example_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| {
        let path = entry.path();
        let is_example =
            path.extension().is_some_and(|it| it == "rs") || path.join("main.rs").exists();
        is_example.then(|| Some(path.file_stem()?.to_str()?.to_owned()))?
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

async fn deny(shell: &Shell, limit: Duration) {
    if !prepare::cargo_tool(shell, "cargo deny", "cargo-deny").await {
        return;
    }
    let arguments = ["--workspace", "check", "licenses", "bans", "sources"];
    step(shell, limit, "cargo deny", "deny", &arguments).await;
    // The list of advisories is fetched anew each time, so without a network there is nothing to compare with.
    let name = "cargo deny: advisories";
    let advisories = cargo(&["deny", "--workspace", "check", "advisories"]);
    let ended = shell.run(name, limit, advisories, |_, _| {}).await;
    if !ended.well && ended.output.contains("failed to fetch advisory database") {
        shell.skip(name, "the list of advisories cannot be fetched here");
        return;
    }
    shell.tell(name, &ended, "");
    if ended.well {
        shell.report().passed();
    } else {
        shell.report().failed(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_features_of_the_facade_are_its_keys() {
        let manifest = "[package]\nname = \"a\"\n[features]\ndefault = [\"b\"]\n## Says = what.\nb = []\n\
                        c-d = [\"dep:e\"]\n\n[dependencies]\nf = \"1\"";
        assert_eq!(facade_features(manifest), ["b", "c-d"]);
    }

    #[test]
    fn examples_are_found_as_cargo_finds_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let names = example_names(&folder);
        assert!(names.contains(&"quickstart".to_owned()), "{names:?}");
        assert!(names.contains(&"orders".to_owned()), "{names:?}");
        assert!(!names.contains(&"tests".to_owned()), "{names:?}");
    }
}
