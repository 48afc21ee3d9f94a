//! The table of capabilities in docs/transports.md is what the brokers say, each for itself.

use std::process::ExitCode;

use enoki::broker::Capability;
use enoki_faults::patience::connect_patiently;
use enoki_interop::{given, without};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// The table's columns: the name, the scheme, and the variable that says where the broker is.
const COLUMNS: [(&str, &str, Option<&str>); 7] = [
    ("memory", "memory", None),
    ("RabbitMQ 3.10, 0-9-1", "amqp091", Some("ENOKI_RABBITMQ_3")),
    ("RabbitMQ 4.0, 0-9-1", "amqp091", Some("ENOKI_RABBITMQ_4")),
    ("RabbitMQ 4.3, 0-9-1", "amqp091", Some("ENOKI_RABBITMQ_4_3")),
    ("RabbitMQ 4.0, 1.0", "amqp10", Some("ENOKI_RABBITMQ_4")),
    ("RabbitMQ 4.3, 1.0", "amqp10", Some("ENOKI_RABBITMQ_4_3")),
    ("Artemis 2.44, 1.0", "amqp10", Some("ENOKI_ARTEMIS")),
];

fn main() -> ExitCode {
    let complete = Trial::test("capabilities::the_table_has_every_broker_and_capability", complete);
    let trials = COLUMNS.map(|(column, scheme, variable)| {
        let name = column.to_lowercase().replace(", ", "_over_").replace([' ', '.', '-'], "_");
        Trial::ignorable_test(format!("capabilities::the_table_is_right_about_{name}"), move || {
            is_right(column, scheme, variable)
        })
    });
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, trials.into_iter().chain([complete]).collect()).exit_code()
}

/// The cells of the table, row by row.
fn table() -> Vec<Vec<&'static str>> {
    let page = include_str!("../../../docs/transports.md");
    page.lines()
        .skip_while(|line| !line.starts_with("| | memory |"))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// The row about a capability, without what it is about.
fn row(capability: Capability) -> Option<Vec<&'static str>> {
    let label = format!("`{capability}`:");
    let rows = table();
    let row = rows.into_iter().find(|row| row.first().is_some_and(|cell| cell.starts_with(&label)));
    row.map(|row| row.into_iter().skip(1).collect())
}

fn complete() -> Result<(), Failed> {
    let columns: Vec<_> = COLUMNS.iter().map(|(column, ..)| *column).collect();
    let header: Vec<_> = table().into_iter().next().unwrap_or_default();
    if header.get(1..) != Some(&columns[..]) {
        return Err(format!("the columns are {header:?}, and not {columns:?}").into());
    }
    for capability in Capability::ALL {
        let row = row(*capability).ok_or_else(|| format!("no row about {capability}"))?;
        if row.len() != columns.len() || row.iter().any(|cell| !matches!(*cell, "yes" | "–")) {
            return Err(format!("the row about {capability} has the cells {row:?}").into());
        }
    }
    Ok(())
}

fn is_right(
    column: &'static str,
    scheme: &'static str,
    variable: Option<&'static str>,
) -> Result<Completion, Failed> {
    let url = match variable {
        None => "memory://capabilities".to_owned(),
        Some(variable) => match given(variable) {
            // One port of RabbitMQ's speaks both protocols.
            Some(url) => url.replacen("amqp091", scheme, 1),
            None => return without(variable),
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let broker = runtime.block_on(connect_patiently(url))?;
    // A broker that a developer has given may be of another version than the table is about.
    let version = broker.peer().version().to_owned();
    let about = column.split([' ', ',']).nth(1).unwrap_or_default();
    if variable.is_some() && !version.starts_with(&format!("{about}.")) {
        let reason = format!("the table is about {column}, and there is {}", broker.peer());
        return Ok(Completion::ignored_with(reason));
    }
    let at = COLUMNS.iter().position(|(name, ..)| *name == column).unwrap_or_default();
    let wrong: Vec<_> = Capability::ALL
        .iter()
        .filter(|capability| {
            let said = row(**capability).and_then(|row| row.get(at).copied()) == Some("yes");
            said != broker.peer().can(**capability)
        })
        .map(ToString::to_string)
        .collect();
    if wrong.is_empty() {
        return Ok(Completion::Completed);
    }
    Err(format!("the table is wrong about {}: {}", broker.peer(), wrong.join(", ")).into())
}
