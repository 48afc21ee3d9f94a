//! Installs and starts what the steps need: Rust's own tools, brokers, and the clients of other projects.

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

use tokio::process::Command;

use crate::{
    cargo::cargo,
    options::{Options, Step},
    shell::{Ended, Shell},
};

/// The brokers of a whole run. Those with `@` are for tests that kill, freeze or block a broker.
const BROKERS: [&str; 6] = [
    "rabbitmq-3",
    "rabbitmq-4",
    "rabbitmq-4.3",
    "artemis",
    "rabbitmq-3@faults",
    "rabbitmq-4@faults",
];

/// The brokers of `dev/test quick`.
const QUICK: [&str; 1] = ["rabbitmq-4"];

const INSTALLING: Duration = Duration::from_secs(1200);

/// The variables about brokers that the test programs get.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    set: BTreeMap<OsString, OsString>,
    removed: Vec<OsString>,
}

impl Environment {
    pub(crate) fn apply(&self, command: &mut Command) {
        for name in &self.removed {
            command.env_remove(name);
        }
        command.envs(&self.set);
    }
}

/// What this run prepared, and has to stop at its end.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) environment: Environment,
    /// Brokers that did not run before.
    started: Vec<&'static str>,
}

/// Installs those of Rust's tools that are missing. Where that fails, the steps that need them do, too.
pub(crate) async fn tools(shell: &Shell, options: &Options) {
    for (step, tool) in [(Step::Fmt, "fmt"), (Step::Clippy, "clippy")] {
        if !options.wants(step) {
            continue;
        }
        let there = cargo(&[tool, "--version"]).output().await;
        if there.is_ok_and(|there| there.status.success()) {
            continue;
        }
        let component = if step == Step::Fmt { "rustfmt" } else { tool };
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add", component]);
        let name = format!("install {component}");
        let ended = shell.run(&name, INSTALLING, rustup, |_, _| {}).await;
        shell.tell(&name, &ended, "");
    }
}

/// Sees to it that this command of cargo's is there. Where it cannot be installed, the step is skipped.
pub(crate) async fn cargo_tool(shell: &Shell, step: &str, tool: &str) -> bool {
    let command = tool.trim_start_matches("cargo-");
    let there = cargo(&[command, "--version"]).output().await;
    if there.is_ok_and(|there| there.status.success()) {
        return true;
    }
    let name = format!("install {tool}");
    let install = cargo(&["install", "--locked", tool]);
    let ended = shell.run(&name, INSTALLING, install, |line, shown| shown.said(line)).await;
    if ended.well {
        shell.tell(&name, &ended, "");
    } else {
        shell.skip(step, &format!("{tool} cannot be installed here"));
    }
    ended.well
}

/// Starts the brokers and installs the clients. Nothing where something that is required cannot be had;
/// that is in the report.
pub(crate) async fn brokers(shell: &Shell, options: &Options) -> Option<Prepared> {
    let required = required();
    let wanted: &[&'static str] = match (options.brokers, options.quick) {
        (false, _) => &[],
        (true, true) => &QUICK,
        (true, false) => &BROKERS,
    };
    let mut prepared = Prepared::default();
    if wanted.len() < BROKERS.len() {
        let kept: Vec<_> = wanted.iter().flat_map(|name| variables(name)).collect();
        prepared.environment.removed = std::env::vars_os()
            .map(|(name, _)| name)
            .filter(|name| name.to_str().is_some_and(|name| is_about_brokers(name, &kept)))
            .collect();
        let why = if options.brokers { "left out by quick" } else { "left out by --no-brokers" };
        for name in BROKERS.iter().filter(|name| !wanted.contains(name)) {
            shell.skip(&format!("broker {name}"), why);
        }
    }
    if wanted.is_empty() {
        return Some(prepared);
    }

    let (_, before) = status(wanted).await;
    prepared.started = wanted.iter().filter(|name| !before.contains(*name)).copied().collect();
    let mut start = Command::new("dev/brokers");
    start.arg("start").args(wanted);
    let started = shell.run("start the brokers", INSTALLING, start, |line, shown| shown.said(line));
    let started = started.await;
    // Each is looked at by itself.
    let (said, up) = status(wanted).await;
    shell.tell(
        "start the brokers",
        &Ended { well: up.len() == wanted.len(), ..started.clone() },
        "",
    );
    shell.screen.say(said.trim_end());
    let mut missing = false;
    for name in wanted.iter().filter(|name| !up.contains(*name)) {
        if required {
            shell
                .report()
                .failed(format!("broker {name}: not to be had, and ENOKI_REQUIRE_BROKERS=1"));
            missing = true;
        } else {
            // The last line that `dev/brokers` wrote about it.
            let is_about_it = |line: &&str| line.starts_with(&format!("{name}: "));
            let reason = started.output.lines().rfind(is_about_it).unwrap_or_default();
            let reason = reason.strip_prefix(name).unwrap_or(": no reason given");
            shell.skip(&format!("broker {name}"), &format!("not to be had here{reason}"));
        }
    }

    // To be quick is to use what is there.
    if !options.quick {
        let mut install = Command::new("dev/python");
        install.arg("install");
        let name = "install the clients in Python";
        let ended = shell.run(name, INSTALLING, install, |line, shown| shown.said(line)).await;
        shell.tell(name, &ended, "");
    }
    prepared.environment.set = environment(wanted).await;
    if !prepared.environment.set.contains_key(&OsString::from("ENOKI_PYTHON")) {
        if required {
            shell.report().failed("clients in Python: not to be had, and ENOKI_REQUIRE_BROKERS=1");
            missing = true;
        } else {
            shell.skip("clients in Python", "not to be had here");
        }
    }
    (!missing).then_some(prepared)
}

/// With CI=true, stops what was started here.
pub(crate) async fn put_away(shell: &Shell, prepared: &Prepared) {
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") && !prepared.started.is_empty() {
        let mut stop = Command::new("dev/brokers");
        stop.arg("stop").args(&prepared.started);
        shell.run("stop the brokers", INSTALLING, stop, |_, _| {}).await;
    }
}

/// Whether a broker that cannot be had is a failure.
pub(crate) fn required() -> bool {
    std::env::var_os("ENOKI_REQUIRE_BROKERS").is_some_and(|required| required == "1")
}

/// The output of `dev/brokers status`, and the brokers that are up.
async fn status(names: &[&'static str]) -> (String, Vec<&'static str>) {
    let output = Command::new("dev/brokers").arg("status").args(names).output().await;
    let said = output.map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let is_up = |line: &str, name: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some(name) && words.next() == Some("up")
    };
    let is_up = |name: &&&'static str| said.lines().any(|line| is_up(line, name));
    let up = names.iter().filter(is_up).copied().collect();
    (said, up)
}

/// The variables that the two scripts print. They print lines for a shell, so a shell reads them.
async fn environment(names: &[&str]) -> BTreeMap<OsString, OsString> {
    let script = r#"eval "$(dev/brokers env "$@")"; eval "$(dev/python env)"; env -0"#;
    let output = Command::new("bash").args(["-c", script, "bash"]).args(names).output().await;
    let output = output.map(|output| output.stdout).unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    let variables = output.split('\0').filter_map(|variable| variable.split_once('='));
    variables
        .filter(|(name, value)| name.starts_with("ENOKI_") && !value.is_empty())
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// The variables that tell where this broker is.
fn variables(broker: &str) -> [String; 3] {
    let name = format!("ENOKI_{}", broker.to_uppercase());
    let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
    [name.clone(), format!("{name}_TLS"), format!("{name}_TLS_FILES")]
}

/// Whether this variable tells where a broker is that is not wanted.
fn is_about_brokers(variable: &str, kept: &[String]) -> bool {
    ["ENOKI_RABBITMQ_", "ENOKI_ARTEMIS"].iter().any(|prefix| variable.starts_with(prefix))
        && !kept.iter().any(|kept| kept == variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_of_a_broker_are_not_those_of_another() {
        let kept = variables("rabbitmq-4");
        assert_eq!(kept[0], "ENOKI_RABBITMQ_4");
        assert!(!is_about_brokers("ENOKI_RABBITMQ_4_TLS", &kept));
        assert!(is_about_brokers("ENOKI_RABBITMQ_4_3", &kept));
        assert!(is_about_brokers("ENOKI_RABBITMQ_4_FAULTS", &kept));
        assert!(is_about_brokers("ENOKI_ARTEMIS", &kept));
        assert!(!is_about_brokers("ENOKI_PYTHON", &kept));
        assert_eq!(variables("rabbitmq-4.3@faults")[0], "ENOKI_RABBITMQ_4_3_FAULTS");
    }
}
