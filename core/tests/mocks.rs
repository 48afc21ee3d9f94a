//! The mocks: what the toolkit makes of a transport that a test plays.

#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    future::{pending, ready},
    sync::Arc,
    time::Duration,
};

use enoki_core::{
    Attempt, Body, Broker, BrokerOptions, Capability, Context, Error, ErrorKind, ExchangeKind,
    ExchangeSpec, Message, Outcome, Peer, QueueSpec, Raw, Service, ShortStr, Topology, WorkQueue,
    mock::{
        MockEntrypoint, MockExchange, MockExtension, MockHeaderCodec, MockQueue, MockReceiver,
        MockSender, MockSession, MockTransport,
    },
    testing::EntrypointWaiter,
    transport::{
        Change, Delivered, Found, Outgoing, PublishOutcome, Sender, SenderOptions, Session, Settle,
    },
};
use tokio::sync::mpsc;

const BILLING: WorkQueue<String> = WorkQueue::new("billing");

fn session() -> MockSession {
    let mut session = MockSession::new();
    session.expect_peer().return_const(Peer::new("mock", "1", [Capability::Exchanges]));
    session.expect_ended().returning(|| Box::pin(pending()));
    session.expect_apply().returning(|_| Box::pin(ready(Ok(Found::default()))));
    session.expect_close().returning(|_| Box::pin(ready(())));
    session
}

async fn broker(session: MockSession) -> Broker {
    let session: Arc<dyn Session> = Arc::new(session);
    let mut transport = MockTransport::new();
    transport.expect_name().return_const("mock");
    transport.expect_connect().returning(move |_, _| Box::pin(ready(Ok(session.clone()))));
    Broker::connect(Arc::new(transport)).await.unwrap()
}

/// A sender whose broker refuses each message.
fn refusing() -> Box<dyn Sender> {
    let (took, mut taken) = mpsc::unbounded_channel();
    let mut sender = MockSender::new();
    sender.expect_submit().returning(move |messages: &mut VecDeque<Outgoing>| {
        for message in messages.drain(..) {
            let _ = took.send(message.id);
        }
        Box::pin(ready(Ok(())))
    });
    sender.expect_outcomes().returning(move |into| match taken.try_recv() {
        Ok(id) => {
            let full = Error::new(ErrorKind::Refused, "publish").because("the queue is full");
            into.push((id, PublishOutcome::Rejected(full)));
            Box::pin(ready(Ok(())))
        }
        Err(_) => Box::pin(pending()),
    });
    Box::new(sender)
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_refuses_is_an_error_of_the_publisher() {
    let mut session = session();
    let window = |options: &SenderOptions| options.window.get() == 256;
    session.expect_sender().withf(window).returning(|_| Box::pin(ready(Ok(refusing()))));
    let publisher = broker(session).await.publisher(&BILLING.route()).await.unwrap();
    let error = publisher.publish(&"order".to_owned()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("the queue is full"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_delivers_and_is_told_what_became_of_it() {
    async fn bill(Body(order): Body<String>) -> Outcome {
        if order == "order 1" { Outcome::Ack } else { Outcome::Reject }
    }
    let (settled, mut settlements) = mpsc::unbounded_channel();
    let mut session = session();
    session.expect_receiver().return_once(move |options| {
        assert_eq!((options.queue.as_str(), options.prefetch.get()), ("billing", 10));
        let mut receiver = MockReceiver::new();
        let mut orders = (1..=2).collect::<VecDeque<u64>>();
        receiver.expect_receive().returning(move |into, _| match orders.pop_front() {
            Some(tag) => {
                let mut message = Message::new(format!("\"order {tag}\""));
                message.properties.content_type = Some("application/json".try_into().unwrap());
                into.push(Delivered {
                    tag,
                    message: Arc::new(message),
                    exchange: ShortStr::EMPTY,
                    routing_key: ShortStr::from_static("billing"),
                    redelivered: false,
                    attempt: Attempt::from_flag(false),
                    undecodable: None,
                });
                Box::pin(ready(Ok(())))
            }
            None => Box::pin(pending()),
        });
        receiver.expect_settle().returning(move |settlements: &[Settle]| {
            for settle in settlements {
                let _ = settled.send(*settle);
            }
        });
        Box::pin(ready(Ok(Box::new(receiver) as _)))
    });
    let service = Service::new("shop", broker(session).await).consume(&BILLING, bill);
    let _running = service.start().await.unwrap();
    for (tag, outcome) in [(1, Outcome::Ack), (2, Outcome::Reject)] {
        assert_eq!(settlements.recv().await, Some(Settle::new(tag, outcome)));
    }
}

#[tokio::test(start_paused = true)]
async fn entrypoints_and_extensions_start_and_stop_with_their_service() {
    let mut entrypoint = MockEntrypoint::new();
    entrypoint.expect_name().return_const("mock".to_owned());
    entrypoint.expect_start().times(1).returning(|scope| {
        assert_eq!(&**scope.service(), "shop");
        Box::pin(ready(Ok(())))
    });
    entrypoint.expect_stop().times(1).returning(|_| Box::pin(ready(Ok(()))));
    entrypoint.expect_kill().never();
    let mut pool = MockExtension::new();
    pool.expect_name().return_const("pool".to_owned());
    pool.expect_setup().times(1).returning(|_| Box::pin(ready(Ok(()))));
    pool.expect_start().times(1).returning(|| Box::pin(ready(Ok(()))));
    pool.expect_stop().times(1).returning(|_| Box::pin(ready(Ok(()))));
    let service = Service::new("shop", broker(session()).await).entrypoint(entrypoint);
    let service = service.extension(Arc::new(pool));
    let running = service.start().await.unwrap();
    let _waiter = EntrypointWaiter::new(&running);
    running.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn header_codecs_exchanges_and_queues_answer_as_they_are_told() {
    let mut codec = MockHeaderCodec::new();
    codec.expect_encode().returning(|_, headers| headers.insert("by", "mock").map(drop));
    codec.expect_decode().returning(|_| Context::new());
    let _ = BrokerOptions::new().header_codec(codec);

    let mut exchange = MockExchange::new();
    exchange.expect_describe().returning(|topology: &mut Topology| {
        topology.add_exchange(ExchangeSpec::new("shop", ExchangeKind::Topic).unwrap());
    });
    let mut queue = MockQueue::<Raw>::new();
    queue.expect_describe().returning(|topology: &mut Topology| {
        topology.add_queue(QueueSpec::new("billing").unwrap());
    });
    let topology = Topology::new().with_exchange(&exchange).with_queue(&queue);
    assert_eq!((topology.exchanges().len(), topology.queues().len()), (1, 1));
    let mut session = MockSession::new();
    session.expect_peer().return_const(Peer::new("mock", "1", [Capability::TopicExchanges]));
    session.expect_ended().returning(|| Box::pin(pending()));
    session
        .expect_apply()
        .withf(|change| matches!(change, Change::DeclareExchange(_) | Change::DeclareQueue(_)))
        .times(2)
        .returning(|_| Box::pin(ready(Ok(Found::default()))));
    broker(session).await.declare(&topology).await.unwrap();
}
