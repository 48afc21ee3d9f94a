//! Bodies and their content types: which are decoded, and where the others go.

use bytes::Bytes;
use enoki_core::{
    AnyJson, Body, Broker, BrokerOptions, Codec, CodecError, Codecs, Compression, Envelope,
    ErrorKind, Handler, Json, Message, MessagePack, Outcome, PublisherOptions, QueueSpec, Raw,
    Service, ShortStr, Text, Visit,
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
    a_charset_that_is_utf8_does_not_matter,
    json_by_other_names_is_read_where_a_consumer_says_so,
    raw_accepts_everything,
    every_byte_arrives,
    an_encoding_of_ones_own_is_used,
    a_message_may_have_another_encoding_than_its_publisher,
    encodings_share_a_queue,
    a_compressed_body_becomes_what_it_was,
    a_body_that_becomes_too_large_is_dead_lettered [DeadLetterRejected],
    a_compression_that_is_not_accepted_is_dead_lettered [DeadLetterRejected],
    a_body_of_another_type_is_not_decoded,
    a_body_that_cannot_be_decoded_is_dead_lettered [DeadLetterRejected],
    an_unknown_content_type_is_dead_lettered [DeadLetterRejected],
    a_missing_content_type_is_not_guessed [DeadLetterRejected],
    a_charset_that_is_not_read_is_dead_lettered [DeadLetterRejected],
    only_what_is_accepted_is_decoded [DeadLetterRejected],
    a_bomb_of_brackets_is_an_error [DeadLetterRejected],
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

/// As .NET, CloudEvents and MassTransit write it.
async fn json_by_other_names_is_read_where_a_consumer_says_so(stage: &Stage) -> Result<(), Failed> {
    let codecs = Codecs::only(AnyJson);
    let broker = stage.broker_with(BrokerOptions::new().codecs(codecs)).await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<Raw>(&broker, &queue).await?;
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    for raw in [
        Raw::from(Bytes::from_static(b"7")),
        Raw::new("application/cloudevents+json", "7")?,
        Raw::new("application/vnd.masstransit+json; charset=utf-8", "7")?,
        Raw::new("application/json", "\u{feff}7")?,
    ] {
        publisher.publish(&raw).await?;
        let delivery = next(&mut subscription).await?;
        expect_eq("the body", &delivery.message().body, &raw.body)?;
        expect_eq("the value", delivery.decode::<u32>()?, 7)?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

async fn a_charset_that_is_utf8_does_not_matter(stage: &Stage) -> Result<(), Failed> {
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

async fn every_byte_arrives(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<Raw>(&broker, &queue).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let bytes: Vec<u8> = (0..=u8::MAX).collect();
    for body in [bytes.clone(), bytes.repeat(1000), vec![0], vec![0xff; 3]] {
        let sent = Raw::new("application/octet-stream", body)?;
        publisher.publish(&sent).await?;
        let delivery = next(&mut subscription).await?;
        expect(delivery.decode::<Raw>()? == sent, "the bytes to arrive as they are")?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
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
    let handler = move |Body(number): Body<u32>, envelope: Envelope| {
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

async fn a_message_may_have_another_encoding_than_its_publisher(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let backwards = Codecs::only(Backwards);
    publisher.publish(&12).await?;
    publisher.message_with(&12, &backwards)?.publish().await?;
    publisher.publish(&12).await?;
    let mut subscription = subscribe(&broker, &queue, 3).await?;
    let types = ["application/json", "application/x-backwards", "application/json"];
    for (content_type, body) in types.into_iter().zip(["12", "21", "12"]) {
        let delivery = next(&mut subscription).await?;
        let Message { body: arrived, properties, .. } = delivery.message();
        expect_eq("the content type", properties.content_type.as_deref(), Some(content_type))?;
        expect_eq("the body", arrived.as_ref(), body.as_bytes())?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

async fn encodings_share_a_queue(stage: &Stage) -> Result<(), Failed> {
    let all = Codecs::only(Json).and(MessagePack).and(Text);
    let broker = stage.broker_with(BrokerOptions::new().codecs(all)).await?;
    let queue = stage.queue("q")?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    for (codecs, body) in [
        (Codecs::only(Json), &b"\"s\xc3\xbcss\""[..]),
        (Codecs::only(MessagePack), &b"\xa5s\xc3\xbcss"[..]),
        (Codecs::only(Text), &b"s\xc3\xbcss"[..]),
    ] {
        let options = PublisherOptions::new().codecs(codecs);
        let publisher = to_queue_with::<String>(&broker, &queue, options).await?;
        publisher.publish(&"süss".to_owned()).await?;
        let delivery = next(&mut subscription).await?;
        expect_eq("the body", &delivery.message().body[..], body)?;
        expect_eq("the text", delivery.decode::<String>()?, "süss")?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

/// As kombu does: the header says how, and the content type is still that of the value.
async fn a_compressed_body_becomes_what_it_was(stage: &Stage) -> Result<(), Failed> {
    let codecs = Codecs::only(MessagePack).compressed(Compression::new());
    let broker = stage.broker_with(BrokerOptions::new().codecs(codecs)).await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<String>(&broker, &queue).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(text): Body<String>, envelope: Envelope| {
        let _ = seen.send((text, envelope.message));
        async {}
    };
    let mine = queue.of::<String>();
    let service = Service::new("conformance", broker.clone());
    let running = service.consume(&mine, handler.concurrency(1)).start().await?;
    for (text, compressed) in [("enoki".to_owned(), false), ("enoki ".repeat(1000), true)] {
        publisher.publish(&text).await?;
        let arrived = tokio::time::timeout(PATIENCE, sees.recv()).await?;
        let (read, message) = arrived.ok_or_else(|| Failed::new("the handler is gone"))?;
        expect(read == text, "the text to be what it was")?;
        let header = message.headers.get("compression").and_then(|value| value.as_str());
        expect_eq("the header", header, compressed.then_some("application/x-gzip"))?;
        expect_eq("whether it is small", message.body.len() < text.len() / 10, compressed)?;
        let content_type = message.properties.content_type.as_deref();
        expect_eq("the content type", content_type, Some("application/x-msgpack"))?;
    }
    Ok(running.stop(soon()).await?)
}

async fn a_body_that_becomes_too_large_is_dead_lettered(stage: &Stage) -> Result<(), Failed> {
    let codecs = Codecs::only(Json).compressed(Compression::read_only().max_size(1000));
    refuses_what_is_compressed(stage, codecs).await
}

async fn a_compression_that_is_not_accepted_is_dead_lettered(stage: &Stage) -> Result<(), Failed> {
    refuses_what_is_compressed(stage, Codecs::only(Json)).await
}

async fn refuses_what_is_compressed(stage: &Stage, accepted: Codecs) -> Result<(), Failed> {
    let codecs = Codecs::only(Json).compressed(Compression::new());
    let broker = stage.broker_with(BrokerOptions::new().codecs(codecs)).await?;
    let (queue, dead) = queues(stage, &broker).await?;
    let publisher = to_queue::<String>(&broker, &queue).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(text): Body<String>| {
        let _ = seen.send(text);
        async {}
    };
    let mine = queue.clone().of::<String>();
    let service = Service::new("conformance", broker.clone());
    let running = service.consume(&mine, handler.concurrency(1).accept(accepted)).start().await?;
    let mut graveyard = subscribe(&broker, &dead, 1).await?;
    let large = "x".repeat(100_000);
    publisher.publish(&large).await?;
    publisher.publish(&"small".to_owned()).await?;
    let handled = tokio::time::timeout(PATIENCE, sees.recv()).await?;
    expect_eq("what is handled", handled.as_deref(), Some("small"))?;
    let letter = next(&mut graveyard).await?;
    expect(letter.decode::<String>()? == large, "the dead letter to be what it was")?;
    letter.settle(Outcome::Ack);
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

async fn a_missing_content_type_is_not_guessed(stage: &Stage) -> Result<(), Failed> {
    poison(stage, &[Raw::from(Bytes::from_static(b"7")), Raw::new("", "7")?]).await
}

async fn a_charset_that_is_not_read_is_dead_lettered(stage: &Stage) -> Result<(), Failed> {
    poison(
        stage,
        &[
            Raw::new("application/json; charset=utf-16", vec![0xff, 0xfe, b'7', 0])?,
            Raw::new("application/json; charset=iso-8859-1", "7")?,
        ],
    )
    .await
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
