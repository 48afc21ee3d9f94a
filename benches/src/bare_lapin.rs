//! lapin by itself, used the way its README shows: each publish awaited until it is written, each
//! delivery acknowledged and the acknowledgement awaited.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::FieldTable,
};

use crate::{Load, OUTSTANDING, Outcome};

/// Publishes confirmed, with at most 256 confirms outstanding.
pub(crate) async fn publish(load: &Load) -> Outcome<Duration> {
    let (connection, channel) = open(load).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let properties = BasicProperties::default().with_delivery_mode(2);
    let started = Instant::now();
    let mut confirms = VecDeque::with_capacity(OUTSTANDING.into());
    for _ in 0..load.messages {
        if confirms.len() == usize::from(OUTSTANDING)
            && let Some(oldest) = confirms.pop_front()
        {
            check(oldest).await?;
        }
        let options = BasicPublishOptions::default();
        let publish = channel.basic_publish(
            "".into(),
            load.queue.into(),
            options,
            &load.body,
            properties.clone(),
        );
        confirms.push_back(publish.await?);
    }
    for confirm in confirms {
        check(confirm).await?;
    }
    let time = started.elapsed();
    connection.close(200, "bye".into()).await?;
    Ok(time)
}

async fn check(confirm: lapin::PublisherConfirm) -> Outcome<()> {
    if confirm.await?.is_ack() { Ok(()) } else { Err("not confirmed".into()) }
}

/// Consumes with a prefetch of 256, and acknowledges each delivery.
pub(crate) async fn consume(load: &Load) -> Outcome<Duration> {
    let (connection, channel) = open(load).await?;
    channel.basic_qos(OUTSTANDING, BasicQosOptions::default()).await?;
    let started = Instant::now();
    let options = BasicConsumeOptions::default();
    let mut consumer = channel
        .basic_consume(load.queue.into(), "bench".into(), options, FieldTable::default())
        .await?;
    for _ in 0..load.messages {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        delivery.ack(BasicAckOptions::default()).await?;
    }
    let time = started.elapsed();
    connection.close(200, "bye".into()).await?;
    Ok(time)
}

/// Makes the queue anew.
pub(crate) async fn reset(load: &Load) -> Outcome<()> {
    remove(load).await?;
    let (connection, channel) = open(load).await?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(load.queue.into(), options, FieldTable::default()).await?;
    Ok(connection.close(200, "bye".into()).await?)
}

/// Removes the queue.
pub(crate) async fn remove(load: &Load) -> Outcome<()> {
    let (connection, channel) = open(load).await?;
    channel.queue_delete(load.queue.into(), QueueDeleteOptions::default()).await?;
    Ok(connection.close(200, "bye".into()).await?)
}

async fn open(load: &Load) -> Outcome<(Connection, Channel)> {
    let url = load.url.replacen("amqp091://", "amqp://", 1);
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}
