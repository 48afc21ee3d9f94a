//! Errors: kinds to act on, texts to read, and nothing that must stay secret.

use std::time::Duration;

use enoki_core::{
    Broker, BrokerOptions, Capability, Error, ErrorKind, ExchangeKind, RouteSpec, ShortStr,
    transport::Change,
};

use crate::{
    case::cases,
    expect::{Failed, chain, expect, expect_eq, expect_error},
    harness::Broken,
    stage::Stage,
    steps::{soon, subscribe, to_queue, topology},
};

cases! { "errors":
    every_error_names_its_subject_in_one_line,
    control_characters_of_a_name_reach_no_error,
    no_error_tells_a_credential broken WrongPassword,
    a_failure_to_reach_a_broker_tells_no_credential broken Unreachable,
    a_broker_handle_tells_no_credential,
}

async fn every_error_names_its_subject_in_one_line(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let missing = stage.queue("missing")?;
    let mut other = queue.clone();
    other.auto_delete = true;
    broker.declare(&topology(&[], &[&queue], &[])).await?;
    let mut errors: Vec<(ErrorKind, &str, Error)> = Vec::new();
    let mut failed = |what: &str, kind, subject, result: Result<(), Error>| {
        errors.push((kind, subject, expect_error(what, result, &[kind])?));
        Ok::<_, Failed>(())
    };
    let verified = broker.verify(&topology(&[], &[&missing], &[])).await;
    failed("verify", ErrorKind::NotFound, &missing.name, verified)?;
    let status = broker.queue_status(&missing.clone().of::<u32>()).await;
    failed("look", ErrorKind::NotFound, &missing.name, status.map(drop))?;
    let purged = broker.apply(&Change::PurgeQueue(missing.name.clone())).await;
    failed("purge", ErrorKind::NotFound, &missing.name, purged.map(drop))?;
    let declared = broker.declare(&topology(&[], &[&other], &[])).await;
    failed("declare", ErrorKind::Conflict, &queue.name, declared)?;
    let subscribed = broker.subscribe(&other.clone().of::<u32>(), 1).await;
    failed("subscribe", ErrorKind::Conflict, &queue.name, subscribed.map(drop))?;
    let unwanted = broker.subscribe(&queue.clone().of::<u32>(), 0).await;
    failed("subscribe", ErrorKind::Configuration, &queue.name, unwanted.map(drop))?;
    let exchange = stage.exchange("x", ExchangeKind::Direct)?;
    if stage.can(Capability::Exchanges) {
        let verified = broker.verify(&topology(&[&exchange], &[], &[])).await;
        failed("verify", ErrorKind::NotFound, &exchange.name, verified)?;
        if stage.can(Capability::UnroutableDetection) {
            let route = RouteSpec::<u32>::new(&exchange, "nowhere")?;
            let published = broker.publisher(route).await?.publish(&1).await;
            failed("publish", ErrorKind::Unroutable, &exchange.name, published.map(drop))?;
        }
    }
    for (kind, subject, error) in &errors {
        let text = error.to_string();
        expect(text.contains(subject), format_args!("{subject:?} in {text:?}"))?;
        expect(!text.contains('\n'), format_args!("one line, not {text:?}"))?;
        expect(!error.is_transient(), format_args!("that {kind:?} does not pass by itself"))?;
        expect_eq("the kind of a copy", error.clone().kind(), *kind)?;
    }
    Ok(())
}

/// A broker may quote any character: an error is one line all the same, and moves no cursor.
async fn control_characters_of_a_name_reach_no_error(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let plain = stage.queue("missing")?;
    let mut missing = plain.clone();
    missing.name = ShortStr::new(format!("{}\u{1b}[31m\n\u{202e}forged", plain.name))?;
    let mut errors = Vec::new();
    let verified = broker.verify(&topology(&[], &[&missing], &[])).await;
    errors.push(expect_error("verify", verified, &[ErrorKind::NotFound])?);
    let status = broker.queue_status(&missing.clone().of::<u32>()).await;
    errors.push(expect_error("look", status, &[ErrorKind::NotFound])?);
    let purged = broker.apply(&Change::PurgeQueue(missing.name.clone())).await;
    errors.push(expect_error("purge", purged, &[ErrorKind::NotFound])?);
    missing.passive = true;
    let subscribed = broker.subscribe(&missing.of::<u32>(), 1).await;
    errors.push(expect_error("subscribe", subscribed.map(drop), &[ErrorKind::NotFound])?);
    let controls = |letter: char| letter.is_control() || letter == '\u{202e}';
    for error in errors {
        for text in [error.to_string(), format!("{error:?}"), chain(&error)] {
            expect(!text.contains(controls), format_args!("no control character in {text:?}"))?;
        }
    }
    Ok(())
}

/// T-S1
async fn no_error_tells_a_credential(stage: &Stage) -> Result<(), Failed> {
    let transport = stage.broken(Broken::WrongPassword)?;
    let debug = format!("{transport:?} {transport:#?}");
    let error = expect_error("connect", Broker::connect(transport).await, &[ErrorKind::Denied])?;
    tells_nothing(&debug)?;
    tells_nothing(&format!("{error} {error:?} {error:#?} {}", chain(&error)))
}

/// T-S1
async fn a_failure_to_reach_a_broker_tells_no_credential(stage: &Stage) -> Result<(), Failed> {
    let transport = stage.broken(Broken::Unreachable)?;
    let debug = format!("{transport:?} {transport:#?}");
    let once = BrokerOptions::new().reach_within(Duration::ZERO);
    let connected = Broker::connect_with(transport, once).await;
    let error = expect_error("connect", connected, &[ErrorKind::Connection])?;
    tells_nothing(&debug)?;
    tells_nothing(&format!("{error} {error:?} {error:#?} {}", chain(&error)))
}

/// The password as it is, and in the forms that it takes in URLs and in a login.
fn tells_nothing(text: &str) -> Result<(), Failed> {
    // base64 of the last bytes of the password in each of the three positions it can have.
    let forms = [Broken::PASSWORD, "S3cr3t%2D", "CANARY", "Q0FOQVJZ", "NBTkFSW", "DQU5BUl"];
    for form in forms {
        expect(!text.contains(form), "no password in an error or a Debug")?;
    }
    Ok(())
}

async fn a_broker_handle_tells_no_credential(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let subscription = subscribe(&broker, &queue, 1).await?;
    let texts = format!("{broker:?} {publisher:?} {subscription:?} {:#?}", broker.clone());
    broker.close(soon()).await;
    let error = expect_error("publish", publisher.publish(&1).await, &[ErrorKind::Closed])?;
    for text in [texts, chain(&error), error.to_string()] {
        let lower = text.to_lowercase();
        expect(!lower.contains("password: \""), format_args!("no password in {text}"))?;
        // A URL with a password in it has a colon before the at sign.
        let url = lower.split("//").skip(1).filter_map(|rest| rest.split_once('@'));
        for (login, _) in url {
            expect(!login.contains(':'), format_args!("no password in {text}"))?;
        }
    }
    Ok(())
}
