//! Whether the broker still receives what this side sends.
//!
//! Its heartbeats show that it sends. Whether it misses ours is its own choice: RabbitMQ waits three minutes.
//! So when nothing but heartbeats has come for one interval, this side asks for an answer: it begins an AMQP
//! session that is not used, and the next time it ends that session. Every broker answers both at once,
//! RabbitMQ also during an alarm. A flow with echo would not do: RabbitMQ does not answer it.
//! docs/design/17-amqp10.md has the reasons.
//!
//! fe2o3-amqp does not know of this session. It has the last channel that the broker allows, and fe2o3-amqp
//! is told that one channel less is allowed.
//!
//! Nothing here waits: the stream hands in the time and asks when the next poll is due.

use std::time::Duration;

use enoki_core::transport::later;
use tokio::time::Instant;

use crate::proto::{
    encode::Encoder,
    frame::{BEGIN, END, Performative},
};

/// A heartbeat: an empty frame (§2.4.5). fe2o3-amqp gets one for each answer that is kept from it, so that it
/// hears from the broker as often.
pub(super) const HEARTBEAT: &[u8] = &[0, 0, 0, 8, 2, 0, 0, 0];

/// Asks a quiet broker for an answer, and tells when there is none.
///
/// The session that it asks with is in one of five states:
///
/// | state | `asked_at` | `remote_channel` | `must_end` |
/// |---|---|---|---|
/// | there is none | – | – | no |
/// | this side asked for it | set | – | no |
/// | it is there | – | set | no |
/// | this side asked for its end | set | set | no |
/// | the broker ended it unasked, and this side has to answer | – | – | yes |
#[derive(Debug)]
pub(super) struct Liveness {
    /// How long the broker may be quiet before it is asked, and how long an answer may take.
    interval: Duration,
    /// This side's channel of the session. `None` until the broker has opened the connection, and if it
    /// allows one channel only: then nothing is asked.
    channel: Option<u16>,
    /// The broker's channel of the session, while there is one.
    remote_channel: Option<u16>,
    /// The broker ended the session unasked: this side still has to end it, too (§2.5.2).
    must_end: bool,
    /// When the broker was asked; `None` when it has answered.
    asked_at: Option<Instant>,
    /// When bytes last came that are no heartbeat.
    last_heard: Instant,
    /// How many bytes were written since `last_heard`. They may have to go out before the question does.
    written: usize,
}

impl Liveness {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            channel: None,
            remote_channel: None,
            must_end: false,
            asked_at: None,
            last_heard: Instant::now(),
            written: 0,
        }
    }

    /// So many bytes are on their way to the broker.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes);
    }

    /// Bytes came that are no heartbeat.
    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.written = 0;
    }

    /// Whether a whole frame is about the session here, and not for fe2o3-amqp.
    pub(super) fn takes(&mut self, frame: &[u8]) -> bool {
        if self.channel.is_none() {
            return false;
        }
        let Some(performative) = Performative::read(frame) else { return false };
        let channel = performative.channel;
        if self.remote_channel == Some(channel) {
            if performative.code == END {
                self.remote_channel = None;
                self.must_end = self.asked_at.take().is_none();
            }
            return true;
        }
        if performative.code != BEGIN {
            return false;
        }
        // The first field of a begin is the channel that it answers (§2.7.2).
        let answered = performative.fields.clone().uint().ok().flatten();
        let is_ours = answered == self.channel.map(u32::from);
        if is_ours {
            self.remote_channel = Some(channel);
            self.asked_at = None;
        }
        is_ours
    }

    /// Takes the last channel of those that the broker's open allows, changes the open so that it allows one
    /// less, and returns the last of the others. A broker that allows one channel only is not asked.
    pub(super) fn opened(&mut self, open: &mut [u8], now: Instant) -> u16 {
        self.heard(now);
        let length = open.len();
        let Some(place) = channel_max(open) else {
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

    /// When the next poll is due; `None` while nothing is asked.
    pub(super) fn next(&self) -> Option<Instant> {
        self.channel?;
        Some(match self.asked_at {
            None if self.must_end => self.last_heard,
            None => later(self.last_heard, self.interval),
            // A slow line may still be busy with the bytes that were written before the question.
            Some(asked_at) => {
                let answer = later(asked_at.max(self.last_heard), self.interval);
                later(answer, at_the_slowest(self.written))
            }
        })
    }

    /// Does what is due: writes a question, or fails because the last was not answered.
    pub(super) fn poll(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), Unresponsive> {
        let (Some(channel), Some(next)) = (self.channel, self.next()) else { return Ok(()) };
        if now < next {
            return Ok(());
        }
        if self.asked_at.is_some() {
            return Err(Unresponsive);
        }
        let must_end = std::mem::take(&mut self.must_end);
        if !must_end {
            self.asked_at = Some(now);
        }
        out.extend_from_slice(&question(channel, must_end || self.remote_channel.is_some()));
        Ok(())
    }
}

/// The broker did not answer in time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unresponsive;

/// How long so many bytes may take on the slowest line.
fn at_the_slowest(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 / SLOWEST)
}

/// How far from the end of an open the two bytes of its fourth field begin: container-id, hostname,
/// max-frame-size, channel-max. `None` where the field is left out, which means 65535 (§2.7.1).
fn channel_max(open: &[u8]) -> Option<usize> {
    let Performative { mut fields, count, .. } = Performative::read(open)?;
    if count < 4 {
        return None;
    }
    for _ in 0..3 {
        fields.skip().ok()?;
    }
    let rest = fields.rest();
    (rest.first() == Some(&0x60)).then(|| rest.len() - 1)
}

/// The begin of the session on this channel, or its end.
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

/// How many bytes a millisecond carries on the slowest line that is waited for: 10 kB/s.
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
    fn begun(remote: u16, ours: u8) -> Vec<u8> {
        let mut begun = performative(remote, BEGIN, |encoder| {
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

    fn ended(remote: u16) -> Vec<u8> {
        performative(remote, END, |_| 0)
    }

    fn asks(liveness: &mut Liveness, now: Instant) -> Option<u64> {
        let mut out = Vec::new();
        liveness.poll(now, &mut out).unwrap();
        Performative::read(&out).map(|question| question.code)
    }

    #[test]
    fn a_quiet_broker_is_asked_to_begin_a_session_and_then_to_end_it() {
        let mut liveness = Liveness::new(EVERY);
        let mut now = Instant::now();
        assert_eq!(liveness.next(), None);
        let mut opened = open(Some(63));
        assert_eq!(liveness.opened(&mut opened, now), 62);
        assert_eq!(opened, open(Some(62)));
        for _ in 0..2 {
            for (question, answer) in [(BEGIN, begun(7, 63)), (END, ended(7))] {
                assert_eq!(asks(&mut liveness, now + EVERY / 2), None);
                now += EVERY;
                assert_eq!(asks(&mut liveness, now), Some(question));
                assert!(liveness.takes(&answer));
                liveness.heard(now);
            }
        }
        // The sessions of fe2o3-amqp are its own.
        assert!(!liveness.takes(&begun(3, 3)));
        assert!(!liveness.takes(&ended(3)));
        assert!(!liveness.takes(HEARTBEAT));
    }

    #[test]
    fn a_session_that_the_broker_ends_is_ended_on_this_side_too() {
        let mut liveness = Liveness::new(EVERY);
        let now = Instant::now();
        liveness.opened(&mut open(Some(63)), now);
        assert_eq!(asks(&mut liveness, now + EVERY), Some(BEGIN));
        assert!(liveness.takes(&begun(0, 63)));
        assert!(liveness.takes(&ended(0)));
        assert_eq!(asks(&mut liveness, now + EVERY), Some(END));
        assert_eq!(asks(&mut liveness, now + EVERY), Some(BEGIN), "there is nothing to wait for");
    }

    #[test]
    fn a_broker_that_does_not_answer_is_given_up_after_another_interval() {
        let mut liveness = Liveness::new(EVERY);
        let now = Instant::now();
        liveness.opened(&mut open(Some(63)), now);
        assert_eq!(asks(&mut liveness, now + EVERY), Some(BEGIN));
        assert_eq!(liveness.next(), Some(now + 2 * EVERY));
        assert_eq!(asks(&mut liveness, now + 2 * EVERY - Duration::from_millis(1)), None);
        assert_eq!(liveness.poll(now + 2 * EVERY, &mut Vec::new()), Err(Unresponsive));
    }

    #[test]
    fn bytes_that_come_or_go_out_first_give_the_answer_more_time() {
        let mut liveness = Liveness::new(EVERY);
        let now = Instant::now();
        liveness.opened(&mut open(None), now);
        assert_eq!(asks(&mut liveness, now + EVERY), Some(BEGIN));
        // Ten kilobytes in a second.
        liveness.wrote(50_000);
        assert_eq!(liveness.next(), Some(now + 2 * EVERY + Duration::from_secs(5)));
        liveness.heard(now + 2 * EVERY);
        assert_eq!(liveness.next(), Some(now + 3 * EVERY));
    }

    #[test]
    fn a_broker_of_one_channel_is_not_asked_and_no_open_panics() {
        let mut liveness = Liveness::new(EVERY);
        let now = Instant::now();
        let mut opened = open(Some(0));
        assert_eq!(liveness.opened(&mut opened, now), 0);
        assert_eq!((opened, liveness.next()), (open(Some(0)), None));
        let whole = open(Some(63));
        for end in 0..whole.len() {
            Liveness::new(EVERY).opened(&mut whole[..end].to_vec(), now);
        }
    }
}
