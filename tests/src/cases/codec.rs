//! Bodies and their content types: what is decoded, and what becomes of what cannot be.

use bytes::Bytes;
use enoki_core::{
    Body, Broker, Codec, CodecError, Codecs, ErrorKind, Handler, Json, Outcome, PublisherOptions,
    QueueSpec, Raw, Service, ShortStr, Visit,
};
use tokio::sync::mpsc;

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq, expect_error},
    stage::Stage,
    steps::{
        PATIENCE, dead_letter_to, death_reason, declare, next, soon, subscribe, to_queue,
        to_queue_with,
    },
};

cases! { "codec":
    json_is_the_default,
    a_charset_does_not_matter,
    raw_accepts_everything,
    an_encoding_of_ones_own_is_used,
    a_body_of_another_type_is_not_decoded,
    a_body_that_cannot_be_decoded_is_dead_lettered [DeadLetter],
    an_unknown_content_type_is_dead_lettered [DeadLetter],
    a_missing_content_type_is_not_guessed [DeadLetter],
    only_what_is_accepted_is_decoded [DeadLetter],
    a_bomb_of_brackets_is_an_error [DeadLetter],
}

async fn json_is_the_default(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let words = vec!["one".to_owned(), "zwei \"2\"".to_owned()];
    to_queue::<Vec<String>>(&broker, &queue).await?.publish(&words).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let delivery = next(&mut subscription).await?;
    let properties = &delivery.message().properties;
    expect_eq("content type", properties.content_type.as_deref(), Some("application/json"))?;
    expect_eq("the body", &delivery.message().body[..], &br#"["one","zwei \"2\""]"#[..])?;
    expect_eq("the value", delivery.decode::<Vec<String>>()?, words)?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

async fn a_charset_does_not_matter(stage: &Stage) -> Result<(), Failed> {
    let types = ["application/json; charset=utf-8", "Application/JSON", "application/json ;q=1"];
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<Raw>(&broker, &queue).await?;
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    for content_type in types {
        publisher.publish(&Raw::new(content_type, "7")?).await?;
        let delivery = next(&mut subscription).await?;
        expect_eq(content_type, delivery.decode::<u32>()?, 7)?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

async fn raw_accepts_everything(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<Raw>(&broker, &queue).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(raw): Body<Raw>| {
        let _ = seen.send(raw);
        async {}
    };
    let mine = queue.of::<Raw>();
    let service = Service::new("conformance", broker.clone());
    let running = service.consume(&mine, handler.concurrency(1)).start().await?;
    let bodies = [
        Raw::new("image/png", vec![0x89, b'P', b'N', b'G'])?,
        Raw::new("application/json", "{")?,
        Raw::new("", "")?,
        Raw::from(Bytes::from_static(b"without a type")),
    ];
    for raw in bodies {
        publisher.publish(&raw).await?;
        let arrived = tokio::time::timeout(PATIENCE, sees.recv()).await?;
        expect_eq("what arrives", arrived, Some(raw))?;
    }
    Ok(running.stop(soon()).await?)
}

/// JSON, backwards: no other codec could read it.
#[derive(Debug)]
struct Backwards;

impl Codec for Backwards {
    fn content_type(&self) -> ShortStr {
        ShortStr::from_static("application/x-backwards")
    }

    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Bytes, CodecError> {
        Ok(Json.encode(value)?.iter().rev().copied().collect())
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        let forwards: Vec<u8> = body.iter().rev().copied().collect();
        Json.decode(&forwards, visit)
    }
}

async fn an_encoding_of_ones_own_is_used(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let options = PublisherOptions::new().codecs(Codecs::only(Backwards));
    let publisher = to_queue_with::<u32>(&broker, &queue, options).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>, envelope: enoki_core::Envelope| {
        let _ = seen.send((number, envelope.message.body.clone()));
        async {}
    };
    let mine = queue.clone().of::<u32>();
    let service = Service::new("conformance", broker.clone());
    let handler = handler.accept(Codecs::only(Json).and(Backwards));
    let running = service.consume(&mine, handler).start().await?;
    publisher.publish(&123).await?;
    let arrived = tokio::time::timeout(PATIENCE, sees.recv()).await?;
    expect_eq("what arrives", arrived, Some((123, Bytes::from_static(b"321"))))?;
    to_queue::<u32>(&broker, &queue).await?.publish(&456).await?;
    let arrived = tokio::time::timeout(PATIENCE, sees.recv()).await?;
    expect_eq("what arrives", arrived, Some((456, Bytes::from_static(b"456"))))?;
    Ok(running.stop(soon()).await?)
}

async fn a_body_of_another_type_is_not_decoded(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    to_queue::<String>(&broker, &queue).await?.publish(&"seven".to_owned()).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let delivery = next(&mut subscription).await?;
    expect_error("decode a number", delivery.decode::<u32>(), &[ErrorKind::Codec])?;
    expect_eq("the text", delivery.decode::<String>()?, "seven")?;
    delivery.settle(Outcome::Ack);
    Ok(())
}

/// K14
async fn a_body_that_cannot_be_decoded_is_dead_lettered(stage: &Stage) -> Result<(), Failed> {
    let json = |body: &'static str| Raw::new("application/json", body);
    poison(
        stage,
        &[
            json("{\"a\":")?,
            json("\"text\"")?,
            json("")?,
            json("7 and more")?,
            json("-1")?,
            Raw::new("application/json", vec![b'"', 0xff, b'"'])?,
        ],
    )
    .await
}

/// K15, W07
async fn an_unknown_content_type_is_dead_lettered(stage: &Stage) -> Result<(), Failed> {
    poison(
        stage,
        &[
            Raw::new("application/x-python-serialize", "7")?,
            Raw::new("application/jsonx", "7")?,
            Raw::new("text/plain", "7")?,
        ],
    )
    .await
}

/// W06
async fn a_missing_content_type_is_not_guessed(stage: &Stage) -> Result<(), Failed> {
    poison(stage, &[Raw::from(Bytes::from_static(b"7")), Raw::new("", "7")?]).await
}

async fn only_what_is_accepted_is_decoded(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, dead) = queues(stage, &broker).await?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>| {
        let _ = seen.send(number);
        async {}
    };
    let mine = queue.clone().of::<u32>();
    let service = Service::new("conformance", broker.clone());
    let handler = handler.accept(Codecs::only(Backwards));
    let running = service.consume(&mine, handler).start().await?;
    let mut graveyard = subscribe(&broker, &dead, 1).await?;
    publisher.publish(&12).await?;
    let letter = next(&mut graveyard).await?;
    expect_eq("the dead letter", letter.decode::<u32>()?, 12)?;
    letter.settle(Outcome::Ack);
    let options = PublisherOptions::new().codecs(Codecs::only(Backwards));
    to_queue_with::<u32>(&broker, &queue, options).await?.publish(&12).await?;
    let arrived = tokio::time::timeout(PATIENCE, sees.recv()).await?;
    expect_eq("what is handled", arrived, Some(12))?;
    Ok(running.stop(soon()).await?)
}

/// W09
async fn a_bomb_of_brackets_is_an_error(stage: &Stage) -> Result<(), Failed> {
    poison(stage, &[Raw::new("application/json", "[".repeat(100_000))?]).await
}

async fn queues(stage: &Stage, broker: &Broker) -> Result<(QueueSpec, QueueSpec), Failed> {
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.dead_letter = dead_letter_to(&dead);
    declare(broker, &[], &[&dead, &queue], &[]).await?;
    Ok((queue, dead))
}

/// Expects that each of these bodies is dead-lettered, that no handler sees it, and that its
/// neighbours are handled.
async fn poison(stage: &Stage, bodies: &[Raw]) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, dead) = queues(stage, &broker).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |body: Body<u32>| {
        let _ = seen.send(body.0);
        async {}
    };
    let mine = queue.clone().of::<u32>();
    let service = Service::new("conformance", broker.clone());
    let running = service.consume(&mine, handler.concurrency(1)).start().await?;
    let good = to_queue::<u32>(&broker, &queue).await?;
    let bad = to_queue::<Raw>(&broker, &queue).await?;
    let mut graveyard = subscribe(&broker, &dead, 10).await?;
    for (number, body) in (0..).zip(bodies) {
        bad.publish(body).await?;
        good.publish(&number).await?;
        let handled = tokio::time::timeout(PATIENCE, sees.recv()).await?;
        expect_eq("what is handled", handled, Some(number))?;
        let letter = next(&mut graveyard).await?;
        expect_eq("the dead letter", &letter.decode::<Raw>()?, body)?;
        let reason = death_reason(&letter.message().headers);
        expect_eq("the reason", reason.as_deref(), Some("rejected"))?;
        letter.settle(Outcome::Ack);
    }
    running.stop(soon()).await?;
    expect(sees.try_recv().is_err(), "nothing more to have been handled")
}
