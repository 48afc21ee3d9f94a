//! The swap: one program and its own test, on every broker by the URL alone, and what happened
//! compared settlement by settlement.
//!
//! It is `examples/orders`. A broker that the environment does not name is shown as ignored; with
//! `ENOKI_REQUIRE_BROKERS=1` that is a failure.

use std::{collections::HashMap, process::ExitCode};

use enoki::broker::Capability;
use enoki_faults::patience::connect_patiently;
use enoki_interop::{Broker, RABBITMQ_3, RABBITMQ_4, RABBITMQ_4_3, example::Example, without};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

static ORDERS: Example = Example::named("orders");

fn main() -> ExitCode {
    // One at a time: two of them on one broker would take each other's messages.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let mut trials = vec![
        Trial::test("orders::its_own_test_passes_in_memory", || Ok(ORDERS.test("memory:")?)),
        Trial::test("orders::twice_in_memory_is_the_same", || {
            let expected = ORDERS.run("memory:")?;
            Ok(compare(&expected, &ORDERS.run("memory:")?, true)?)
        }),
        Trial::test("orders::a_settlement_that_differs_is_named", differences_are_named),
    ];
    for (broker, scheme) in [
        (RABBITMQ_3, "amqp091"),
        (RABBITMQ_4, "amqp091"),
        (RABBITMQ_4, "amqp10"),
        (RABBITMQ_4_3, "amqp091"),
        (RABBITMQ_4_3, "amqp10"),
    ] {
        let on = format!("on_{}_by_{scheme}", broker.name);
        trials.push(on_broker(
            format!("orders::its_own_test_passes_{on}"),
            broker,
            scheme,
            |url| ORDERS.test(url),
        ));
        let name = format!("orders::every_settlement_{on}_is_as_in_memory");
        trials.push(on_broker(name, broker, scheme, |url| {
            let expected = ORDERS.run("memory:")?;
            compare(&expected, &ORDERS.run(url)?, releases_are_uncounted(url)?)
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn on_broker(
    name: String,
    broker: Broker,
    scheme: &'static str,
    test: fn(&str) -> Result<(), String>,
) -> Trial {
    Trial::ignorable_test(name, move || {
        let Some(url) = broker.url(scheme) else { return without(broker.variable) };
        test(&url)?;
        Ok(Completion::Completed)
    })
}

/// The one difference that brokers announce: older ones count what was given back, too.
fn releases_are_uncounted(url: &str) -> Result<bool, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let broker =
        runtime.map_err(|error| error.to_string())?.block_on(connect_patiently(url.to_owned()));
    Ok(broker.map_err(|error| error.to_string())?.peer().can(Capability::UncountedRelease))
}

/// Compares two ledgers line by line, which is event by event, and names the first that differs.
fn compare(memory: &str, here: &str, releases_are_uncounted: bool) -> Result<(), String> {
    let expected = if releases_are_uncounted { memory.to_owned() } else { count_releases(memory) };
    let (mut expected, mut happened) = (expected.lines(), here.lines());
    for at in 1.. {
        match (expected.next(), happened.next()) {
            (None, None) => break,
            (expected, happened) if expected == happened => {}
            (expected, happened) => {
                let say = |line: Option<&str>| line.unwrap_or("nothing more").to_owned();
                return Err(format!(
                    "event {at} differs:\n  in memory: {}\n  here:      {}\n\nall that happened here:\n{here}",
                    say(expected),
                    say(happened),
                ));
            }
        }
    }
    if memory.is_empty() { Err("nothing happened".to_owned()) } else { Ok(()) }
}

/// The same ledger from a broker to which a release is an attempt.
fn count_releases(ledger: &str) -> String {
    let mut released = HashMap::new();
    let counted = ledger.lines().map(|line| {
        let mut words = line.split_whitespace();
        let Some(order) = words.next() else { return line.to_owned() };
        let before: u32 = released.get(order).copied().unwrap_or(0);
        if line.ends_with(" release") {
            released.insert(order, before + 1);
        }
        match (words.next(), words.next().and_then(|number| number.parse::<u32>().ok())) {
            (Some("attempt"), Some(number)) => {
                let attempt = |number| format!("attempt {number} ");
                line.replacen(&attempt(number), &attempt(number + before), 1)
            }
            _ => line.to_owned(),
        }
    });
    counted.map(|line| line + "\n").collect()
}

fn differences_are_named() -> Result<(), Failed> {
    let memory = ORDERS.run("memory:")?;
    let changes: [(&str, &str); 6] = [
        ("bread      attempt 3    redelivered  ack", "bread      attempt 2    redelivered  ack"),
        ("bread      attempt 2    redelivered", "bread      attempt 2    new        "),
        ("stone      attempt 1    new          reject", "stone      attempt 1    new          ack"),
        (
            "lost         rejected from orders.kitchen\ncursed",
            "lost         expired from orders.kitchen\ncursed",
        ),
        ("wine       published    unroutable", "wine       published    confirmed"),
        ("breakfast  attempt 1    new          ack\n", ""),
    ];
    for (line, changed) in changes {
        let other = memory.replacen(line, changed, 1);
        if other == memory {
            return Err(format!("{line:?} is not in the ledger:\n{memory}").into());
        }
        match compare(&memory, &other, true) {
            Err(said) if said.contains("differs") => {}
            other => return Err(format!("{line:?} became {changed:?}: {other:?}").into()),
        }
    }
    let counted = memory.replacen(
        "fish       attempt 1    redelivered",
        "fish       attempt 2    redelivered",
        1,
    );
    compare(&memory, &counted, false)?;
    match compare(&memory, &counted, true) {
        Err(_) => Ok(()),
        Ok(()) => Err("a release that counts went unnoticed".into()),
    }
}
