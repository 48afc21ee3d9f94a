//! This toolkit as a client: its transports, without what the core adds to messages.

use std::{collections::VecDeque, num::NonZeroU16, sync::Arc, time::Duration};

use enoki::{
    Outcome,
    broker::BrokerUrl,
    message::{Limits, Message, ShortStr},
    transport::{
        Delivered, Outgoing, PublishOutcome, Purpose, ReceiverOptions, SenderOptions, Session,
        Settle, Transport,
    },
};
use enoki_interop::Checked;
use tokio::time::Instant;

pub(crate) async fn open(url: &str) -> Checked<Arc<dyn Session>> {
    let url = BrokerUrl::parse(url)?;
    let transport: Arc<dyn Transport> = match url.scheme() {
        "amqp091" => Arc::new(enoki::amqp091::Amqp091Transport::new(&url)?),
        "amqp10" => Arc::new(enoki::amqp10::Amqp10Transport::new(&url)?),
        other => return Err(format!("no transport for {other}").into()),
    };
    Ok(transport.connect(Purpose::Consume, Instant::now() + Duration::from_secs(20)).await?)
}

pub(crate) async fn publish(url: &str, queue: &str, messages: &[Message]) -> Checked {
    let session = open(url).await?;
    let window = NonZeroU16::try_from(u16::try_from(messages.len())?)?;
    let mut sender = session.sender(SenderOptions::new(window)).await?;
    let mut waiting = VecDeque::new();
    for (id, message) in (0..).zip(messages) {
        message.check(&Limits::default())?;
        waiting.push_back(Outgoing {
            id,
            exchange: ShortStr::EMPTY,
            routing_key: ShortStr::new(queue)?,
            mandatory: true,
            message: Arc::new(message.clone()),
        });
    }
    let mut outcomes = Vec::new();
    while outcomes.len() < messages.len() {
        sender.submit(&mut waiting).await?;
        sender.outcomes(&mut outcomes).await?;
    }
    for (id, outcome) in outcomes {
        if !matches!(outcome, PublishOutcome::Confirmed) {
            return Err(format!("message {id}: {outcome:?}").into());
        }
    }
    session.close(Instant::now() + Duration::from_secs(5)).await;
    Ok(())
}

/// Takes so many deliveries, in order, and acknowledges them.
pub(crate) async fn take(url: &str, queue: &str, count: usize) -> Checked<Vec<Delivered>> {
    let session = open(url).await?;
    let queue = ShortStr::new(queue)?;
    let prefetch = NonZeroU16::try_from(u16::try_from(count)?)?;
    let mut receiver = session.receiver(ReceiverOptions::new(queue, prefetch)).await?;
    let mut arrived = Vec::new();
    while arrived.len() < count {
        let missing = count - arrived.len();
        receiver.receive(&mut arrived, missing).await.map_err(|end| format!("{end:?}"))?;
    }
    let settled: Vec<_> =
        arrived.iter().map(|delivered| Settle::new(delivered.tag, Outcome::Ack)).collect();
    receiver.settle(&settled);
    receiver.close().await?;
    session.close(Instant::now() + Duration::from_secs(5)).await;
    Ok(arrived)
}

pub(crate) async fn consume(url: &str, queue: &str, count: usize) -> Checked<Vec<Message>> {
    let mut messages = Vec::new();
    for delivered in take(url, queue, count).await? {
        if let Some(reason) = delivered.undecodable {
            return Err(format!("{:?} cannot be read: {reason}", delivered.message).into());
        }
        if !delivered.exchange.is_empty() || delivered.routing_key != queue {
            let (exchange, key) = (delivered.exchange, delivered.routing_key);
            return Err(format!("it came by {exchange:?} {key:?}").into());
        }
        messages.push(Arc::unwrap_or_clone(delivered.message));
    }
    Ok(messages)
}
