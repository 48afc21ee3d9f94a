//! What a program logs and prints never tells a password, whatever happens to its connections.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use enoki::{
    WorkQueue,
    broker::{BrokerOptions, BrokerUrl},
    publish::PublisherOptions,
};
use enoki_faults::peer::{Peer, Script, amqp10, amqp091};
use tokio::time::timeout;

/// All that was logged.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn log() -> MutexGuard<'static, Vec<u8>> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        log().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const PASSWORD: &str = "S3cr3t/CANARY 7f1d";

/// The password in every form in which it could be read.
fn forms() -> Vec<(&'static str, String)> {
    let bytes = |password: &str| {
        let bytes: Vec<_> = password.bytes().map(|byte| byte.to_string()).collect();
        bytes.join(", ")
    };
    vec![
        ("as it is", PASSWORD.to_owned()),
        ("as a part of itself", "CANARY".to_owned()),
        ("in a URL", "S3cr3t%2FCANARY%207f1d".to_owned()),
        // Of "\0shop\0S3cr3t/CANARY 7f1d" and of the password alone.
        ("as the login in base64", "AHNob3AAUzNjcjN0L0NBTkFSWSA3ZjFk".to_owned()),
        ("in base64", "UzNjcjN0L0NBTkFSWSA3ZjFk".to_owned()),
        ("as numbers", bytes(PASSWORD)),
        ("as hexadecimal numbers", PASSWORD.bytes().map(|byte| format!("{byte:02x}")).collect()),
    ]
}

fn expect_quiet(where_: &str, text: &str) {
    for (form, password) in forms() {
        assert!(!text.contains(&password), "{where_} tells the password, {form}");
    }
}

/// What brokers do to a login, and after it.
fn scripts() -> Vec<(&'static str, Script)> {
    let start = || Script::new().read(8).send(amqp091::start()).read_frame();
    let sasl = || {
        Script::new()
            .read(8)
            .send([amqp10::SASL.to_vec(), amqp10::mechanisms()].concat())
            .read_frame10()
    };
    vec![
        ("amqp091", amqp091::login(2047, 131_072, 10)),
        ("amqp091", start().send(amqp091::close(403, "ACCESS_REFUSED")).read_frame()),
        ("amqp091", start().close()),
        ("amqp091", start().send("garbage")),
        ("amqp091", amqp091::login(2047, 131_072, 10).reset()),
        ("amqp10", amqp10::login(65_536, 255, 10_000)),
        ("amqp10", sasl().send(amqp10::outcome(1)).close()),
        ("amqp10", sasl().close()),
        ("amqp10", sasl().send("garbage!")),
        ("amqp10", amqp10::login(65_536, 255, 10_000).reset()),
        ("amqp091", Script::new()),
        ("amqp10", Script::new()),
    ]
}

#[tokio::test]
async fn t_s1_no_log_error_or_debug_output_tells_a_password() {
    const JOBS: WorkQueue<u32> = WorkQueue::new("jobs");
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(|| Log)
        .with_ansi(false)
        .init();
    let second = Duration::from_secs(1);
    for (scheme, script) in scripts() {
        let peer = Peer::start(script).await.unwrap();
        let url = format!("{scheme}://shop:S3cr3t%2FCANARY%207f1d@{}", peer.address());
        let parsed = BrokerUrl::parse(&url).unwrap();
        assert_eq!(parsed.password().unwrap().reveal(), PASSWORD);
        expect_quiet("a URL", &format!("{parsed} {parsed:?} {parsed:#?}"));
        let options = BrokerOptions::new()
            .connect_timeout(second)
            .declare_timeout(second)
            .reach_within(Duration::ZERO);
        let connected =
            timeout(Duration::from_secs(60), enoki::connect_with(&url, options)).await.unwrap();
        match connected {
            Err(error) => expect_quiet("an error", &format!("{error} {error:?} {error:#?}")),
            Ok(broker) => {
                let options = PublisherOptions::new().timeout(second);
                match broker.publisher_with(&JOBS.route(), options).await {
                    Err(error) => expect_quiet("an error", &format!("{error} {error:#?}")),
                    Ok(publisher) => {
                        let error =
                            publisher.publish(&1).await.expect_err("the peer confirms nothing");
                        expect_quiet("an error", &format!("{error} {error:#?} {publisher:#?}"));
                    }
                }
                let health = broker.health().borrow().clone();
                expect_quiet("a health", &format!("{health} {health:#?}"));
                expect_quiet("a handle", &format!("{broker:#?} {:#?}", broker.peer()));
                broker.close(second).await;
            }
        }
    }
    let log = String::from_utf8_lossy(&log()).into_owned();
    // Otherwise it would prove nothing. The client of AMQP 1.0 is built without a log.
    for target in ["enoki", "lapin"] {
        assert!(log.contains(target), "{target} logs nothing");
    }
    for line in log.lines() {
        expect_quiet(line, line);
    }
}
