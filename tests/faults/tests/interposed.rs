//! What stands between the toolkit and a transport does what it says, to the broker in memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::VecDeque, num::NonZeroU16, sync::Arc, time::Duration};

use enoki::{
    ErrorKind, Outcome,
    memory::MemoryTransport,
    message::{Message, ShortStr},
    topology::QueueSpec,
    transport::{
        Change, Delivered, End, Outgoing, PublishOutcome, Purpose, Receiver, ReceiverOptions,
        Sender, SenderOptions, Session, Settle, Transport,
    },
};
use enoki_faults::interposed::{Between, Reach};
use tokio::time::{Instant, timeout};

const QUEUE: ShortStr = ShortStr::from_static("q");

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

async fn open() -> (Between, Arc<dyn Session>) {
    let between = Between::new(Arc::new(MemoryTransport::isolated()));
    let session = between.connect(Purpose::Publish, soon()).await.unwrap();
    session.apply(&Change::DeclareQueue(QueueSpec::new("q").unwrap())).await.unwrap();
    (between, session)
}

async fn publish(sender: &mut dyn Sender, ids: std::ops::Range<u64>) {
    let outgoing = |id| Outgoing {
        id,
        exchange: ShortStr::EMPTY,
        routing_key: QUEUE,
        mandatory: true,
        message: Arc::new(Message::new("x")),
    };
    let mut messages: VecDeque<_> = ids.map(outgoing).collect();
    sender.submit(&mut messages).await.unwrap();
    assert!(messages.is_empty());
}

async fn outcomes(sender: &mut dyn Sender) -> Vec<u64> {
    let mut outcomes = Vec::new();
    sender.outcomes(&mut outcomes).await.unwrap();
    assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, PublishOutcome::Confirmed)));
    outcomes.into_iter().map(|(id, _)| id).collect()
}

async fn receive(receiver: &mut dyn Receiver) -> Result<Vec<Delivered>, End> {
    let mut deliveries = Vec::new();
    receiver.receive(&mut deliveries, 100).await.map(|()| deliveries)
}

#[tokio::test(start_paused = true)]
async fn outcomes_vanish_and_the_others_come() {
    let (between, session) = open().await;
    let mut sender = session.sender(window(10)).await.unwrap();
    between.drop_outcomes(2);
    publish(&mut *sender, 0..5).await;
    assert_eq!(outcomes(&mut *sender).await, [2, 3, 4]);
    between.dropped().await;
}

#[tokio::test(start_paused = true)]
async fn outcomes_that_are_held_come_when_they_are_let_through() {
    let (between, session) = open().await;
    let mut sender = session.sender(window(10)).await.unwrap();
    between.hold_outcomes(true);
    publish(&mut *sender, 0..2).await;
    for _ in 0..3 {
        assert!(timeout(Duration::from_secs(60), outcomes(&mut *sender)).await.is_err());
    }
    between.hold_outcomes(false);
    assert_eq!(outcomes(&mut *sender).await, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_delay_delays_also_those_who_ask_again_and_again() {
    let (between, session) = open().await;
    let mut sender = session.sender(window(10)).await.unwrap();
    between.delay(Duration::from_secs(1));
    let began = Instant::now();
    publish(&mut *sender, 0..1).await;
    while timeout(Duration::from_millis(300), outcomes(&mut *sender)).await.is_err() {}
    assert_eq!(began.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_vanishes_leaves_the_message_with_the_broker() {
    let (between, session) = open().await;
    let mut sender = session.sender(window(10)).await.unwrap();
    publish(&mut *sender, 0..2).await;
    outcomes(&mut *sender).await;
    between.drop_settlements(1);
    let mut receiver = session.receiver(of(10)).await.unwrap();
    for delivered in receive(&mut *receiver).await.unwrap() {
        receiver.settle(&[Settle::new(delivered.tag, Outcome::Ack)]);
    }
    receiver.close().await.unwrap();
    let mut receiver = session.receiver(of(10)).await.unwrap();
    let again = receive(&mut *receiver).await.unwrap();
    assert_eq!(again.iter().map(|it| it.redelivered).collect::<Vec<_>>(), [true]);
}

#[tokio::test(start_paused = true)]
async fn severing_ends_everything_of_that_purpose() {
    let (between, publishing) = open().await;
    let consuming = between.connect(Purpose::Consume, soon()).await.unwrap();
    let mut sender = publishing.sender(window(10)).await.unwrap();
    let mut receiver = consuming.receiver(of(10)).await.unwrap();
    between.sever(&[Purpose::Publish]).await;
    assert_eq!(publishing.ended().await.kind(), ErrorKind::Connection);
    assert!(sender.outcomes(&mut Vec::new()).await.is_err());
    assert!(publishing.sender(window(10)).await.is_err());
    assert!(timeout(Duration::from_secs(60), consuming.ended()).await.is_err());
    between.sever(&[Purpose::Consume]).await;
    assert!(matches!(receive(&mut *receiver).await, Err(End::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_cancelled_leaves_the_session() {
    let (between, session) = open().await;
    let mut receiver = session.receiver(of(10)).await.unwrap();
    between.cancel_receivers();
    assert!(matches!(receive(&mut *receiver).await, Err(End::Cancelled(_))));
    let mut receiver = session.receiver(of(10)).await.unwrap();
    between.end_receivers();
    assert!(matches!(receive(&mut *receiver).await, Err(End::Lost(_))));
    let mut sender = session.sender(window(10)).await.unwrap();
    between.end_senders();
    assert!(sender.outcomes(&mut Vec::new()).await.is_err());
    let mut sender = session.sender(window(10)).await.unwrap();
    publish(&mut *sender, 0..1).await;
    assert_eq!(outcomes(&mut *sender).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn who_connects_is_refused_or_waits_as_told() {
    let (between, _session) = open().await;
    between.reach(Reach::Refused);
    let began = Instant::now();
    assert!(between.connect(Purpose::Publish, soon()).await.is_err());
    assert_eq!(began.elapsed(), Duration::ZERO);
    between.reach(Reach::Hanging);
    assert!(between.connect(Purpose::Publish, soon()).await.is_err());
    assert_eq!(began.elapsed().as_secs(), 5);
    between.heal();
    assert!(between.connect(Purpose::Publish, soon()).await.is_ok());
}

fn window(messages: u16) -> SenderOptions {
    SenderOptions::new(NonZeroU16::new(messages).unwrap())
}

fn of(prefetch: u16) -> ReceiverOptions {
    ReceiverOptions::new(QUEUE, NonZeroU16::new(prefetch).unwrap())
}
