//! AMQP 1.0 byte by byte, since no client library sends the frames that are needed here.

use enoki_core::BrokerUrl;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Checked, Failure};

pub(crate) const AMQP: u8 = 0;
pub(crate) const SASL: u8 = 1;

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) channel: u16,
    pub(crate) code: u8,
    /// Each field as it is encoded.
    pub(crate) fields: Vec<Vec<u8>>,
    pub(crate) payload: Vec<u8>,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    /// The next frame that is not a heartbeat; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 8];
            self.0.read_exact(&mut head).await.ok()?;
            let [length @ .., _, _, high, low] = head;
            let mut body = vec![0; (u32::from_be_bytes(length) as usize).checked_sub(8)?];
            self.0.read_exact(&mut body).await.ok()?;
            if !body.is_empty() {
                return Some(read(u16::from_be_bytes([high, low]), &body));
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Checked {
        Ok(self.0.write_all(bytes).await?)
    }

    /// Both sides send the protocol header of the next layer (§2.2).
    pub(crate) async fn agree(&mut self, layer: u8) -> Checked {
        self.send(&[b'A', b'M', b'Q', b'P', layer, 1, 0, 0]).await?;
        let mut answer = [0; 8];
        self.0.read_exact(&mut answer).await?;
        Ok(())
    }

    /// Reads the next frame, and fails if it is not this performative.
    pub(crate) async fn expect(&mut self, code: u8) -> Result<Frame, Failure> {
        let frame = self.next().await.ok_or("the connection ended")?;
        if frame.code == code {
            Ok(frame)
        } else {
            Err(format!("{code:#x}, not {frame:x?}").into())
        }
    }
}

/// Takes a performative apart that a well-behaved peer wrote.
fn read(channel: u16, body: &[u8]) -> Frame {
    let (begin, end) = match body[3] {
        0xc0 => (6, 5 + body[4] as usize),
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
        code if code & 0x10 == 0 => 2 + bytes[1] as usize,
        _ => 5 + u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize,
    }
}

pub(crate) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    frame_on(0, kind, body)
}

pub(crate) fn frame_on(channel: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = channel.to_be_bytes();
    [&((body.len() + 8) as u32).to_be_bytes()[..], &[2, kind, high, low], body].concat()
}

pub(crate) fn ushort(number: u16) -> Vec<u8> {
    [&[0x60][..], &number.to_be_bytes()].concat()
}

/// A performative, or another described list.
pub(crate) fn described(code: u8, fields: &[Vec<u8>]) -> Vec<u8> {
    [&[0x00, 0x53, code][..], &list(fields)].concat()
}

pub(crate) fn list(items: &[Vec<u8>]) -> Vec<u8> {
    compound(0xd0, items.len() as u32, &items.concat())
}

pub(crate) fn map(items: &[Vec<u8>]) -> Vec<u8> {
    compound(0xd1, items.len() as u32, &items.concat())
}

/// An array: the code that its elements share comes with the first.
pub(crate) fn array(count: u32, elements: &[u8]) -> Vec<u8> {
    compound(0xf0, count, elements)
}

fn compound(code: u8, count: u32, items: &[u8]) -> Vec<u8> {
    let size = (items.len() + 4) as u32;
    [&[code][..], &size.to_be_bytes(), &count.to_be_bytes(), items].concat()
}

pub(crate) fn null() -> Vec<u8> {
    vec![0x40]
}

pub(crate) fn truth(truth: bool) -> Vec<u8> {
    vec![if truth { 0x41 } else { 0x42 }]
}

pub(crate) fn uint(number: u32) -> Vec<u8> {
    [&[0x70][..], &number.to_be_bytes()].concat()
}

pub(crate) fn binary(bytes: &[u8]) -> Vec<u8> {
    variable(0xb0, bytes)
}

pub(crate) fn string(text: &[u8]) -> Vec<u8> {
    variable(0xb1, text)
}

pub(crate) fn symbol(text: &str) -> Vec<u8> {
    variable(0xb3, text.as_bytes())
}

fn variable(code: u8, bytes: &[u8]) -> Vec<u8> {
    [&[code][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// A client of this test, which can publish and receive any bytes that a broker passes on.
#[derive(Debug)]
pub(crate) struct Client {
    wire: Wire,
    sent: u32,
}

impl Client {
    /// Logs in, and attaches one link: to send to a queue, or to receive from it.
    pub(crate) async fn open(url: &BrokerUrl, queue: &str, sends: bool) -> Result<Self, Failure> {
        let address = (url.host().ok_or("no host")?, url.port().ok_or("no port")?);
        let mut wire = Wire(TcpStream::connect(address).await?);
        wire.agree(3).await?;
        wire.expect(0x40).await?;
        let user = url.username().unwrap_or("guest");
        let password = url.password().map_or("guest", |password| password.reveal());
        let login = binary(format!("\0{user}\0{password}").as_bytes());
        wire.send(&frame(SASL, &described(0x41, &[symbol("PLAIN"), login]))).await?;
        wire.expect(0x44).await?;
        wire.agree(0).await?;
        let host = format!("vhost:{}", url.virtual_host()?);
        let open = [string(queue.as_bytes()), string(host.as_bytes()), uint(131_072)];
        wire.send(&frame(AMQP, &described(0x10, &open))).await?;
        wire.expect(0x10).await?;
        let begin = [null(), uint(0), uint(10_000), uint(10_000)];
        wire.send(&frame(AMQP, &described(0x11, &begin))).await?;
        let begun = wire.expect(0x11).await?;
        let queue = string(format!("/queues/{queue}").as_bytes());
        let here = string(b"here");
        let (source, target) = if sends { (here, queue) } else { (queue, here) };
        let attach = [
            string(b"link"),
            uint(0),
            truth(!sends),
            vec![0x50, if sends { 0 } else { 1 }],
            vec![0x50, 0],
            described(0x28, &[source]),
            described(0x29, &[target]),
            null(),
            null(),
            if sends { uint(0) } else { null() },
        ];
        wire.send(&frame(AMQP, &described(0x12, &attach))).await?;
        let attached = wire.expect(0x12).await?;
        if sends {
            wire.expect(0x13).await?;
        } else {
            // Both sides count deliveries from the number in the broker's attach.
            let [next, count] = [&begun.fields[1], &attached.fields[9]].map(Clone::clone);
            let window = || uint(10_000);
            let flow = [next, window(), uint(0), window(), uint(0), count, uint(1000)];
            wire.send(&frame(AMQP, &described(0x13, &flow))).await?;
        }
        Ok(Self { wire, sent: 0 })
    }

    /// Sends a message, and waits until it is accepted.
    pub(crate) async fn publish(&mut self, message: &[u8]) -> Checked {
        let parts = message.chunks(100_000).count();
        for (at, part) in message.chunks(100_000).enumerate() {
            let transfer = [
                uint(0),
                uint(self.sent),
                binary(&self.sent.to_be_bytes()),
                uint(0),
                truth(false),
                truth(at + 1 < parts),
            ];
            self.wire.send(&frame(AMQP, &[&described(0x14, &transfer)[..], part].concat())).await?;
        }
        self.sent += 1;
        loop {
            let frame = self.wire.next().await.ok_or("the connection ended")?;
            match (frame.code, frame.fields.get(4)) {
                (0x15, Some(state)) if state.starts_with(&[0x00, 0x53, 0x24]) => return Ok(()),
                // The broker grants credit in a flow.
                (0x13, _) => {}
                _ => return Err(format!("not accepted: {frame:x?}").into()),
            }
        }
    }

    /// The next message, as it came.
    pub(crate) async fn next(&mut self) -> Result<Vec<u8>, Failure> {
        let mut message = Vec::new();
        loop {
            let frame = self.wire.next().await.ok_or("the connection ended")?;
            if frame.code == 0x14 {
                message.extend(frame.payload);
                if !matches!(frame.fields.get(5).map(Vec::as_slice), Some([0x41] | [0x56, 1])) {
                    return Ok(message);
                }
            }
        }
    }
}
