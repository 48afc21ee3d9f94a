//! Messages on the wire: bodies, headers and properties arrive as they were sent, or are refused.

use std::time::Duration;

use bytes::Bytes;
use enoki_core::{
    Delivery, ErrorKind, Outcome, Properties, Publication, PublisherOptions, Raw, ShortStr, Table,
    Timestamp, Value,
};

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq, expect_error, expect_says},
    stage::Stage,
    steps::{contents, hold, next, number, subscribe, to_queue, to_queue_with},
};

cases! { "headers":
    every_property_arrives,
    a_bare_message_stays_bare,
    an_id_of_any_type_comes_back_as_the_same_text,
    persistent_and_transient_arrive_as_such,
    every_type_of_header_arrives,
    headers_at_the_limits_arrive,
    lists_and_tables_arrive [NestedHeaders],
    tables_nested_too_deep_are_refused_by_name [NestedHeaders],
    text_in_any_language_arrives,
    names_keep_their_case,
    many_headers_arrive,
    a_body_that_is_no_text_arrives,
    an_empty_body_arrives,
    numbers_that_are_none_are_refused_by_name,
    reserved_names_are_refused_by_name,
    names_of_headers_have_1_to_255_bytes,
    an_expiration_is_kept_in_whole_milliseconds,
    what_no_wire_can_carry_is_refused,
    what_would_change_on_the_way_to_another_protocol_is_refused_by_name,
    headers_of_the_call_win_over_those_of_the_publisher,
}

/// Publishes one message, and returns how it arrives.
async fn there(
    stage: &Stage,
    raw: &Raw,
    with: impl for<'p> FnOnce(Publication<'p, Raw>) -> enoki_core::Result<Publication<'p, Raw>>,
) -> Result<Delivery, Failed> {
    let broker = stage.broker().await?;
    // Another queue each time, as the case settles none of the deliveries.
    let queue = stage.queue(&format!("q-{}", uuid::Uuid::now_v7().simple()))?;
    let publisher = to_queue::<Raw>(&broker, &queue).await?;
    with(publisher.message(raw)?)?.publish().await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    next(&mut subscription).await
}

fn as_it_is(publication: Publication<'_, Raw>) -> enoki_core::Result<Publication<'_, Raw>> {
    Ok(publication)
}

fn text() -> Result<Raw, Failed> {
    Ok(Raw::new("text/plain", "text")?)
}

async fn every_property_arrives(stage: &Stage) -> Result<(), Failed> {
    let delivery = there(stage, &text()?, |publication| {
        Ok(publication
            .content_encoding("utf-8")?
            .message_id("message")?
            .correlation_id("correlation")?
            .reply_to("answers")?
            .kind("order.placed")?
            .app_id("shop")?
            .timestamp(Timestamp::from_unix_seconds(1_700_000_001))
            .expiration(Duration::from_secs(3600))
            .priority(7))
    })
    .await?;
    let got = &delivery.message().properties;
    let text = |text| Some(ShortStr::from_static(text));
    expect_eq("content type", &got.content_type, &text("text/plain"))?;
    expect_eq("content encoding", &got.content_encoding, &text("utf-8"))?;
    expect_eq("message id", &got.message_id, &text("message"))?;
    expect_eq("correlation id", &got.correlation_id, &text("correlation"))?;
    expect_eq("reply to", &got.reply_to, &text("answers"))?;
    expect_eq("kind", &got.kind, &text("order.placed"))?;
    expect_eq("app id", &got.app_id, &text("shop"))?;
    expect_eq("user id", &got.user_id, &None)?;
    expect_eq("timestamp", got.timestamp, Some(Timestamp::from_unix_seconds(1_700_000_001)))?;
    expect_eq("expiration", got.expiration, Some(Duration::from_secs(3600)))?;
    expect_eq("priority", got.priority, Some(7))?;
    expect_eq("persistent", got.persistent, true)
}

async fn a_bare_message_stays_bare(stage: &Stage) -> Result<(), Failed> {
    let bare = Raw::from(Bytes::from_static(b"bare"));
    let delivery = there(stage, &bare, as_it_is).await?;
    let message = delivery.message();
    expect_eq("headers", &message.headers, &Table::new())?;
    let message_id = message.properties.message_id.clone();
    let wanted = Properties { message_id, ..Properties::default() };
    expect(wanted.message_id.is_some(), "a message id that was made for it")?;
    expect_eq("properties", &message.properties, &wanted)
}

/// A handler copies the id of a request to its answer: see `cross_protocol::Id`.
async fn an_id_of_any_type_comes_back_as_the_same_text(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<Raw>(&broker, &queue).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    for id in [
        "urn:uuid:123e4567-e89b-12d3-a456-426614174000",
        "AMQP_ULONG:18446744073709551615",
        "AMQP_BINARY:FF00FE",
        "AMQP_BINARY:6162",
        "AMQP_STRING:AMQP_ULONG:99",
        "AMQP_STRING:urn:uuid:123e4567-e89b-12d3-a456-426614174000",
        "AMQP_ULONG:099",
        "99",
    ] {
        publisher.message(&text()?)?.message_id(id)?.correlation_id(id)?.publish().await?;
        let delivery = next(&mut subscription).await?;
        let properties = &delivery.message().properties;
        expect_eq("the message id", properties.message_id.as_deref(), Some(id))?;
        expect_eq("the correlation id", properties.correlation_id.as_deref(), Some(id))?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

async fn persistent_and_transient_arrive_as_such(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let transient = PublisherOptions::new().transient();
    let transient = to_queue_with::<u32>(&broker, &queue, transient).await?;
    let persistent = to_queue::<u32>(&broker, &queue).await?;
    persistent.publish(&0).await?;
    transient.publish(&1).await?;
    persistent.message(&2)?.persistent(false).publish().await?;
    transient.message(&3)?.persistent(true).publish().await?;
    let mut subscription = subscribe(&broker, &queue, 4).await?;
    let arrived: Vec<_> = hold(&mut subscription, 4)
        .await?
        .iter()
        .map(|delivery| delivery.message().properties.persistent)
        .collect();
    expect_eq("persistent", arrived, [true, false, false, true])
}

/// Publishes with these headers, and expects the same.
async fn same_headers(stage: &Stage, headers: Vec<(&'static str, Value)>) -> Result<(), Failed> {
    let sent = headers.clone();
    let delivery = there(stage, &text()?, |mut publication| {
        for (name, value) in sent {
            publication = publication.header(name, value)?;
        }
        Ok(publication)
    })
    .await?;
    let arrived = &delivery.message().headers;
    for (name, value) in &headers {
        expect_eq(format_args!("header {name:?}"), arrived.get(name), Some(value))?;
    }
    expect_eq("how many headers", arrived.len(), headers.len())
}

async fn every_type_of_header_arrives(stage: &Stage) -> Result<(), Failed> {
    same_headers(
        stage,
        vec![
            ("null", Value::Null),
            ("yes", true.into()),
            ("no", false.into()),
            ("int", 42.into()),
            ("negative", (-42).into()),
            ("float", 2.5.into()),
            ("time", Timestamp::from_unix_seconds(1_700_000_002).into()),
            ("bytes", Bytes::from_static(&[0, 159, 146, 150, 255]).into()),
            ("text", "text".into()),
        ],
    )
    .await
}

async fn headers_at_the_limits_arrive(stage: &Stage) -> Result<(), Failed> {
    same_headers(
        stage,
        vec![
            ("least", i64::MIN.into()),
            ("greatest", i64::MAX.into()),
            ("tiny", f64::MIN_POSITIVE.into()),
            ("huge", f64::MAX.into()),
            ("third", (1.0 / 3.0).into()),
            ("epoch", Timestamp::from_unix_seconds(0).into()),
            ("before the epoch", Timestamp::from_unix_seconds(-5).into()),
            // The year 9999: beyond what 32 bits can count.
            ("late", Timestamp::from_unix_seconds(253_402_300_799).into()),
            ("empty-text", "".into()),
            ("empty-bytes", Bytes::new().into()),
            ("long-text", "x".repeat(70_000).into()),
            ("nul", Value::Bytes("a\0b".into())),
        ],
    )
    .await
}

async fn lists_and_tables_arrive(stage: &Stage) -> Result<(), Failed> {
    let mut table = Table::new();
    table.insert("int", 1)?;
    table.insert("list", Value::List(vec![1.into(), "two".into(), Value::Null]))?;
    table.insert("time", Timestamp::from_unix_seconds(1_700_000_003))?;
    let mut nested = Value::Table(table.clone());
    for _ in 0..20 {
        let mut outer = Table::new();
        outer.insert("inner", Value::List(vec![nested]))?;
        nested = outer.into();
        if depth(&nested) >= 30 {
            break;
        }
    }
    same_headers(
        stage,
        vec![
            ("empty-list", Value::List(Vec::new())),
            ("empty-table", Table::new().into()),
            (
                "list",
                Value::List(vec![true.into(), 1.into(), "x".into(), Value::List(vec![2.into()])]),
            ),
            ("table", table.into()),
            ("nested", nested),
        ],
    )
    .await
}

fn depth(value: &Value) -> usize {
    match value {
        Value::List(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Table(table) => 1 + table.iter().map(|(_, value)| depth(value)).max().unwrap_or(0),
        _ => 0,
    }
}

/// A thousand tables inside each other end the process of some receivers.
async fn tables_nested_too_deep_are_refused_by_name(stage: &Stage) -> Result<(), Failed> {
    let mut bomb = Value::Null;
    for _ in 0..500 {
        let mut table = Table::new();
        table.insert("t", bomb)?;
        bomb = table.into();
    }
    refused(stage, "bomb", bomb, ErrorKind::TooLarge).await
}

/// Expects that a header is refused by name, and that the next message goes through.
async fn refused(
    stage: &Stage,
    name: &'static str,
    value: Value,
    kind: ErrorKind,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    // Where it is set, or at the latest where it is published.
    let outcome = match publisher.message(&1)?.header(name, value) {
        Ok(publication) => publication.publish().await.map(drop),
        Err(error) => Err(error),
    };
    let error = expect_error(format_args!("header {name:?}"), outcome, &[kind])?;
    expect_says(&error, &format!("{name:?}"))?;
    expect(!error.is_transient(), "that the same header will not do later")?;
    publisher.publish(&2).await?;
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [2])
}

async fn text_in_any_language_arrives(stage: &Stage) -> Result<(), Failed> {
    same_headers(
        stage,
        vec![
            ("żółć", "gęślą jaźń".into()),
            ("蘑菇", "金针菇".into()),
            ("🍄", "👩‍👩‍👧‍👦".into()),
            ("עברית", "مرحبا".into()),
            ("a b\t'\"\\", "line\r\nline".into()),
        ],
    )
    .await?;
    let body = Raw::new("text/plain", "Ünïcödé 🍄")?;
    let delivery = there(stage, &body, |publication| {
        publication.correlation_id("корреляция")?.app_id("приложение 🍄")
    })
    .await?;
    expect_eq("the body", &delivery.message().body, &body.body)?;
    let properties = &delivery.message().properties;
    expect_eq("correlation id", properties.correlation_id.as_deref(), Some("корреляция"))?;
    expect_eq("app id", properties.app_id.as_deref(), Some("приложение 🍄"))
}

async fn names_keep_their_case(stage: &Stage) -> Result<(), Failed> {
    same_headers(
        stage,
        vec![
            ("Region", "EU".into()),
            ("region", "eu".into()),
            ("REGION", "Eu".into()),
            ("nameko.Call", 1.into()),
        ],
    )
    .await
}

async fn many_headers_arrive(stage: &Stage) -> Result<(), Failed> {
    let delivery = there(stage, &text()?, |mut publication| {
        for number in 0..2000 {
            publication = publication.header(format!("header-{number}"), number)?;
        }
        Ok(publication)
    })
    .await?;
    let headers = &delivery.message().headers;
    expect_eq("how many headers", headers.len(), 2000)?;
    for number in 0..2000 {
        let name = format!("header-{number}");
        expect_eq(&name, headers.get(&name), Some(&number.into()))?;
    }
    Ok(())
}

async fn a_body_that_is_no_text_arrives(stage: &Stage) -> Result<(), Failed> {
    let bytes: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    let raw = Raw::new("application/octet-stream", bytes)?;
    let delivery = there(stage, &raw, as_it_is).await?;
    expect_eq("the body", delivery.decode::<Raw>()?, raw)
}

async fn an_empty_body_arrives(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<Raw>(&broker, &queue).await?;
    for _ in 0..2 {
        publisher.publish(&Raw::new("text/plain", Bytes::new())?).await?;
    }
    let mut subscription = subscribe(&broker, &queue, 2).await?;
    for delivery in hold(&mut subscription, 2).await? {
        expect_eq("the length of the body", delivery.message().body.len(), 0)?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

/// RabbitMQ answers such a header by closing the connection.
async fn numbers_that_are_none_are_refused_by_name(stage: &Stage) -> Result<(), Failed> {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refused(stage, "number", value.into(), ErrorKind::Codec).await?;
    }
    let list = Value::List(vec![1.into(), f64::NAN.into()]);
    refused(stage, "list", list, ErrorKind::Codec).await
}

async fn reserved_names_are_refused_by_name(stage: &Stage) -> Result<(), Failed> {
    for name in ["x-death", "CC", "BCC", "x-delivery-count", "x-first-death-queue", "x-opt-mine"] {
        refused(stage, name, "mine".into(), ErrorKind::Configuration).await?;
    }
    Ok(())
}

async fn names_of_headers_have_1_to_255_bytes(stage: &Stage) -> Result<(), Failed> {
    refused(stage, "", 1.into(), ErrorKind::Configuration).await?;
    let mut table = Table::new();
    let too_long = table.insert("x".repeat(256), 1);
    let error = expect_error("a name of 256 bytes", too_long, &[ErrorKind::Configuration])?;
    expect_says(&error, "255")?;
    let longest = "é".repeat(127) + "x";
    let delivery =
        there(stage, &text()?, |publication| publication.header(longest.clone(), 1)).await?;
    expect_eq("its value", delivery.message().headers.get(&longest), Some(&1.into()))
}

async fn an_expiration_is_kept_in_whole_milliseconds(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let sent = [Duration::from_micros(60_000_001), Duration::from_millis(u32::MAX.into())];
    for (number, expiration) in (0..).zip(sent) {
        publisher.message(&number)?.expiration(expiration).publish().await?;
    }
    let wanted = [Duration::from_millis(60_001), Duration::from_millis(u32::MAX.into())];
    let mut subscription = subscribe(&broker, &queue, 2).await?;
    for (delivery, wanted) in hold(&mut subscription, 2).await?.into_iter().zip(wanted) {
        expect_eq("the expiration", delivery.message().properties.expiration, Some(wanted))?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

async fn what_no_wire_can_carry_is_refused(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let long = Duration::from_secs(50 * 24 * 3600);
    let outcome = publisher.message(&1)?.expiration(long).publish().await;
    expect_error("an expiration of 50 days", outcome, &[ErrorKind::Configuration])?;
    let late = Timestamp::from_unix_seconds(i64::MAX);
    let outcome = publisher.message(&1)?.timestamp(late).publish().await;
    expect_error("a timestamp after the end of time", outcome, &[ErrorKind::Codec])?;
    let outcome = publisher.message(&1)?.header("late", late)?.publish().await;
    expect_error("such a header", outcome, &[ErrorKind::Codec])?;
    publisher.message(&2)?.timestamp(Timestamp::MAX).publish().await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let delivery = next(&mut subscription).await?;
    let arrived = delivery.message().properties.timestamp;
    expect_eq("the latest timestamp", arrived, Some(Timestamp::MAX))
}

async fn what_would_change_on_the_way_to_another_protocol_is_refused_by_name(
    stage: &Stage,
) -> Result<(), Failed> {
    for (name, value) in [
        ("nul", "a\0b".into()),
        ("blob", Value::Bytes("x".repeat(4097).into())),
        ("x-größe", 1.into()),
        ("größen", Value::List(Vec::new())),
        ("x-message-id", Value::Bytes("an id".into())),
    ] {
        refused(stage, name, value, ErrorKind::Codec).await?;
    }
    for name in ["x-cc", "x-basic-priority", "x-amqp-1.0-properties"] {
        refused(stage, name, 1.into(), ErrorKind::Configuration).await?;
    }
    let broker = stage.broker().await?;
    let publisher = to_queue::<Raw>(&broker, &stage.queue("q")?).await?;
    let raw = text()?;
    let almost = "urn:uuid:123E4567-E89B-12D3-A456-426614174000";
    for (what, publication, kind) in [
        ("message id", publisher.message(&raw)?.message_id(almost)?, ErrorKind::Codec),
        ("correlation id", publisher.message(&raw)?.correlation_id(almost)?, ErrorKind::Codec),
        ("content encoding", publisher.message(&raw)?.content_encoding("ü")?, ErrorKind::Codec),
        ("reply-to", publisher.message(&raw)?.reply_to("/queues/q")?, ErrorKind::Configuration),
        ("the kind", publisher.message(&raw)?.kind("amqp-1.0")?, ErrorKind::Codec),
    ] {
        let error = expect_error(what, publication.publish().await, &[kind])?;
        expect_says(&error, what)?;
    }
    Ok(())
}

async fn headers_of_the_call_win_over_those_of_the_publisher(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let mut headers = Table::new();
    headers.insert("tenant", "publisher")?;
    headers.insert("region", "publisher")?;
    let options = PublisherOptions::new()
        .headers(headers)
        .priority(3)
        .app_id(ShortStr::from_static("publisher"));
    let publisher = to_queue_with::<u32>(&broker, &queue, options).await?;
    publisher.publish(&1).await?;
    let publication = publisher.message(&2)?.header("region", "call")?.header("own", 1)?;
    publication.priority(4).app_id("call")?.publish().await?;
    publisher.publish(&3).await?;
    let mut subscription = subscribe(&broker, &queue, 3).await?;
    // Some brokers deliver by priority whether asked to or not.
    for delivery in hold(&mut subscription, 3).await? {
        let called = number(&delivery)? == 2;
        let (who, priority, count) = if called { ("call", 4, 3) } else { ("publisher", 3, 2) };
        let message = delivery.message();
        let said = |name| message.headers.get(name).and_then(Value::as_str);
        expect_eq("tenant", said("tenant"), Some("publisher"))?;
        expect_eq("region", said("region"), Some(who))?;
        expect_eq("how many headers", message.headers.len(), count)?;
        expect_eq("priority", message.properties.priority, Some(priority))?;
        expect_eq("app id", message.properties.app_id.as_deref(), Some(who))?;
    }
    Ok(())
}
