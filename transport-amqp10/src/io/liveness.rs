//! Whether the broker hears this side. Pure.
//!
//! Its heartbeats say that it speaks. What it does about ours is its own choice: RabbitMQ waits for
//! three minutes before it misses them. So when nothing but heartbeats has come for a while, it is
//! asked for something: to begin a session that nobody uses, and the next time to end it. Every
//! broker answers that at once, also during an alarm. RabbitMQ does not answer the echo of a flow.
//!
//! fe2o3-amqp knows nothing of it: the session has the last channel that the broker allows, which
//! fe2o3-amqp is told of as not allowed.

use std::time::Duration;

use enoki_core::transport::later;
use tokio::time::Instant;

use crate::proto::{
    encode::Encoder,
    frame::{self, BEGIN, END, Opened},
};

/// What stands for a frame that is not passed on, so that fe2o3-amqp hears as often from the broker.
pub(crate) const HEARTBEAT: &[u8] = &[0, 0, 0, 8, 2, 0, 0, 0];

/// Asks, and waits for the answers.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// How long it may be quiet, and how long an answer may take.
    every: Duration,
    /// The channel of its session, once the broker has said how many there are.
    channel: Option<u16>,
    /// The broker's channel of the session, while there is one.
    theirs: Option<u16>,
    /// Whether the broker ended it by itself, and waits for this side to do so, too.
    owes: bool,
    /// When it was asked for what it has not answered yet.
    asked: Option<Instant>,
    /// When the last came that is no heartbeat.
    heard: Instant,
    /// What was written since.
    written: usize,
}

impl Pulse {
    pub(crate) fn new(every: Duration) -> Self {
        Self {
            every,
            channel: None,
            theirs: None,
            owes: false,
            asked: None,
            heard: Instant::now(),
            written: 0,
        }
    }

    /// So many bytes are on their way to the broker.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes);
    }

    /// Something came that is no heartbeat, or a part of it.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.written = 0;
    }

    /// Whether a whole frame is an answer, and none of fe2o3-amqp's business.
    pub(crate) fn takes(&mut self, frame: &[u8]) -> bool {
        if self.channel.is_none() {
            return false;
        }
        let Some(opened) = frame::open(frame) else { return false };
        if self.theirs == Some(opened.channel) {
            if opened.code == END {
                self.theirs = None;
                self.owes = self.asked.take().is_none();
            }
            return true;
        }
        // The first field of a begin is the channel that it answers.
        let answered = |Opened { fields, .. }: Opened<'_>| fields.clone().uint().ok().flatten();
        let channel = opened.channel;
        if opened.code == BEGIN && answered(opened) == self.channel.map(u32::from) {
            self.theirs = Some(channel);
            self.asked = None;
            return true;
        }
        false
    }

    /// The broker's open: takes the last channel for itself, and says which is the last of the others.
    /// A broker that has no second one is not asked.
    pub(crate) fn opened(&mut self, open: &mut [u8], now: Instant) -> u16 {
        self.heard(now);
        let length = open.len();
        let Some(place) = last_channel(open) else {
            self.channel = Some(u16::MAX);
            return u16::MAX - 1;
        };
        if let Some(at) = length.checked_sub(place)
            && let Some(bytes) = open.get_mut(at..at + 2)
            && let Ok(last) = <[u8; 2]>::try_from(&*bytes)
            && let last @ 1.. = u16::from_be_bytes(last)
        {
            bytes.copy_from_slice(&(last - 1).to_be_bytes());
            self.channel = Some(last);
            return last - 1;
        }
        0
    }

    /// When there is something to do again.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.channel?;
        Some(match self.asked {
            None if self.owes => self.heard,
            None => later(self.heard, self.every),
            // A slow line may be busy with what was written before.
            Some(asked) => {
                let answer = later(asked.max(self.heard), self.every);
                later(answer, at_the_slowest(self.written))
            }
        })
    }

    /// Does what is due: writes a question, or says that there was no answer to the last.
    pub(crate) fn beat(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), Deaf> {
        let (Some(channel), Some(next)) = (self.channel, self.next()) else { return Ok(()) };
        if now < next {
            return Ok(());
        }
        if self.asked.is_some() {
            return Err(Deaf);
        }
        let owes = std::mem::take(&mut self.owes);
        if !owes {
            self.asked = Some(now);
        }
        out.extend_from_slice(&question(channel, owes || self.theirs.is_some()));
        Ok(())
    }
}

/// The broker does not answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Deaf;

/// How long so many bytes may take.
fn at_the_slowest(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 / SLOWEST)
}

/// How far from the end the fourth field of an open begins to say its last channel: container-id,
/// hostname, max-frame-size, channel-max. `None` where it does not say it, which means 65535.
fn last_channel(open: &[u8]) -> Option<usize> {
    let Opened { mut fields, count, .. } = frame::open(open)?;
    if count < 4 {
        return None;
    }
    for _ in 0..3 {
        fields.skip().ok()?;
    }
    let rest = fields.rest();
    (rest.first() == Some(&0x60)).then(|| rest.len() - 1)
}

fn question(channel: u16, ends: bool) -> Vec<u8> {
    let mut encoder = Encoder::default();
    if ends {
        encoder.descriptor(END as u8);
        encoder.list(|_| 0);
    } else {
        encoder.descriptor(BEGIN as u8);
        encoder.list(|encoder| {
            encoder.null();
            // next-outgoing-id, incoming-window, outgoing-window
            encoder.uint(0);
            encoder.uint(1);
            encoder.uint(1);
            4
        });
    }
    let body = encoder.into_bytes();
    let [high, low] = channel.to_be_bytes();
    let length = u32::try_from(body.len() + 8).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &[2, 0, high, low], &body].concat()
}

/// Bytes in a millisecond, on the slowest line that still counts as one.
const SLOWEST: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(2);

    fn performative(channel: u16, code: u64, fields: impl FnOnce(&mut Encoder) -> u32) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.descriptor(code as u8);
        encoder.list(fields);
        let body = encoder.into_bytes();
        let [high, low] = channel.to_be_bytes();
        let length = u32::try_from(body.len() + 8).unwrap();
        [&length.to_be_bytes()[..], &[2, 0, high, low], &body].concat()
    }

    fn open(last: Option<u16>) -> Vec<u8> {
        let mut open = performative(0, 0x10, |encoder| {
            encoder.string("container");
            encoder.null();
            encoder.uint(65_536);
            if last.is_some() {
                // In place of an ushort, which is never written otherwise.
                encoder.bool(true);
            }
            3 + u32::from(last.is_some())
        });
        if let Some(last) = last {
            let [high, low] = last.to_be_bytes();
            open.pop();
            open.extend_from_slice(&[0x60, high, low]);
            // The lengths of the frame and of the list.
            open[3] += 2;
            let at = 8 + 3 + if open[11] == 0xc0 { 1 } else { 4 };
            open[at] += 2;
        }
        open
    }

    /// The broker answers on a channel of its own.
    fn begun(theirs: u16, ours: u8) -> Vec<u8> {
        let mut begun = performative(theirs, BEGIN, |encoder| {
            encoder.null();
            encoder.uint(0);
            2
        });
        // remote-channel, as a small ushort is a large one with a zero.
        let at = begun.iter().position(|byte| *byte == 0x40).unwrap();
        begun.splice(at..=at, [0x60, 0, ours]);
        begun[3] += 2;
        let at = 8 + 3 + if begun[11] == 0xc0 { 1 } else { 4 };
        begun[at] += 2;
        begun
    }

    fn ended(theirs: u16) -> Vec<u8> {
        performative(theirs, END, |_| 0)
    }

    fn asks(pulse: &mut Pulse, now: Instant) -> Option<u64> {
        let mut out = Vec::new();
        pulse.beat(now, &mut out).unwrap();
        frame::open(&out).map(|opened| opened.code)
    }

    #[test]
    fn a_quiet_broker_is_asked_to_begin_a_session_and_then_to_end_it() {
        let mut pulse = Pulse::new(EVERY);
        let mut now = Instant::now();
        assert_eq!(pulse.next(), None);
        let mut theirs = open(Some(63));
        assert_eq!(pulse.opened(&mut theirs, now), 62);
        assert_eq!(theirs, open(Some(62)));
        for _ in 0..2 {
            for (question, answer) in [(BEGIN, begun(7, 63)), (END, ended(7))] {
                assert_eq!(asks(&mut pulse, now + EVERY / 2), None);
                now += EVERY;
                assert_eq!(asks(&mut pulse, now), Some(question));
                assert!(pulse.takes(&answer));
                pulse.heard(now);
            }
        }
        // What others do is theirs.
        assert!(!pulse.takes(&begun(3, 3)));
        assert!(!pulse.takes(&ended(3)));
        assert!(!pulse.takes(HEARTBEAT));
    }

    #[test]
    fn a_session_that_the_broker_ends_is_ended_on_this_side_too() {
        let mut pulse = Pulse::new(EVERY);
        let now = Instant::now();
        pulse.opened(&mut open(Some(63)), now);
        assert_eq!(asks(&mut pulse, now + EVERY), Some(BEGIN));
        assert!(pulse.takes(&begun(0, 63)));
        assert!(pulse.takes(&ended(0)));
        assert_eq!(asks(&mut pulse, now + EVERY), Some(END));
        assert_eq!(asks(&mut pulse, now + EVERY), Some(BEGIN), "there is nothing to wait for");
    }

    #[test]
    fn a_broker_that_does_not_answer_is_deaf_after_the_same_time_again() {
        let mut pulse = Pulse::new(EVERY);
        let now = Instant::now();
        pulse.opened(&mut open(Some(63)), now);
        assert_eq!(asks(&mut pulse, now + EVERY), Some(BEGIN));
        assert_eq!(pulse.next(), Some(now + 2 * EVERY));
        assert_eq!(asks(&mut pulse, now + 2 * EVERY - Duration::from_millis(1)), None);
        assert_eq!(pulse.beat(now + 2 * EVERY, &mut Vec::new()), Err(Deaf));
    }

    #[test]
    fn what_comes_or_has_to_go_first_gives_it_more_time() {
        let mut pulse = Pulse::new(EVERY);
        let now = Instant::now();
        pulse.opened(&mut open(None), now);
        assert_eq!(asks(&mut pulse, now + EVERY), Some(BEGIN));
        // Ten kilobytes in a second.
        pulse.wrote(50_000);
        assert_eq!(pulse.next(), Some(now + 2 * EVERY + Duration::from_secs(5)));
        pulse.heard(now + 2 * EVERY);
        assert_eq!(pulse.next(), Some(now + 3 * EVERY));
    }

    #[test]
    fn a_broker_of_one_channel_is_not_asked_and_nothing_is_too_odd() {
        let mut pulse = Pulse::new(EVERY);
        let now = Instant::now();
        let mut theirs = open(Some(0));
        assert_eq!(pulse.opened(&mut theirs, now), 0);
        assert_eq!((theirs, pulse.next()), (open(Some(0)), None));
        let whole = open(Some(63));
        for end in 0..whole.len() {
            Pulse::new(EVERY).opened(&mut whole[..end].to_vec(), now);
        }
    }
}
