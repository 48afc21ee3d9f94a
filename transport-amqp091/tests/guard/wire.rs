//! AMQP 0-9-1 byte by byte, since no client library sends what is needed here.

use enoki_core::BrokerUrl;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::Checked;

pub(crate) const METHOD: u8 = 1;
pub(crate) const HEADER: u8 = 2;
pub(crate) const BODY: u8 = 3;
pub(crate) const HEARTBEAT: u8 = 8;

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Class and method, of a method frame.
    pub(crate) fn method(&self) -> Option<(u16, u16)> {
        let [c0, c1, m0, m1] = *self.payload.first_chunk()?;
        (self.kind == METHOD)
            .then_some((u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1])))
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    /// The next frame that is no heartbeat; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 7];
            self.0.read_exact(&mut head).await.ok()?;
            let [kind, _, _, length @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes(length) as usize + 1];
            self.0.read_exact(&mut payload).await.ok()?;
            payload.pop();
            if kind != HEARTBEAT {
                return Some(Frame { kind, payload });
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Checked {
        Ok(self.0.write_all(bytes).await?)
    }

    /// The next method has to be this one; its arguments.
    pub(crate) async fn expect(&mut self, class: u16, method: u16) -> Result<Vec<u8>, Failure> {
        let frame = self.next().await.ok_or("the connection ended")?;
        match frame.method() {
            Some(found) if found == (class, method) => Ok(frame.payload[4..].to_vec()),
            _ => Err(format!("{class}.{method} was to come, not {:?}", frame.payload).into()),
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&channel.to_be_bytes());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame.push(0xce);
    frame
}

pub(crate) fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
    frame(METHOD, channel, &payload)
}

pub(crate) fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8], text].concat()
}

pub(crate) fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// A field that holds so many tables, each in the one before.
pub(crate) fn tables(levels: usize) -> Vec<u8> {
    let table = (1..levels).fold(long(&[]), |inner, _| long(&[&b"\0F"[..], &inner].concat()));
    [&b"\x01nF"[..], &table].concat()
}

/// A field that holds so many lists, each in the one before.
pub(crate) fn lists(levels: usize) -> Vec<u8> {
    let list = (1..levels).fold(long(&[]), |inner, _| long(&[&b"A"[..], &inner].concat()));
    [&b"\x01nA"[..], &list].concat()
}

/// A message as it is on the wire: flags and properties, and a body.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) properties: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// A login of its own to publish and take whatever a broker lets pass.
#[derive(Debug)]
pub(crate) struct Client(Wire);

impl Client {
    /// Logs in and opens a channel that confirms.
    pub(crate) async fn open(url: &BrokerUrl) -> Result<Self, Failure> {
        let address = (url.host().ok_or("no host")?, url.port().ok_or("no port")?);
        let mut wire = Wire(TcpStream::connect(address).await?);
        wire.send(b"AMQP\0\0\x09\x01").await?;
        wire.expect(10, 10).await?;
        let user = url.username().unwrap_or("guest");
        let password = url.password().map_or("guest", |password| password.reveal());
        let login = long(format!("\0{user}\0{password}").as_bytes());
        let start_ok = [&long(&[])[..], &short(b"PLAIN"), &login, &short(b"en_US")].concat();
        wire.send(&method(0, 10, 11, &start_ok)).await?;
        wire.expect(10, 30).await?;
        wire.send(&method(0, 10, 31, &[7, 255, 0, 2, 0, 0, 0, 0])).await?;
        let host = short(url.virtual_host()?.as_bytes());
        wire.send(&method(0, 10, 40, &[&host[..], &[0, 0]].concat())).await?;
        wire.expect(10, 41).await?;
        wire.send(&method(1, 20, 10, &[0])).await?;
        wire.expect(20, 11).await?;
        wire.send(&method(1, 85, 10, &[0])).await?;
        wire.expect(85, 11).await?;
        Ok(Self(wire))
    }

    /// Publishes, and waits for the confirm.
    pub(crate) async fn publish(
        &mut self,
        exchange: &str,
        key: &[u8],
        content: &Content,
    ) -> Checked {
        let target = [&[0, 0][..], &short(exchange.as_bytes()), &short(key), &[0]].concat();
        let Content { properties, body } = content;
        let length = (body.len() as u64).to_be_bytes();
        let header = [&[0, 60, 0, 0][..], &length, properties].concat();
        let mut bytes = [method(1, 60, 40, &target), frame(HEADER, 1, &header)].concat();
        for part in body.chunks(131_064) {
            bytes.extend_from_slice(&frame(BODY, 1, part));
        }
        self.0.send(&bytes).await?;
        self.0.expect(60, 80).await.map(drop)
    }

    /// Consumes without acknowledgements.
    pub(crate) async fn consume(&mut self, queue: &str) -> Checked {
        let consume = [&[0, 0][..], &short(queue.as_bytes()), &[0, 0b10], &long(&[])].concat();
        self.0.send(&method(1, 60, 20, &consume)).await?;
        self.0.expect(60, 21).await.map(drop)
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<Content, Failure> {
        self.0.expect(60, 60).await?;
        let header = self.0.next().await.ok_or("no header")?;
        let (fixed, properties) = header.payload.split_at(12);
        let length = u64::from_be_bytes(fixed[4..].try_into()?);
        let mut body = Vec::new();
        while (body.len() as u64) < length {
            body.extend(self.0.next().await.ok_or("no body")?.payload);
        }
        Ok(Content { properties: properties.to_vec(), body })
    }

    /// How many messages wait in a queue, and how many consumers.
    pub(crate) async fn count(&mut self, queue: &str) -> Result<(u32, u32), Failure> {
        let declare = [&[0, 0][..], &short(queue.as_bytes()), &[0b1], &long(&[])].concat();
        self.0.send(&method(1, 50, 10, &declare)).await?;
        let answer = self.0.expect(50, 11).await?;
        let (messages, consumers) = answer[answer.len() - 8..].split_at(4);
        Ok((u32::from_be_bytes(messages.try_into()?), u32::from_be_bytes(consumers.try_into()?)))
    }
}
