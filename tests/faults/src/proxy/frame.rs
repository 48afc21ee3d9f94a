//! What a frame means: the same words for both protocols.

mod amqp091;
mod amqp10;

use bytes::{Buf, Bytes, BytesMut};

use super::Direction;

/// What a frame is to the proxy. What has no name here is [`Kind::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// A protocol header: `AMQP` and four bytes.
    Greeting,
    /// The answer that ends the login: `connection.open-ok`, or the broker's `open`.
    Opened,
    /// A message begins, on its way to the broker. On AMQP 0-9-1 its header and body are frames of
    /// their own.
    Publish,
    /// The broker's word about messages that were published, for one or for several.
    Confirm,
    /// The broker gives a message back as unroutable, before it confirms it. AMQP 0-9-1 only.
    Return,
    /// A message begins, on its way to a consumer.
    Delivery,
    /// A consumer's word about deliveries, for one or for several.
    Settlement,
    /// `connection.close`, or the client's `close`.
    Close,
    /// The answer to it; of AMQP 1.0 the broker's `close`, also where it says that first.
    CloseOk,
    /// Nothing but a sign of life.
    Heartbeat,
    /// Everything else.
    Other,
}

/// Takes a stream of bytes apart into frames.
///
/// What is neither AMQP 0-9-1 nor 1.0 comes out as it went in, as [`Kind::Other`].
#[derive(Debug)]
pub(super) struct Splitter {
    direction: Direction,
    speaks: Speaks,
    buffer: BytesMut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    /// A broker of AMQP 0-9-1 sends no header, so this is what is assumed until there is one.
    Amqp091,
    Amqp10,
    /// Lost, or never AMQP at all.
    SomethingElse,
}

impl Splitter {
    pub(super) fn new(direction: Direction) -> Self {
        Self { direction, speaks: Speaks::Amqp091, buffer: BytesMut::new() }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is there.
    pub(super) fn next(&mut self) -> Option<(Kind, Bytes)> {
        // Between frames only; as a size or a type these bytes mean nothing.
        if self.speaks != Speaks::SomethingElse && self.buffer.starts_with(b"AMQP") {
            if self.buffer.len() < GREETING {
                return None;
            }
            let is_old = self.buffer.get(4..GREETING) == Some(&[0, 0, 9, 1]);
            self.speaks = if is_old { Speaks::Amqp091 } else { Speaks::Amqp10 };
            return Some((Kind::Greeting, self.take(GREETING)));
        }
        if self.speaks == Speaks::Amqp091 && !amqp091::may_begin(&self.buffer) {
            self.speaks = Speaks::SomethingElse;
        }
        let size = match self.speaks {
            Speaks::Amqp091 => amqp091::size(&self.buffer),
            Speaks::Amqp10 => amqp10::size(&self.buffer),
            Speaks::SomethingElse => Some(self.buffer.len()).filter(|size| *size > 0),
        }?;
        if size > LARGEST {
            self.speaks = Speaks::SomethingElse;
            return self.next();
        }
        if self.buffer.len() < size {
            return None;
        }
        let frame = self.take(size);
        let kind = match self.speaks {
            Speaks::Amqp091 => amqp091::kind(&frame, self.direction),
            Speaks::Amqp10 => amqp10::kind(&frame, self.direction),
            Speaks::SomethingElse => Kind::Other,
        };
        Some((kind, frame))
    }

    /// What is there of a frame that will not be completed.
    pub(super) fn rest(&mut self) -> Bytes {
        self.take(self.buffer.len())
    }

    fn take(&mut self, size: usize) -> Bytes {
        self.buffer.copy_to_bytes(size.min(self.buffer.len()))
    }
}

/// Of a protocol header.
const GREETING: usize = 8;

/// No broker here agrees to frames that are larger. What seems to be one is no frame.
const LARGEST: usize = 16 * 1024 * 1024;

/// The bytes at the start of a buffer as a number, if they are there.
fn number<const N: usize>(buffer: &[u8], at: usize) -> Option<u64> {
    let bytes = buffer.get(at..at + N)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(direction: Direction, bytes: &[u8], piece: usize) -> Vec<(Kind, usize)> {
        let mut splitter = Splitter::new(direction);
        let mut frames = Vec::new();
        for piece in bytes.chunks(piece) {
            splitter.feed(piece);
            while let Some((kind, frame)) = splitter.next() {
                frames.push((kind, frame.len()));
            }
        }
        frames
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_arrive() {
        let mut bytes = b"AMQP\x00\x00\x09\x01".to_vec();
        bytes.extend([1, 0, 1, 0, 0, 0, 4, 0, 60, 0, 40, 0xce]);
        bytes.extend([3, 0, 1, 0, 0, 0, 2, b'h', b'i', 0xce]);
        bytes.extend([8, 0, 0, 0, 0, 0, 0, 0xce]);
        let expected =
            vec![(Kind::Greeting, 8), (Kind::Publish, 12), (Kind::Other, 10), (Kind::Heartbeat, 8)];
        for piece in 1..=bytes.len() {
            assert_eq!(split(Direction::ToBroker, &bytes, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_amqp_passes_as_it_is_and_at_once() {
        let http = b"GET / HTTP/1.1\r\n\r\n";
        let mut splitter = Splitter::new(Direction::ToBroker);
        let mut passed = Vec::new();
        for piece in http.chunks(5) {
            splitter.feed(piece);
            while let Some((kind, frame)) = splitter.next() {
                assert_eq!(kind, Kind::Other);
                passed.extend_from_slice(&frame);
            }
        }
        assert_eq!(passed, http);
    }

    #[test]
    fn the_bytes_of_all_frames_are_the_bytes_that_came() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..500 {
            let bytes: Vec<u8> = (0..random.usize(0..200)).map(|_| random.u8(..)).collect();
            let mut splitter = Splitter::new(Direction::FromBroker);
            let mut passed = Vec::new();
            for piece in bytes.chunks(random.usize(1..20)) {
                splitter.feed(piece);
                while let Some((_, frame)) = splitter.next() {
                    passed.extend_from_slice(&frame);
                }
            }
            passed.extend_from_slice(&splitter.rest());
            assert_eq!(passed, bytes);
        }
    }
}
