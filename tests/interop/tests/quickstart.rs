//! The quickstart prints the same on every broker.
//!
//! A broker that the environment does not name is shown as ignored; with `ENOKI_REQUIRE_BROKERS=1`
//! that is a failure.

use std::process::ExitCode;

use enoki_interop::{Broker, RABBITMQ_3, RABBITMQ_4, RABBITMQ_4_3, example::Example, without};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

static QUICKSTART: Example = Example::named("quickstart");

fn main() -> ExitCode {
    // One at a time: two of them on one broker would take each other's messages.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let trials = [
        (RABBITMQ_3, "amqp091"),
        (RABBITMQ_4, "amqp091"),
        (RABBITMQ_4, "amqp10"),
        (RABBITMQ_4_3, "amqp091"),
        (RABBITMQ_4_3, "amqp10"),
    ];
    let trials = trials.into_iter().map(|(broker, scheme)| {
        let name = broker.name;
        let name = format!("quickstart::prints_the_same_on_{name}_by_{scheme}_as_in_memory");
        Trial::ignorable_test(name, move || compare_with(broker, scheme))
    });
    let alone = Trial::test("quickstart::prints_what_happens_in_memory", || {
        let printed = QUICKSTART.run("memory:")?;
        for part in ["attempt 2", "rejected from quickstart.billing", "no queue is bound"] {
            if !printed.contains(part) {
                return Err(format!("no {part:?} in the output:\n{printed}").into());
            }
        }
        Ok(())
    });
    libtest_mimic::run(&arguments, trials.chain([alone]).collect()).exit_code()
}

fn compare_with(broker: Broker, scheme: &str) -> Result<Completion, Failed> {
    let Some(url) = broker.url(scheme) else { return without(broker.variable) };
    let (expected, printed) = (QUICKSTART.run("memory:")?, QUICKSTART.run(&url)?);
    if printed == expected {
        return Ok(Completion::Completed);
    }
    let mut lines = printed.lines().zip(expected.lines());
    let differs = lines.find(|(printed, expected)| printed != expected);
    Err(format!("the outputs differ, first in {differs:?}\n{printed}").into())
}
