//! Which deliveries are unsettled, and in which frames settlements are said. Pure.

use std::collections::VecDeque;

use enoki_core::{Outcome, transport::Settle};

/// One frame that settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// `basic.ack` of this delivery.
    Ack(u64),
    /// `basic.ack` of this delivery and of everything unsettled before it.
    AckUpTo(u64),
    /// `basic.reject`, back to the queue.
    Requeue(u64),
    /// `basic.nack`, back to the queue.
    Release(u64),
    /// `basic.reject`, never again.
    Reject(u64),
}

/// The deliveries of one channel that are not settled.
///
/// An acknowledgement of several deliveries covers every lower tag, so it is only said when each of
/// them was given to us and has been settled. Tags that never arrived here are not covered either:
/// while one is missing, its successors are acknowledged one by one.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    /// In the order of their tags; settled ones stay until everything before them is settled.
    deliveries: VecDeque<Entry>,
    /// Everything up to this tag is settled.
    settled_up_to: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// To be acknowledged, which has not been said yet.
    Acked,
    Settled,
}

impl Unsettled {
    /// A delivery came. Tags come in ascending order; one that does not is never settled here, as
    /// an unknown one.
    pub(crate) fn delivered(&mut self, tag: u64) {
        let last = self.deliveries.back().map_or(self.settled_up_to, |entry| entry.tag);
        if tag > last {
            self.deliveries.push_back(Entry { tag, state: State::Open });
        }
    }

    /// Settles, and appends the frames that say so, to be sent in their order. Unknown tags, and
    /// tags settled before, are passed over.
    pub(crate) fn settle(&mut self, settlements: &[Settle], frames: &mut Vec<Frame>) {
        // Single acknowledgements are only said once it is known what goes together.
        let mut acked = Vec::new();
        for settlement in settlements {
            let Some(entry) = self.open(settlement.tag) else { continue };
            let tag = entry.tag;
            entry.state = State::Settled;
            match settlement.outcome {
                Outcome::Ack => {
                    entry.state = State::Acked;
                    acked.push(tag);
                }
                // First, so that no acknowledgement of several covers it.
                Outcome::Release => frames.push(Frame::Release(tag)),
                Outcome::Reject => frames.push(Frame::Reject(tag)),
                // Requeue, and what this version does not know: the message must not get lost.
                _ => frames.push(Frame::Requeue(tag)),
            }
        }
        let (covered, count) = self.pop_settled();
        match (covered, count) {
            (Some(tag), 1) => frames.push(Frame::Ack(tag)),
            (Some(tag), _) => frames.push(Frame::AckUpTo(tag)),
            (None, _) => {}
        }
        for tag in acked {
            if let Some(entry) = self.find(tag) {
                entry.state = State::Settled;
                frames.push(Frame::Ack(tag));
            }
        }
    }

    /// Forgets the settled row at the front: its last acknowledged tag, and how many there are.
    fn pop_settled(&mut self) -> (Option<u64>, usize) {
        let (mut last, mut count) = (None, 0);
        while let Some(entry) = self.deliveries.front().copied() {
            if entry.state == State::Open || entry.tag != self.settled_up_to.wrapping_add(1) {
                break;
            }
            if entry.state == State::Acked {
                last = Some(entry.tag);
                count += 1;
            }
            self.settled_up_to = entry.tag;
            self.deliveries.pop_front();
        }
        (last, count)
    }

    fn open(&mut self, tag: u64) -> Option<&mut Entry> {
        self.find(tag).filter(|entry| entry.state == State::Open)
    }

    fn find(&mut self, tag: u64) -> Option<&mut Entry> {
        let at = self.deliveries.binary_search_by_key(&tag, |entry| entry.tag).ok()?;
        self.deliveries.get_mut(at)
    }
}
