//! Keeps frames off the wire that belong to a channel which has just closed. Pure.
//!
//! lapin writes `channel.close` and `channel.close-ok` before the publishes that wait in its queue,
//! and those after them all the same. To the broker these are frames on a channel that was never
//! opened: it closes the connection (504), and everything else on it goes down for one publish to a
//! missing exchange. What it drops here the broker would not have stored either.

/// The frames that lapin writes, in its order.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// Channels of which the last frame was `close` or `close-ok`. Few and seldom.
    closed: Vec<u16>,
    /// How many bytes at the front are judged, and not yet gone.
    judged: usize,
    /// Whether those are to be dropped.
    dropping: bool,
    /// How many bytes of the frame at the end of the judged ones are still to come.
    missing: usize,
    /// Set when what is written is not what lapin writes; then everything passes.
    blind: bool,
}

/// What to do with the bytes at the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// So many may be written.
    Pass(usize),
    /// So many are to be passed over.
    Drop(usize),
}

impl Outbound {
    /// Judges the bytes at the front of these two pieces. Those that [`Outbound::gone`] was not
    /// told of are there again the next time, perhaps with more behind them.
    pub(crate) fn next(&mut self, bytes: [&[u8]; 2]) -> Run {
        let available = bytes.iter().map(|piece| piece.len()).sum();
        if self.judged == 0 {
            self.judge(bytes, available);
        }
        let count = self.judged.min(available);
        if self.dropping { Run::Drop(count) } else { Run::Pass(count) }
    }

    /// So many bytes from the front were written, or passed over.
    pub(crate) fn gone(&mut self, count: usize) {
        self.judged = self.judged.saturating_sub(count);
    }

    /// Takes as many whole frames as have the same fate.
    fn judge(&mut self, bytes: [&[u8]; 2], available: usize) {
        let mut at = self.missing.min(available);
        self.missing -= at;
        if at > 0 {
            // The rest of a frame shares its fate.
            self.judged = at;
            return;
        }
        self.dropping = false;
        while at < available && !self.blind {
            let Some(frame) = Frame::at(bytes, at) else {
                // lapin puts whole frames in its buffer, so this is not lapin.
                self.blind = at == 0;
                break;
            };
            if self.drops(&frame) != self.dropping {
                if at > 0 {
                    break;
                }
                self.dropping = true;
            }
            let whole = frame.length.min(available - at);
            self.missing = frame.length - whole;
            at += whole;
            self.note(&frame);
        }
        self.judged = if self.blind { available } else { at };
    }

    fn drops(&self, frame: &Frame) -> bool {
        !frame.opens_or_closes() && self.closed.contains(&frame.channel)
    }

    fn note(&mut self, frame: &Frame) {
        if frame.opens_or_closes() {
            self.closed.retain(|channel| *channel != frame.channel);
            if frame.method != Some(CHANNEL_OPEN) {
                self.closed.push(frame.channel);
            }
        }
    }
}

/// The beginning of a frame.
struct Frame {
    channel: u16,
    /// Class and method, if it is a method.
    method: Option<[u8; 4]>,
    length: usize,
}

impl Frame {
    fn at(bytes: [&[u8]; 2], at: usize) -> Option<Self> {
        let byte = |offset: usize| {
            let [first, second] = bytes;
            let at = at.checked_add(offset)?;
            first.get(at).or_else(|| second.get(at.checked_sub(first.len())?)).copied()
        };
        let kind = byte(0)?;
        if kind == b'A' {
            // The protocol header, before all frames.
            return Some(Self { channel: 0, method: None, length: 8 });
        }
        let channel = u16::from_be_bytes([byte(1)?, byte(2)?]);
        let payload = u32::from_be_bytes([byte(3)?, byte(4)?, byte(5)?, byte(6)?]);
        let method = match kind {
            METHOD => Some([byte(7)?, byte(8)?, byte(9)?, byte(10)?]),
            _ => None,
        };
        let length = usize::try_from(payload).ok()?.checked_add(8)?;
        Some(Self { channel, method, length })
    }

    fn opens_or_closes(&self) -> bool {
        matches!(self.method, Some(CHANNEL_OPEN | CHANNEL_CLOSE | CHANNEL_CLOSE_OK))
    }
}

const METHOD: u8 = 1;
const CHANNEL_OPEN: [u8; 4] = [0, 20, 0, 10];
const CHANNEL_CLOSE: [u8; 4] = [0, 20, 0, 40];
const CHANNEL_CLOSE_OK: [u8; 4] = [0, 20, 0, 41];

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind];
        frame.extend_from_slice(&channel.to_be_bytes());
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        frame.push(0xce);
        frame
    }

    #[derive(Debug, Clone)]
    enum Sent {
        Open(u16),
        Close(u16),
        CloseOk(u16),
        Publish(u16, Vec<u8>),
    }

    impl Sent {
        fn bytes(&self) -> Vec<u8> {
            match self {
                Self::Open(channel) => frame(1, *channel, &[0, 20, 0, 10, 0]),
                Self::Close(channel) => frame(1, *channel, &[0, 20, 0, 40, 0, 200, 0]),
                Self::CloseOk(channel) => frame(1, *channel, &[0, 20, 0, 41]),
                Self::Publish(channel, body) => [
                    frame(1, *channel, &[0, 60, 0, 40, 0, 0]),
                    frame(2, *channel, &[0, 60, 0, 0, 1]),
                    frame(3, *channel, body),
                ]
                .concat(),
            }
        }
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let channel = || 1..4u16;
        prop_oneof![
            1 => channel().prop_map(Sent::Open),
            1 => channel().prop_map(Sent::Close),
            1 => channel().prop_map(Sent::CloseOk),
            5 => (channel(), vec(any::<u8>(), 0..30)).prop_map(|(c, body)| Sent::Publish(c, body)),
        ]
    }

    proptest! {
        #[test]
        fn frames_on_a_closed_channel_are_dropped_and_no_others(
            all in vec(sent(), 0..60),
            // How much is in lapin's buffer, where that wraps, and how much the socket takes.
            rhythm in vec((1..8usize, 0..200usize, 1..100usize), 1..20),
        ) {
            let mut expected = b"AMQP\0\0\x09\x01".to_vec();
            let mut closed = Vec::new();
            for sent in &all {
                match sent {
                    Sent::Publish(channel, _) if closed.contains(channel) => continue,
                    Sent::Publish(..) => {}
                    Sent::Open(channel) => closed.retain(|other| other != channel),
                    Sent::Close(channel) | Sent::CloseOk(channel) => closed.push(*channel),
                }
                expected.extend(sent.bytes());
            }

            let mut outbound = Outbound::default();
            let mut buffer = b"AMQP\0\0\x09\x01".to_vec();
            let mut written = Vec::new();
            let mut queue = all.iter();
            let mut rhythm = rhythm.iter().cycle();
            loop {
                let (more, wrap, takes) = rhythm.next().unwrap();
                buffer.extend(queue.by_ref().take(*more).flat_map(Sent::bytes));
                if buffer.is_empty() {
                    break;
                }
                let (first, second) = buffer.split_at((*wrap).min(buffer.len()));
                let gone = match outbound.next([first, second]) {
                    Run::Drop(count) => count,
                    Run::Pass(count) => {
                        let count = count.min(*takes);
                        written.extend_from_slice(&buffer[..count]);
                        count
                    }
                };
                prop_assert!(gone > 0);
                outbound.gone(gone);
                buffer.drain(..gone);
            }
            prop_assert_eq!(written, expected);
        }

        #[test]
        fn what_is_not_amqp_passes(bytes in vec(any::<u8>(), 1..100)) {
            let mut outbound = Outbound::default();
            let mut at = 0;
            while at < bytes.len() {
                let (Run::Pass(count) | Run::Drop(count)) = outbound.next([&bytes[at..], &[]]);
                prop_assert!(count > 0);
                outbound.gone(count);
                at += count;
            }
        }
    }
}
