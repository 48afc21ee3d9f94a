//! A broker of its own for each test, and short words for what the tests do with it.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

pub(crate) use enoki_core::transport::End;
use enoki_core::{
    BindingSpec, Destination, Error, ErrorKind, ExchangeKind, ExchangeSpec, Message, Outcome,
    Purpose, QueueSpec, Result, ShortStr, Transport,
    transport::{
        Change, Delivered, Found, Outgoing, PublishOutcome, Receiver, ReceiverOptions, Sender,
        SenderOptions, Session, Settle,
    },
};
use enoki_transport_memory::{MemoryTransport, Version};
use tokio::time::{Instant, timeout};

pub(crate) struct Bench {
    pub(crate) transport: MemoryTransport,
    pub(crate) session: Arc<dyn Session>,
    sender: Box<dyn Sender>,
    next_id: u64,
    queues: HashMap<String, QueueSpec>,
}

impl Bench {
    /// A broker that counts attempts on every queue.
    pub(crate) async fn new() -> Self {
        Self::like(Version::Reference).await
    }

    pub(crate) async fn like(version: Version) -> Self {
        Self::on(MemoryTransport::isolated_as(version)).await
    }

    pub(crate) async fn on(transport: MemoryTransport) -> Self {
        let session = connect(&transport).await;
        let sender = session.sender(window(256)).await.unwrap();
        Self { transport, session, sender, next_id: 0, queues: HashMap::new() }
    }

    pub(crate) async fn with_messages(name: &str, bodies: &[&str]) -> Self {
        let mut bench = Self::new().await;
        bench.queue(name).await;
        for body in bodies {
            bench.send(name, body).await;
        }
        bench
    }

    pub(crate) async fn reconnect(&mut self) {
        self.session = connect(&self.transport).await;
        self.sender = self.session.sender(window(256)).await.unwrap();
    }

    pub(crate) async fn queue(&mut self, name: &str) {
        self.declare(name, |_| {}).await;
    }

    pub(crate) async fn declare(&mut self, name: &str, set: impl FnOnce(&mut QueueSpec)) {
        let spec = queue(name, set);
        self.apply(Change::DeclareQueue(spec.clone())).await.unwrap();
        self.queues.insert(name.to_owned(), spec);
    }

    pub(crate) async fn exchange(&self, name: &str, kind: ExchangeKind) -> ExchangeSpec {
        let spec = ExchangeSpec::new(name, kind).unwrap();
        self.apply(Change::DeclareExchange(spec.clone())).await.unwrap();
        spec
    }

    pub(crate) async fn bind(&self, source: &ExchangeSpec, to: Destination, key: &str) {
        let binding = BindingSpec::new(source, to, key).unwrap();
        self.apply(Change::Bind(binding)).await.unwrap();
    }

    pub(crate) async fn apply(&self, change: Change) -> Result<Found> {
        self.session.apply(&change).await
    }

    /// How many messages are ready in a queue that was declared here; `None` once it is gone.
    pub(crate) async fn depth(&self, name: &str) -> Option<u64> {
        let spec = self.queues.get(name).unwrap().clone();
        match self.apply(Change::VerifyQueue(spec)).await {
            Ok(found) => Some(found.messages),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                None
            }
        }
    }

    pub(crate) async fn consume(&self, queue: &str, prefetch: u16) -> Box<dyn Receiver> {
        self.session.receiver(of(&short(queue), prefetch)).await.unwrap()
    }

    /// Publishes to a queue by way of the default exchange; it has to be confirmed.
    pub(crate) async fn send(&mut self, queue: &str, body: &str) {
        self.send_message(queue, Message::new(body.to_owned())).await;
    }

    pub(crate) async fn send_message(&mut self, queue: &str, message: Message) {
        let outcome = self.publish("", queue, message).await;
        assert!(matches!(outcome, PublishOutcome::Confirmed), "{outcome:?}");
    }

    pub(crate) async fn publish(
        &mut self,
        exchange: &str,
        key: &str,
        message: Message,
    ) -> PublishOutcome {
        self.next_id += 1;
        let mut outgoing = VecDeque::from([Outgoing {
            id: self.next_id,
            exchange: short(exchange),
            routing_key: short(key),
            mandatory: true,
            message: Arc::new(message),
        }]);
        self.sender.submit(&mut outgoing).await.unwrap();
        let mut outcomes = Vec::new();
        self.sender.outcomes(&mut outcomes).await.unwrap();
        let (id, outcome) = outcomes.pop().unwrap();
        assert_eq!((id, outcomes.len()), (self.next_id, 0));
        outcome
    }
}

pub(crate) async fn connect(transport: &MemoryTransport) -> Arc<dyn Session> {
    transport.connect(Purpose::Consume, Instant::now() + Duration::from_secs(1)).await.unwrap()
}

pub(crate) fn short(text: &str) -> ShortStr {
    ShortStr::new(text).unwrap()
}

pub(crate) fn queue(name: &str, set: impl FnOnce(&mut QueueSpec)) -> QueueSpec {
    let mut spec = QueueSpec::new(name).unwrap();
    set(&mut spec);
    spec
}

pub(crate) fn to_queue(name: &str) -> Destination {
    Destination::Queue(short(name))
}

pub(crate) fn to_exchange(name: &str) -> Destination {
    Destination::Exchange(short(name))
}

pub(crate) fn expiring(body: &str, after: Duration) -> Message {
    let mut message = Message::new(body.to_owned());
    message.properties.expiration = Some(after);
    message
}

pub(crate) fn body(delivered: &Delivered) -> String {
    String::from_utf8(delivered.message.body.to_vec()).unwrap()
}

/// The next delivery, or a failure when there is none within a minute of the test's time.
pub(crate) async fn next(receiver: &mut Box<dyn Receiver>) -> Delivered {
    let mut into = Vec::new();
    timeout(MINUTE, receiver.receive(&mut into, 1)).await.expect("no delivery").unwrap();
    assert_eq!(into.len(), 1);
    into.pop().unwrap()
}

/// The bodies of everything there is now.
pub(crate) async fn all(receiver: &mut Box<dyn Receiver>) -> Vec<String> {
    let mut into = Vec::new();
    while timeout(Duration::ZERO, receiver.receive(&mut into, 100)).await.is_ok() {}
    into.iter().map(body).collect()
}

pub(crate) async fn end(receiver: &mut Box<dyn Receiver>) -> End {
    let mut into = Vec::new();
    timeout(MINUTE, receiver.receive(&mut into, 1)).await.expect("no end").unwrap_err()
}

pub(crate) fn settle(receiver: &mut Box<dyn Receiver>, delivered: &Delivered, outcome: Outcome) {
    receiver.settle(&[Settle::new(delivered.tag, outcome)]);
}

pub(crate) async fn ended(session: &Arc<dyn Session>) -> Error {
    timeout(MINUTE, session.ended()).await.expect("no end")
}

/// A sender with this window.
pub(crate) fn window(messages: u16) -> SenderOptions {
    SenderOptions::new(NonZeroU16::new(messages).unwrap())
}

/// A receiver of this queue with this prefetch.
pub(crate) fn of(queue: &ShortStr, prefetch: u16) -> ReceiverOptions {
    ReceiverOptions::new(queue.clone(), NonZeroU16::new(prefetch).unwrap())
}

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
