//! One message across protocols: what is published on one and consumed on the other arrives equal,
//! or was refused by name at publish. `docs/crossing.md` has the table; each of its rows is a test
//! here.
//!
//! Each row is checked between two of this toolkit's transports, and again with a client that
//! others wrote on either side: py-amqp (AMQP 0-9-1) and Qpid Proton (AMQP 1.0), which
//! `dev/python` installs.

mod crossing {
    pub(super) mod client;
    pub(super) mod document;
    pub(super) mod foreign;
    pub(super) mod others;
    pub(super) mod ours;
    pub(super) mod path;
    pub(super) mod refused;
    pub(super) mod rows;
    pub(super) mod unreadable;
}

use std::{process::ExitCode, sync::Arc};

use enoki_interop::{Broker, PYTHON, RABBITMQ_3, RABBITMQ_4, RABBITMQ_4_3, given, without};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::crossing::{
    client::{Client, Protocol},
    document, others,
    path::Path,
    refused,
    rows::rows,
};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = vec![Trial::test(
        "crossing::the_table_in_the_docs_has_these_rows_and_these_verdicts",
        || document::check(&rows(), &refused::rows()).map_err(Failed::from),
    )];
    let brokers = [
        (RABBITMQ_3, &[Protocol::Amqp091][..]),
        (RABBITMQ_4, &[Protocol::Amqp091, Protocol::Amqp10][..]),
        (RABBITMQ_4_3, &[Protocol::Amqp091, Protocol::Amqp10][..]),
    ];
    for (broker, protocols) in brokers {
        let (ours, foreign) = paths(broker, protocols);
        for (at, row) in rows().into_iter().enumerate() {
            for (whose, paths, needs_python) in
                [("", &ours, false), ("with_foreign_clients::", &foreign, true)]
            {
                let paths = paths.clone();
                let name = format!("crossing::{}::{whose}{}", broker.name, row.name);
                trials.push(Trial::ignorable_test(name, move || {
                    if broker.url("amqp091").is_none() {
                        return without(broker.variable);
                    }
                    if needs_python && given(PYTHON).is_none() {
                        return without(PYTHON);
                    }
                    check(&paths, at)
                }));
            }
        }
        for (at, row) in refused::rows().into_iter().enumerate() {
            for protocol in protocols {
                let name =
                    format!("crossing::{}::{}_by_{}", broker.name, row.name, protocol.scheme());
                trials.push(Trial::ignorable_test(name, move || {
                    let Some(url) = broker.url(protocol.scheme()) else {
                        return without(broker.variable);
                    };
                    refused::check(&url, at)?;
                    Ok(Completion::Completed)
                }));
            }
        }
    }
    for (broker, protocols) in brokers {
        for (name, run) in others::tests() {
            if name.contains("amqp_10") && protocols.len() == 1 {
                continue;
            }
            let name = format!("crossing::{}::{name}", broker.name);
            trials.push(Trial::ignorable_test(name, move || {
                if broker.url("amqp091").is_none() {
                    return without(broker.variable);
                }
                if given(PYTHON).is_none() {
                    return without(PYTHON);
                }
                others::run(run(broker))
            }));
        }
    }
    for (at, row) in refused::rows().into_iter().enumerate() {
        let name = format!("crossing::memory::{}", row.name);
        trials.push(Trial::test(name, move || refused::check("memory:", at)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// All ways through a broker: those between our own clients, and those with a foreign one.
fn paths(broker: Broker, protocols: &[Protocol]) -> (Vec<Arc<Path>>, Vec<Arc<Path>>) {
    let clients =
        protocols.iter().flat_map(|&protocol| [Client::Ours(protocol), Client::Foreign(protocol)]);
    let clients: Vec<_> = clients.collect();
    let mut paths: (Vec<_>, Vec<_>) = Default::default();
    for &from in &clients {
        for &to in &clients {
            let path = Arc::new(Path::new(broker, from, to));
            match (from, to) {
                (Client::Ours(_), Client::Ours(_)) => paths.0.push(path),
                // Two foreign clients would test each other.
                (Client::Foreign(_), Client::Foreign(_)) => {}
                _ => paths.1.push(path),
            }
        }
    }
    paths
}

fn check(paths: &[Arc<Path>], row: usize) -> Result<Completion, Failed> {
    let faults: Vec<_> = paths.iter().filter_map(|path| path.check(row).err()).collect();
    if faults.is_empty() { Ok(Completion::Completed) } else { Err(faults.join("\n\n").into()) }
}
