//! A broker that says what it is told to, for what no real one says on request: what this side writes, and
//! in which order.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{collections::VecDeque, num::NonZeroU16, sync::Arc, time::Duration};

use bytes::Bytes;
use enoki_core::{
    BrokerUrl, Message, Properties, Purpose, ShortStr, Transport,
    transport::{
        Change, Outgoing, PublishOutcome, ReceiverOptions, Sender, SenderOptions, Session,
    },
};
use enoki_transport_amqp091::Amqp091Transport;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

/// The broker's end of a connection.
struct Peer(TcpStream);

type Method = (u16, u16);

const CHANNEL_OPEN: Method = (20, 10);
const CHANNEL_CLOSE: Method = (20, 40);
const PURGE: Method = (50, 30);
const QOS: Method = (60, 10);
const CONSUME: Method = (60, 20);
const CANCEL: Method = (60, 30);
const PUBLISH: Method = (60, 40);
const SELECT: Method = (85, 10);

impl Peer {
    /// The next method that comes, and its channel. Contents and heartbeats are passed over.
    async fn hears(&mut self) -> (Method, u16) {
        let hearing = async {
            loop {
                let mut head = [0; 7];
                self.0.read_exact(&mut head).await.unwrap();
                let [kind, c0, c1, length @ ..] = head;
                let mut payload = vec![0; u32::from_be_bytes(length) as usize + 1];
                self.0.read_exact(&mut payload).await.unwrap();
                if kind == 1 {
                    let two = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
                    return ((two(0), two(2)), u16::from_be_bytes([c0, c1]));
                }
            }
        };
        timeout(PATIENCE, hearing).await.unwrap()
    }

    async fn expects(&mut self, method: Method) -> u16 {
        let (heard, channel) = self.hears().await;
        assert_eq!(heard, method, "on channel {channel}");
        channel
    }

    async fn says(&mut self, channel: u16, (class, method): Method, arguments: &[u8]) {
        let mut frame = vec![1];
        frame.extend(channel.to_be_bytes());
        frame.extend((arguments.len() as u32 + 4).to_be_bytes());
        frame.extend(class.to_be_bytes());
        frame.extend(method.to_be_bytes());
        frame.extend(arguments);
        frame.push(0xce);
        self.0.write_all(&frame).await.unwrap();
    }

    async fn lets_in(&mut self) {
        let mut name = [0; 8];
        self.0.read_exact(&mut name).await.unwrap();
        let start = b"\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US";
        self.says(0, (10, 10), start).await;
        self.expects((10, 11)).await;
        self.says(0, (10, 30), &[7, 255, 0, 2, 0, 0, 0, 60]).await;
        self.expects((10, 31)).await;
        self.expects((10, 40)).await;
        self.says(0, (10, 41), &[0]).await;
    }

    async fn opens_a_channel(&mut self) -> u16 {
        let channel = self.expects(CHANNEL_OPEN).await;
        self.says(channel, (20, 11), &[0; 4]).await;
        channel
    }

    async fn opens_a_sender(&mut self) -> u16 {
        let channel = self.opens_a_channel().await;
        self.expects(SELECT).await;
        self.says(channel, (85, 11), &[]).await;
        channel
    }

    async fn opens_a_receiver(&mut self) -> u16 {
        let channel = self.opens_a_channel().await;
        self.expects(QOS).await;
        self.says(channel, (60, 11), &[]).await;
        self.expects(CONSUME).await;
        self.says(channel, (60, 21), b"\x01t").await;
        channel
    }

    async fn purges(&mut self) {
        let channel = self.expects(PURGE).await;
        self.says(channel, (50, 31), &[0; 4]).await;
    }

    async fn confirms(&mut self, channel: u16, number: u8) {
        self.says(channel, (60, 80), &[0, 0, 0, 0, 0, 0, 0, number, 0]).await;
    }
}

/// How long to wait for what has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

async fn connected() -> (Arc<dyn Session>, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp091://u:p@{}", listener.local_addr().unwrap());
    let transport = Amqp091Transport::new(&BrokerUrl::parse(&url).unwrap()).unwrap();
    let accepting = async {
        let mut peer = Peer(listener.accept().await.unwrap().0);
        peer.lets_in().await;
        peer
    };
    let connecting = transport.connect(Purpose::Publish, Instant::now() + PATIENCE);
    let (session, peer) = tokio::join!(connecting, accepting);
    (session.unwrap(), peer)
}

/// Purges a queue, on the channel that the session has for this: what comes before it at the broker was
/// said before it.
async fn purge(session: &dyn Session, peer: &mut Peer, opens: bool) {
    let change = Change::PurgeQueue(ShortStr::from_static("q"));
    let (purged, ()) = tokio::join!(session.apply(&change), async {
        if opens {
            peer.opens_a_channel().await;
        }
        peer.purges().await;
    });
    purged.unwrap();
}

fn outgoing(id: u64, message_id: &'static str) -> Outgoing {
    let message_id = Some(ShortStr::from_static(message_id));
    Outgoing {
        id,
        exchange: ShortStr::EMPTY,
        routing_key: ShortStr::from_static("q"),
        mandatory: true,
        message: Arc::new(Message {
            body: Bytes::from_static(b"body"),
            properties: Properties { message_id, ..Properties::default() },
            ..Message::default()
        }),
    }
}

/// The ids of those that were confirmed.
async fn confirmed(sender: &mut dyn Sender) -> Vec<u64> {
    let mut outcomes = Vec::new();
    timeout(PATIENCE, sender.outcomes(&mut outcomes)).await.unwrap().unwrap();
    let is_confirmed = |outcome: &_| matches!(outcome, PublishOutcome::Confirmed);
    assert!(outcomes.iter().all(|(_, outcome)| is_confirmed(outcome)), "{outcomes:?}");
    outcomes.into_iter().map(|(id, _)| id).collect()
}

/// A cancel would make room for the next consumer before the deliveries of this one are back.
#[tokio::test]
async fn a_dropped_receiver_closes_its_channel_and_cancels_nothing() {
    let (session, mut peer) = connected().await;
    let queue = ShortStr::from_static("q");
    let (receiver, channel) =
        tokio::join!(session.receiver(of(&queue, 5)), peer.opens_a_receiver());
    drop(receiver.unwrap());
    assert_eq!(peer.expects(CHANNEL_CLOSE).await, channel);
    // The queue goes meanwhile, and the broker says so.
    peer.says(channel, CANCEL, b"\x01t\x01").await;
    peer.says(channel, (20, 41), &[]).await;
    purge(&*session, &mut peer, true).await;
}

/// RabbitMQ 3.10 and 4.0 answer so when a replicated queue goes at this moment.
#[tokio::test]
async fn a_cancel_that_is_answered_twice_costs_nothing() {
    let (session, mut peer) = connected().await;
    let queue = ShortStr::from_static("q");
    let (receiver, channel) =
        tokio::join!(session.receiver(of(&queue, 5)), peer.opens_a_receiver());
    let mut receiver = receiver.unwrap();
    let (stopped, ()) = tokio::join!(receiver.stop(), async {
        peer.expects(CANCEL).await;
        peer.says(channel, (60, 31), b"\x01t").await;
        peer.says(channel, (60, 31), b"\x01t").await;
    });
    stopped.unwrap();
    purge(&*session, &mut peer, true).await;
}

/// Were the channel closed from this side while the broker closes it for one of the messages, lapin would
/// give up the connection.
#[tokio::test]
async fn a_dropped_sender_keeps_its_channel_until_everything_is_answered() {
    let (session, mut peer) = connected().await;
    let (sender, channel) = tokio::join!(session.sender(window(10)), peer.opens_a_sender());
    let mut sender = sender.unwrap();
    let mut messages = VecDeque::from([outgoing(1, "a"), outgoing(2, "b")]);
    sender.submit(&mut messages).await.unwrap();
    for _ in 0..2 {
        assert_eq!(peer.expects(PUBLISH).await, channel);
    }
    drop(sender);
    purge(&*session, &mut peer, true).await;
    peer.confirms(channel, 1).await;
    purge(&*session, &mut peer, false).await;
    peer.confirms(channel, 2).await;
    assert_eq!(peer.expects(CHANNEL_CLOSE).await, channel);
}

/// The broker names a message that it returns by its id, and nothing else.
#[tokio::test]
async fn of_two_mandatory_messages_of_one_id_the_second_waits_for_the_outcome_of_the_first() {
    let (session, mut peer) = connected().await;
    let (sender, channel) = tokio::join!(session.sender(window(10)), peer.opens_a_sender());
    let mut sender = sender.unwrap();
    let mut messages =
        VecDeque::from([outgoing(1, "a"), outgoing(2, "b"), outgoing(3, "a"), outgoing(4, "c")]);
    sender.submit(&mut messages).await.unwrap();
    // What comes after it waits, too: the order stays.
    assert_eq!(messages.iter().map(|outgoing| outgoing.id).collect::<Vec<_>>(), [3, 4]);
    peer.confirms(channel, 1).await;
    assert_eq!(confirmed(&mut *sender).await, [1]);
    sender.submit(&mut messages).await.unwrap();
    assert!(messages.is_empty());
    for number in 2..=4 {
        peer.confirms(channel, number).await;
        assert_eq!(confirmed(&mut *sender).await, [u64::from(number)]);
    }
    // An optional one is never returned.
    let optional = Outgoing { mandatory: false, ..outgoing(6, "a") };
    let mut messages = VecDeque::from([outgoing(5, "a"), optional]);
    sender.submit(&mut messages).await.unwrap();
    assert!(messages.is_empty());
}

fn window(messages: u16) -> SenderOptions {
    SenderOptions::new(NonZeroU16::new(messages).unwrap())
}

fn of(queue: &ShortStr, prefetch: u16) -> ReceiverOptions {
    ReceiverOptions::new(queue.clone(), NonZeroU16::new(prefetch).unwrap())
}
