//! fe2o3-amqp by itself, used the way its documentation shows: a link that sends, and one that receives
//! and accepts each delivery. The queue is a durable one that is there already.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use fe2o3_amqp::{
    Connection, Receiver, Sender, Session,
    connection::ConnectionHandle,
    link::receiver::CreditMode,
    session::SessionHandle,
    types::messaging::{Body, Data, Header, Message},
    types::primitives::{Binary, Value},
};

use crate::{Load, OUTSTANDING, Outcome};

/// Publishes unsettled, with at most 256 outcomes outstanding.
pub(crate) async fn publish(load: &Load) -> Outcome<Duration> {
    let (connection, mut session) = open(load).await?;
    let mut sender = Sender::attach(&mut session, "bench", address(load)).await?;
    let started = Instant::now();
    let mut outcomes = VecDeque::with_capacity(OUTSTANDING.into());
    for _ in 0..load.messages {
        if outcomes.len() == usize::from(OUTSTANDING)
            && let Some(oldest) = outcomes.pop_front()
        {
            let oldest: fe2o3_amqp::link::delivery::DeliveryFut<Result<_, _>> = oldest;
            let outcome: Result<
                fe2o3_amqp::types::messaging::Outcome,
                fe2o3_amqp::link::SendError,
            > = oldest.await;
            outcome?.accepted_or("not accepted")?;
        }
        let header = Header { durable: true, ..Header::default() };
        let body = Data(Binary::from(load.body.to_vec()));
        let message = Message::builder().header(header).data(body).build();
        outcomes.push_back(sender.send_batchable(message).await?);
    }
    for outcome in outcomes {
        outcome.await?.accepted_or("not accepted")?;
    }
    let time = started.elapsed();
    sender.close().await?;
    close(connection, session).await?;
    Ok(time)
}

/// Consumes with a credit of 256, and accepts each delivery.
pub(crate) async fn consume(load: &Load) -> Outcome<Duration> {
    let (connection, mut session) = open(load).await?;
    let started = Instant::now();
    let mut receiver = Receiver::builder()
        .name("bench")
        .source(address(load))
        .credit_mode(CreditMode::Auto(OUTSTANDING.into()))
        .attach(&mut session)
        .await?;
    for _ in 0..load.messages {
        let delivery = receiver.recv::<Body<Value>>().await?;
        receiver.accept(&delivery).await?;
    }
    let time = started.elapsed();
    receiver.close().await?;
    close(connection, session).await?;
    Ok(time)
}

fn address(load: &Load) -> String {
    format!("/queues/{}", load.queue)
}

async fn open(load: &Load) -> Outcome<(ConnectionHandle<()>, SessionHandle<()>)> {
    let url = load.url.replacen("amqp10://", "amqp://", 1).replacen("amqp091://", "amqp://", 1);
    let (url, virtual_host) = match url.rsplit_once('/') {
        Some((url, name)) if !url.ends_with('/') => (url.to_owned(), name.to_owned()),
        _ => (url, "/".to_owned()),
    };
    let hostname = format!("vhost:{virtual_host}");
    let mut connection = Connection::builder()
        .container_id("bench")
        .hostname(Some(hostname.as_str()))
        .open(url.as_str())
        .await?;
    let session = Session::begin(&mut connection).await?;
    Ok((connection, session))
}

async fn close(
    mut connection: ConnectionHandle<()>,
    mut session: SessionHandle<()>,
) -> Outcome<()> {
    session.end().await?;
    Ok(connection.close().await?)
}
