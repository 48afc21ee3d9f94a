//! The broker's end of a connection, step by step.

use std::{num::NonZeroU16, sync::Arc};

use enoki_core::{
    BrokerUrl, Purpose, ShortStr, Transport,
    transport::{Change, ReceiverOptions, SenderOptions, Session},
};
use enoki_transport_amqp091::Amqp091Transport;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use crate::PATIENCE;

/// The broker's end of a connection.
pub(crate) struct Peer {
    socket: TcpStream,
    /// The prefetch of the last receiver.
    pub(crate) asked_for: u16,
}

pub(crate) type Method = (u16, u16);

pub(crate) const CHANNEL_OPEN: Method = (20, 10);
pub(crate) const CHANNEL_CLOSE: Method = (20, 40);
pub(crate) const PURGE: Method = (50, 30);
pub(crate) const QOS: Method = (60, 10);
pub(crate) const CONSUME: Method = (60, 20);
pub(crate) const CANCEL: Method = (60, 30);
pub(crate) const PUBLISH: Method = (60, 40);
pub(crate) const SELECT: Method = (85, 10);

impl Peer {
    /// The next method that comes, and its channel. Contents and heartbeats are passed over.
    pub(crate) async fn hears(&mut self) -> (Method, u16) {
        let (method, channel, _) = self.hears_whole().await;
        (method, channel)
    }

    /// The next method, its channel and its arguments.
    pub(crate) async fn hears_whole(&mut self) -> (Method, u16, Vec<u8>) {
        let hearing = async {
            loop {
                let mut head = [0; 7];
                self.socket.read_exact(&mut head).await.unwrap();
                let [kind, c0, c1, length @ ..] = head;
                let mut payload = vec![0; u32::from_be_bytes(length) as usize + 1];
                self.socket.read_exact(&mut payload).await.unwrap();
                if kind == 1 {
                    let two = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
                    let arguments = payload[4..payload.len() - 1].to_vec();
                    return ((two(0), two(2)), u16::from_be_bytes([c0, c1]), arguments);
                }
            }
        };
        timeout(PATIENCE, hearing).await.unwrap()
    }

    pub(crate) async fn expects(&mut self, method: Method) -> u16 {
        let (heard, channel) = self.hears().await;
        assert_eq!(heard, method, "on channel {channel}");
        channel
    }

    /// The next method has to be this one; its arguments.
    pub(crate) async fn is_told(&mut self, method: Method) -> Vec<u8> {
        let (heard, channel, arguments) = self.hears_whole().await;
        assert_eq!(heard, method, "on channel {channel}: {arguments:?}");
        arguments
    }

    pub(crate) async fn says(&mut self, channel: u16, (class, method): Method, arguments: &[u8]) {
        let mut frame = vec![1];
        frame.extend(channel.to_be_bytes());
        frame.extend((arguments.len() as u32 + 4).to_be_bytes());
        frame.extend(class.to_be_bytes());
        frame.extend(method.to_be_bytes());
        frame.extend(arguments);
        frame.push(0xce);
        self.socket.write_all(&frame).await.unwrap();
    }

    pub(crate) async fn lets_in(&mut self) {
        let mut name = [0; 8];
        self.socket.read_exact(&mut name).await.unwrap();
        let start = b"\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US";
        self.says(0, (10, 10), start).await;
        self.expects((10, 11)).await;
        self.says(0, (10, 30), &[7, 255, 0, 2, 0, 0, 0, 60]).await;
        self.expects((10, 31)).await;
        self.expects((10, 40)).await;
        self.says(0, (10, 41), &[0]).await;
    }

    pub(crate) async fn opens_a_channel(&mut self) -> u16 {
        let channel = self.expects(CHANNEL_OPEN).await;
        self.says(channel, (20, 11), &[0; 4]).await;
        channel
    }

    pub(crate) async fn opens_a_sender(&mut self) -> u16 {
        let channel = self.opens_a_channel().await;
        self.expects(SELECT).await;
        self.says(channel, (85, 11), &[]).await;
        channel
    }

    pub(crate) async fn opens_a_receiver(&mut self) -> u16 {
        let channel = self.opens_a_channel().await;
        // No limit of bytes, so many messages, and for this consumer alone.
        let [0, 0, 0, 0, c0, c1, 0] = self.is_told(QOS).await[..] else { panic!("another qos") };
        self.asked_for = u16::from_be_bytes([c0, c1]);
        self.says(channel, (60, 11), &[]).await;
        self.expects(CONSUME).await;
        self.says(channel, (60, 21), b"\x01t").await;
        channel
    }

    /// A content behind this method.
    async fn says_with_content(
        &mut self,
        channel: u16,
        method: Method,
        arguments: &[u8],
        properties: &[u8],
        body: &[u8],
    ) {
        self.says(channel, method, arguments).await;
        let header = [&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), properties].concat();
        for (kind, payload) in [(2, &header[..]), (3, body)] {
            let mut frame = vec![kind];
            frame.extend(channel.to_be_bytes());
            frame.extend((payload.len() as u32).to_be_bytes());
            frame.extend(payload);
            frame.push(0xce);
            self.socket.write_all(&frame).await.unwrap();
        }
    }

    /// Delivers a message, by the exchange `shop` and the routing key `k`.
    pub(crate) async fn delivers(&mut self, channel: u16, tag: u8, redelivered: bool, body: &[u8]) {
        let mut arguments = b"\x01t\0\0\0\0\0\0\0".to_vec();
        arguments.extend([tag, u8::from(redelivered)]);
        arguments.extend(b"\x04shop\x01k");
        self.says_with_content(channel, (60, 60), &arguments, &[0, 0], body).await;
    }

    /// Gives a message back that found no queue.
    pub(crate) async fn returns(&mut self, channel: u16, message_id: &str) {
        let arguments = b"\x01\x38\x08NO_ROUTE\0\x01q";
        let properties = [&[0, 0x80, message_id.len() as u8][..], message_id.as_bytes()].concat();
        self.says_with_content(channel, (60, 50), arguments, &properties, b"body").await;
    }

    pub(crate) async fn refuses(&mut self, channel: u16, number: u8) {
        self.says(channel, (60, 120), &[0, 0, 0, 0, 0, 0, 0, number, 0]).await;
    }

    /// Closes a channel, or with 0 the connection, for this reason.
    pub(crate) async fn closes(&mut self, channel: u16, code: u16, text: &str) {
        let close = if channel == 0 { (10, 50) } else { CHANNEL_CLOSE };
        let mut arguments = code.to_be_bytes().to_vec();
        arguments.push(text.len() as u8);
        arguments.extend(text.as_bytes());
        arguments.extend([0, 60, 0, 40]);
        self.says(channel, close, &arguments).await;
        // The answer to the end of a connection may end with it.
        if channel != 0 {
            assert_eq!(self.expects((20, 41)).await, channel);
        }
    }

    /// The client closes a channel, and hears that it is closed.
    pub(crate) async fn sees_closed(&mut self, channel: u16) {
        assert_eq!(self.expects(CHANNEL_CLOSE).await, channel);
        self.says(channel, (20, 41), &[]).await;
    }

    pub(crate) async fn purges(&mut self) {
        let channel = self.expects(PURGE).await;
        self.says(channel, (50, 31), &[0; 4]).await;
    }

    pub(crate) async fn confirms(&mut self, channel: u16, number: u8) {
        self.says(channel, (60, 80), &[0, 0, 0, 0, 0, 0, 0, number, 0]).await;
    }
}

pub(crate) async fn connected() -> (Arc<dyn Session>, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp091://u:p@{}", listener.local_addr().unwrap());
    let transport = Amqp091Transport::new(&BrokerUrl::parse(&url).unwrap()).unwrap();
    let accepting = async {
        let mut peer = Peer { socket: listener.accept().await.unwrap().0, asked_for: 0 };
        peer.lets_in().await;
        peer
    };
    let connecting = transport.connect(Purpose::Publish, Instant::now() + PATIENCE);
    let (session, peer) = tokio::join!(connecting, accepting);
    (session.unwrap(), peer)
}

/// Purges a queue, on the channel that the session has for this: what comes before it at the broker was
/// said before it.
pub(crate) async fn purge(session: &dyn Session, peer: &mut Peer, opens: bool) {
    let change = Change::PurgeQueue(ShortStr::from_static("q"));
    let (purged, ()) = tokio::join!(session.apply(&change), async {
        if opens {
            peer.opens_a_channel().await;
        }
        peer.purges().await;
    });
    purged.unwrap();
}

/// A receiver of the queue `q`.
pub(crate) fn consuming(prefetch: u16) -> ReceiverOptions {
    ReceiverOptions::new(ShortStr::from_static("q"), NonZeroU16::new(prefetch).unwrap())
}

pub(crate) fn window(messages: u16) -> SenderOptions {
    SenderOptions::new(NonZeroU16::new(messages).unwrap())
}
