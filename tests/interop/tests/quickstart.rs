//! The quickstart tells the same story on every broker.
//!
//! A broker that the environment does not name is shown as ignored; with `ENOKI_REQUIRE_BROKERS=1`
//! that is a failure.

use std::{
    process::{Command, ExitCode},
    sync::Arc,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() -> ExitCode {
    // One at a time: two of them on one broker would take each other's messages.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let trials = [
        ("rabbitmq-3", "amqp091", "ENOKI_RABBITMQ_3"),
        ("rabbitmq-4", "amqp091", "ENOKI_RABBITMQ_4"),
        ("rabbitmq-4", "amqp10", "ENOKI_RABBITMQ_4"),
    ]
    .map(|(broker, scheme, variable)| {
        let name = format!("quickstart::tells_the_same_story_on_{broker}_by_{scheme}_as_in_memory");
        Trial::ignorable_test(name, move || compare_with(scheme, variable))
    });
    let alone = Trial::test("quickstart::tells_its_story_in_memory", || {
        let story = story("memory:")?;
        for part in ["attempt 2", "rejected from quickstart.billing", "no queue is bound"] {
            if !story.contains(part) {
                return Err(format!("no {part:?} in the story:\n{story}").into());
            }
        }
        Ok(())
    });
    libtest_mimic::run(&arguments, trials.into_iter().chain([alone]).collect()).exit_code()
}

fn compare_with(scheme: &str, variable: &'static str) -> Result<Completion, Failed> {
    let Ok(url) = std::env::var(variable) else {
        if std::env::var_os("ENOKI_REQUIRE_BROKERS").is_some_and(|required| required == "1") {
            return Err(format!("{variable} is not set, and brokers are required").into());
        }
        return Ok(Completion::ignored_with(format!("needs {variable}")));
    };
    // One port speaks both protocols.
    let url = url.replacen("amqp091", scheme, 1);
    let (expected, told) = (story("memory:")?, story(&url)?);
    if told == expected {
        return Ok(Completion::Completed);
    }
    let differs = told.lines().zip(expected.lines()).find(|(told, expected)| told != expected);
    Err(format!("the stories differ, first in {differs:?}\n{told}").into())
}

/// What the example prints for everybody; who carried it goes to the other stream.
fn story(url: &str) -> Result<String, Failed> {
    static BUILD: std::sync::OnceLock<Arc<Result<(), String>>> = std::sync::OnceLock::new();
    // Built once and by itself, so that two runs do not wait for each other inside of cargo.
    let built = BUILD.get_or_init(|| Arc::new(quickstart("build", None).map(drop)));
    built.as_ref().clone()?;
    Ok(quickstart("run", Some(url))?)
}

fn quickstart(command: &str, url: Option<&str>) -> Result<String, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        command,
        "--quiet",
        "--package",
        "enoki",
        "--all-features",
        "--example",
        "quickstart",
    ]);
    cargo.envs(url.map(|url| ("BROKER_URL", url)));
    let output = cargo.output().map_err(|error| format!("cargo {command}: {error}"))?;
    if !output.status.success() {
        return Err(format!("the quickstart failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
