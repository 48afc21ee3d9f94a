//! The broker's end of a connection, step by step.

use std::{num::NonZeroU16, sync::Arc};

use enoki_core::{
    BrokerUrl, Purpose, ShortStr, Transport,
    transport::{ReceiverOptions, SenderOptions, Session, Settings},
};
use enoki_transport_amqp10::Amqp10Transport;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use crate::PATIENCE;

pub(crate) const OPEN: u8 = 0x10;
pub(crate) const BEGIN: u8 = 0x11;
pub(crate) const ATTACH: u8 = 0x12;
pub(crate) const FLOW: u8 = 0x13;
pub(crate) const TRANSFER: u8 = 0x14;
pub(crate) const DISPOSITION: u8 = 0x15;
pub(crate) const DETACH: u8 = 0x16;
pub(crate) const END: u8 = 0x17;
pub(crate) const CLOSE: u8 = 0x18;

/// Outcomes (§3.4).
pub(crate) const ACCEPTED: u8 = 0x24;
pub(crate) const REJECTED: u8 = 0x25;
pub(crate) const RELEASED: u8 = 0x26;
pub(crate) const MODIFIED: u8 = 0x27;

pub(crate) struct Peer(TcpStream);

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) channel: u16,
    pub(crate) code: u8,
    /// Each field as it is encoded.
    pub(crate) fields: Vec<Vec<u8>>,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The field at this place; null where there is none.
    pub(crate) fn field(&self, at: usize) -> &[u8] {
        self.fields.get(at).map_or(&[0x40], Vec::as_slice)
    }

    pub(crate) fn number(&self, at: usize) -> Option<u32> {
        match *self.field(at) {
            [0x43] => Some(0),
            [0x50 | 0x52, number] => Some(number.into()),
            [0x60, a, b] => Some(u16::from_be_bytes([a, b]).into()),
            [0x70, a, b, c, d] => Some(u32::from_be_bytes([a, b, c, d])),
            _ => None,
        }
    }

    pub(crate) fn truth(&self, at: usize) -> bool {
        matches!(self.field(at), [0x41] | [0x56, 1])
    }
}

/// A link that this side's client attached.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) channel: u16,
    pub(crate) handle: Vec<u8>,
    /// What the client attached it with.
    pub(crate) attach: Frame,
}

impl Peer {
    /// The next frame that is no heartbeat, and no question whether this is here.
    pub(crate) async fn hears(&mut self) -> Frame {
        let hearing = async {
            loop {
                let mut head = [0; 8];
                self.0.read_exact(&mut head).await.unwrap();
                let [length @ .., _, _, high, low] = head;
                let mut body = vec![0; u32::from_be_bytes(length) as usize - 8];
                self.0.read_exact(&mut body).await.unwrap();
                if body.is_empty() {
                    continue;
                }
                let frame = read(u16::from_be_bytes([high, low]), &body);
                match (frame.channel, frame.code) {
                    (LAST_CHANNEL, BEGIN) => {
                        let begin = [ushort(LAST_CHANNEL), uint(0), uint(1), uint(1)];
                        self.says(LAST_CHANNEL, BEGIN, &begin).await;
                    }
                    (LAST_CHANNEL, END) => self.says(LAST_CHANNEL, END, &[]).await,
                    _ => return frame,
                }
            }
        };
        timeout(PATIENCE, hearing).await.unwrap()
    }

    pub(crate) async fn expects(&mut self, code: u8) -> Frame {
        let frame = self.hears().await;
        assert_eq!(frame.code, code, "{frame:x?}");
        frame
    }

    pub(crate) async fn says(&mut self, channel: u16, code: u8, fields: &[Vec<u8>]) {
        self.0.write_all(&frame(channel, 0, &described(code, fields))).await.unwrap();
    }

    /// Names the layer that follows, as the client does.
    async fn agrees(&mut self, layer: u8) {
        let mut header = [0; 8];
        self.0.read_exact(&mut header).await.unwrap();
        self.0.write_all(&[b'A', b'M', b'Q', b'P', layer, 1, 0, 0]).await.unwrap();
    }

    async fn lets_in(&mut self, product: &str, version: &str) {
        self.agrees(3).await;
        self.0.write_all(&frame(0, 1, &described(0x40, &[symbol("PLAIN")]))).await.unwrap();
        self.expects(0x41).await;
        self.0.write_all(&frame(0, 1, &described(0x44, &[vec![0x50, 0]]))).await.unwrap();
        self.agrees(0).await;
        self.expects(OPEN).await;
        let properties = [symbol("product"), text(product), symbol("version"), text(version)];
        let mut open = vec![text("scripted")];
        open.extend((0..8).map(|_| null()));
        open.push(map(&properties));
        // The last channel is that of the session by which the client finds out whether it is heard.
        open[3] = ushort(LAST_CHANNEL);
        self.says(0, OPEN, &open).await;
    }

    pub(crate) async fn begins(&mut self) -> u16 {
        let channel = self.expects(BEGIN).await.channel;
        let begin = [ushort(channel), uint(0), uint(1000), uint(1000)];
        self.says(channel, BEGIN, &begin).await;
        channel
    }

    /// Attaches a link, whose messages may be so large.
    pub(crate) async fn attaches(&mut self, max_message: Option<u64>) -> Link {
        let attach = self.expects(ATTACH).await;
        let is_receiver = attach.truth(2);
        let mut answer = vec![attach.fields[0].clone(), attach.fields[1].clone()];
        answer.push(truth(!is_receiver));
        answer.extend([vec![0x50, if is_receiver { 0 } else { 2 }], vec![0x50, 0]]);
        answer.extend([attach.field(5).to_vec(), attach.field(6).to_vec(), null(), null()]);
        answer.push(if is_receiver { uint(0) } else { null() });
        answer.extend(max_message.map(ulong));
        self.says(attach.channel, ATTACH, &answer).await;
        Link { channel: attach.channel, handle: attach.fields[1].clone(), attach }
    }

    /// A sender's link on a session of its own, with room for so many messages.
    pub(crate) async fn opens_a_sender(&mut self, credit: u32) -> Link {
        self.begins().await;
        let link = self.attaches(None).await;
        if credit > 0 {
            self.grants(&link, 0, credit).await;
        }
        link
    }

    /// Room for so many more than these.
    pub(crate) async fn grants(&mut self, link: &Link, sent: u32, credit: u32) {
        let flow = [
            uint(sent),
            uint(1000),
            uint(0),
            uint(1000),
            link.handle.clone(),
            uint(sent),
            uint(credit),
        ];
        self.says(link.channel, FLOW, &flow).await;
    }

    /// A receiver's link on a session of its own, and how many deliveries it asks for.
    pub(crate) async fn opens_a_receiver(&mut self) -> (Link, u32) {
        self.begins().await;
        let link = self.attaches(None).await;
        let flow = self.expects(FLOW).await;
        (link, flow.number(6).unwrap())
    }

    pub(crate) async fn delivers(&mut self, link: &Link, number: u32, message: &[u8]) {
        self.delivers_parts(link, number, &[message]).await;
    }

    /// A message in several frames.
    pub(crate) async fn delivers_parts(&mut self, link: &Link, number: u32, parts: &[&[u8]]) {
        for (at, part) in parts.iter().enumerate() {
            let transfer = [
                link.handle.clone(),
                uint(number),
                binary(&number.to_be_bytes()),
                uint(0),
                truth(false),
                truth(at + 1 < parts.len()),
            ];
            let body = [&described(TRANSFER, &transfer)[..], part].concat();
            self.0.write_all(&frame(link.channel, 0, &body)).await.unwrap();
        }
    }

    /// Gives up what it could send, as it is asked to.
    pub(crate) async fn drained(&mut self, link: &Link, count: u32) {
        let flow = [
            uint(0),
            uint(1000),
            uint(count),
            uint(1000),
            link.handle.clone(),
            uint(count),
            uint(0),
            uint(0),
            truth(true),
        ];
        self.says(link.channel, FLOW, &flow).await;
    }

    /// The outcome of these messages of a sender.
    pub(crate) async fn answers(&mut self, link: &Link, first: u32, last: u32, state: Vec<u8>) {
        let disposition = [truth(true), uint(first), uint(last), truth(true), state];
        self.says(link.channel, DISPOSITION, &disposition).await;
    }

    /// Ends a link, for this reason.
    pub(crate) async fn detaches(&mut self, link: &Link, error: Option<Vec<u8>>) {
        let detach = [link.handle.clone(), truth(true), error.unwrap_or_else(null)];
        self.says(link.channel, DETACH, &detach).await;
    }

    /// The client closes a link, and hears that it is closed.
    pub(crate) async fn sees_closed(&mut self, link: &Link) {
        let detach = self.expects(DETACH).await;
        assert_eq!((detach.channel, &detach.fields[0]), (link.channel, &link.handle));
        assert!(detach.truth(1), "detached, not closed");
        self.detaches(link, None).await;
    }

    /// The client ends a session, and hears that it is over.
    pub(crate) async fn sees_ended(&mut self, channel: u16) {
        loop {
            let frame = self.hears().await;
            match frame.code {
                // The link goes with it, or before it.
                DETACH => {
                    let detach = [frame.fields[0].clone(), truth(true)];
                    self.says(channel, DETACH, &detach).await;
                }
                END => {
                    assert_eq!(frame.channel, channel);
                    return self.says(channel, END, &[]).await;
                }
                _ => panic!("{frame:x?}"),
            }
        }
    }

    /// The connection is gone.
    pub(crate) async fn closes(&mut self) {
        self.says(0, CLOSE, &[]).await;
    }

    /// The next disposition: its first and last delivery, its outcome, and whether that is final.
    pub(crate) async fn is_told(&mut self) -> (u32, u32, Vec<u8>) {
        let told = self.expects(DISPOSITION).await;
        assert!(told.truth(0) && told.truth(3), "{told:x?}");
        let first = told.number(1).unwrap();
        (first, told.number(2).unwrap_or(first), told.field(4).to_vec())
    }
}

/// A session with a broker of this name, and that broker's end.
pub(crate) async fn connected_to(product: &str, version: &str) -> (Arc<dyn Session>, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp10://u:p@{}", listener.local_addr().unwrap());
    let mut settings = Settings::default();
    settings.limits.max_body = MAX_BODY;
    let url = BrokerUrl::parse(&url).unwrap();
    let transport = Amqp10Transport::with_settings(&url, &settings).unwrap();
    let accepting = async {
        let mut peer = Peer(listener.accept().await.unwrap().0);
        peer.lets_in(product, version).await;
        peer
    };
    let connecting = transport.connect(Purpose::Publish, Instant::now() + PATIENCE);
    let (session, peer) = tokio::join!(connecting, accepting);
    (session.unwrap(), peer)
}

pub(crate) async fn connected() -> (Arc<dyn Session>, Peer) {
    connected_to("RabbitMQ", "4.0.5").await
}

const LAST_CHANNEL: u16 = 100;

/// What consumers take here at most.
pub(crate) const MAX_BODY: usize = 1000;

/// How much a message may have in all: a body, and 256 KiB besides.
pub(crate) const MAX_MESSAGE: usize = MAX_BODY + 256 * 1024;

/// The next descriptor of a described value: what kind of outcome it is.
pub(crate) fn kind(state: &[u8]) -> u8 {
    assert_eq!(&state[..2], [0x00, 0x53]);
    state[2]
}

/// A message whose body is these bytes.
pub(crate) fn data(bytes: &[u8]) -> Vec<u8> {
    [&[0x00, 0x53, 0x75][..], &binary(bytes)].concat()
}

/// An error of this condition.
pub(crate) fn error(condition: &str, description: &str) -> Vec<u8> {
    described(0x1d, &[symbol(condition), text(description)])
}

/// Takes a performative apart.
fn read(channel: u16, body: &[u8]) -> Frame {
    let (begin, end) = match body[3] {
        0xc0 => (6, 5 + usize::from(body[4])),
        0xd0 => (12, 8 + u32::from_be_bytes([body[4], body[5], body[6], body[7]]) as usize),
        _ => (4, 4),
    };
    let mut list = &body[begin..end];
    let mut fields = Vec::new();
    while !list.is_empty() {
        let (field, rest) = list.split_at(length(list));
        fields.push(field.to_vec());
        list = rest;
    }
    Frame { channel, code: body[2], fields, payload: body[end..].to_vec() }
}

/// How many bytes the next value has.
fn length(bytes: &[u8]) -> usize {
    match bytes[0] {
        0x00 => {
            let description = 1 + length(&bytes[1..]);
            description + length(&bytes[description..])
        }
        0x40..=0x4f => 1,
        0x50..=0x5f => 2,
        0x60..=0x6f => 3,
        0x70..=0x7f => 5,
        0x80..=0x8f => 9,
        0x90..=0x9f => 17,
        code if code & 0x10 == 0 => 2 + usize::from(bytes[1]),
        _ => 5 + u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize,
    }
}

fn frame(channel: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = channel.to_be_bytes();
    [&((body.len() + 8) as u32).to_be_bytes()[..], &[2, kind, high, low], body].concat()
}

pub(crate) fn described(code: u8, fields: &[Vec<u8>]) -> Vec<u8> {
    [&[0x00, 0x53, code][..], &compound(0xd0, fields)].concat()
}

pub(crate) fn map(items: &[Vec<u8>]) -> Vec<u8> {
    compound(0xd1, items)
}

fn compound(code: u8, items: &[Vec<u8>]) -> Vec<u8> {
    let content = items.concat();
    let size = (content.len() + 4) as u32;
    [&[code][..], &size.to_be_bytes(), &(items.len() as u32).to_be_bytes(), &content].concat()
}

pub(crate) fn null() -> Vec<u8> {
    vec![0x40]
}

pub(crate) fn truth(truth: bool) -> Vec<u8> {
    vec![if truth { 0x41 } else { 0x42 }]
}

pub(crate) fn ushort(number: u16) -> Vec<u8> {
    [&[0x60][..], &number.to_be_bytes()].concat()
}

pub(crate) fn uint(number: u32) -> Vec<u8> {
    [&[0x70][..], &number.to_be_bytes()].concat()
}

fn ulong(number: u64) -> Vec<u8> {
    [&[0x80][..], &number.to_be_bytes()].concat()
}

pub(crate) fn binary(bytes: &[u8]) -> Vec<u8> {
    variable(0xb0, bytes)
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    variable(0xb1, text.as_bytes())
}

pub(crate) fn symbol(text: &str) -> Vec<u8> {
    variable(0xb3, text.as_bytes())
}

fn variable(code: u8, bytes: &[u8]) -> Vec<u8> {
    [&[code][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// A receiver of the queue `q`.
pub(crate) fn consuming(prefetch: u16) -> ReceiverOptions {
    ReceiverOptions::new(ShortStr::from_static("q"), NonZeroU16::new(prefetch).unwrap())
}

pub(crate) fn window(messages: u16) -> SenderOptions {
    SenderOptions::new(NonZeroU16::new(messages).unwrap())
}
