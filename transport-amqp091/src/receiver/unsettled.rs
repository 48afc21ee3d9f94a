//! Which deliveries are unsettled, and which frames settle them.

use std::collections::VecDeque;

use enoki_core::{Disposition, transport::Settle};

/// One frame that settles deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettleFrame {
    /// `basic.ack` of this delivery.
    Ack(u64),
    /// `basic.ack` of this delivery and of everything unsettled before it.
    AckUpTo(u64),
    /// `basic.reject`, back to the queue.
    Requeue(u64),
    /// `basic.nack`, back to the queue.
    Release(u64),
    /// `basic.reject`, without requeueing.
    Reject(u64),
}

/// The deliveries of one channel that are not settled.
///
/// An acknowledgement of several deliveries covers every lower tag (§1.8.3.13). So it is only written when this process
/// got each of them and has settled it. While a tag is missing that never arrived here, the deliveries after it are
/// acknowledged one by one.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    /// In ascending order of their tags, all of which are above `settled_up_to`. A settled delivery stays until every
    /// tag before it is settled. Between two calls the first one is open, or a tag before it never arrived.
    deliveries: VecDeque<Entry>,
    /// Each tag up to this one has arrived and is settled.
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
    /// Acknowledged by the program; the frame is not written yet. Only during a call.
    Acked,
    Settled,
}

impl Unsettled {
    /// A delivery arrived. Tags arrive in ascending order; one that does not is treated as unknown.
    pub(crate) fn delivered(&mut self, tag: u64) {
        let last = self.deliveries.back().map_or(self.settled_up_to, |entry| entry.tag);
        if tag > last {
            self.deliveries.push_back(Entry { tag, state: State::Open });
        }
    }

    /// Settles, and appends the frames for it, to be written in their order. Unknown tags, and tags that were settled
    /// before, are ignored.
    pub(crate) fn settle(&mut self, settlements: &[Settle], frames: &mut Vec<SettleFrame>) {
        // Single acknowledgements are only written once it is known which of them one frame covers.
        let mut acked = Vec::new();
        for settlement in settlements {
            let Some(entry) = self.open(settlement.tag) else { continue };
            let tag = entry.tag;
            entry.state = State::Settled;
            match settlement.disposition {
                Disposition::Accept => {
                    entry.state = State::Acked;
                    acked.push(tag);
                }
                // These go first, so that no acknowledgement of several deliveries covers them. No time
                // comes here: the receiver does not delay.
                Disposition::Return { counted: false, after: _ } => {
                    frames.push(SettleFrame::Release(tag))
                }
                Disposition::Return { counted: true, after: _ } => {
                    frames.push(SettleFrame::Requeue(tag))
                }
                Disposition::Reject => frames.push(SettleFrame::Reject(tag)),
            }
        }
        let (covered, count) = self.pop_settled();
        match (covered, count) {
            (Some(tag), 1) => frames.push(SettleFrame::Ack(tag)),
            (Some(tag), _) => frames.push(SettleFrame::AckUpTo(tag)),
            (None, _) => {}
        }
        for tag in acked {
            if let Some(entry) = self.find(tag) {
                entry.state = State::Settled;
                frames.push(SettleFrame::Ack(tag));
            }
        }
    }

    /// Removes the settled deliveries at the front: returns the last acknowledged tag among them, and how many are
    /// acknowledged.
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use enoki_core::Outcome;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn settle(unsettled: &mut Unsettled, settlements: &[(u64, Outcome)]) -> Vec<SettleFrame> {
        let settlements: Vec<_> =
            settlements.iter().map(|&(tag, outcome)| Settle::new(tag, outcome)).collect();
        let mut frames = Vec::new();
        unsettled.settle(&settlements, &mut frames);
        frames
    }

    fn delivered(tags: impl IntoIterator<Item = u64>) -> Unsettled {
        let mut unsettled = Unsettled::default();
        tags.into_iter().for_each(|tag| unsettled.delivered(tag));
        unsettled
    }

    use Outcome::{Ack, Reject, Release, Requeue};

    #[test]
    fn a_row_from_the_front_is_acknowledged_in_one_frame() {
        let mut unsettled = delivered(1..=5);
        assert_eq!(
            settle(&mut unsettled, &[(2, Ack), (1, Ack), (3, Ack)]),
            [SettleFrame::AckUpTo(3)]
        );
        assert_eq!(settle(&mut unsettled, &[(5, Ack)]), [SettleFrame::Ack(5)]);
        assert_eq!(settle(&mut unsettled, &[(4, Ack)]), [SettleFrame::Ack(4)]);
    }

    /// The broker would take the rejected delivery for acknowledged if that frame came first.
    #[test]
    fn a_negative_settlement_goes_before_the_acknowledgement_that_would_cover_it() {
        let mut unsettled = delivered(1..=3);
        let frames = settle(&mut unsettled, &[(1, Ack), (2, Reject), (3, Ack)]);
        assert_eq!(frames, [SettleFrame::Reject(2), SettleFrame::AckUpTo(3)]);
    }

    /// The broker closes the channel for an acknowledgement of a tag that is settled already.
    #[test]
    fn a_row_that_ends_with_a_rejected_delivery_is_acknowledged_up_to_the_one_before() {
        let mut unsettled = delivered(1..=3);
        let frames = settle(&mut unsettled, &[(1, Ack), (2, Ack), (3, Requeue)]);
        assert_eq!(frames, [SettleFrame::Requeue(3), SettleFrame::AckUpTo(2)]);
        let mut unsettled = delivered(1..=2);
        assert_eq!(
            settle(&mut unsettled, &[(1, Release), (2, Ack)]),
            [SettleFrame::Release(1), SettleFrame::Ack(2)]
        );
    }

    #[test]
    fn what_is_still_open_is_never_covered() {
        let mut unsettled = delivered(1..=4);
        assert_eq!(
            settle(&mut unsettled, &[(3, Ack), (4, Ack)]),
            [SettleFrame::Ack(3), SettleFrame::Ack(4)]
        );
        // The deliveries after it are settled already, and need no frame.
        assert_eq!(settle(&mut unsettled, &[(1, Ack), (2, Ack)]), [SettleFrame::AckUpTo(2)]);
    }

    #[test]
    fn unknown_and_repeated_tags_are_passed_over() {
        let mut unsettled = delivered(1..=2);
        assert_eq!(
            settle(&mut unsettled, &[(0, Ack), (9, Ack), (1, Ack), (1, Reject)]),
            [SettleFrame::Ack(1)]
        );
        assert_eq!(settle(&mut unsettled, &[(1, Ack), (2, Ack), (2, Ack)]), [SettleFrame::Ack(2)]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// The broker sends a message. It may get lost on this side.
        Deliver { arrives: bool },
        /// The program settles some of its deliveries: which, and how.
        Settle(Vec<(prop::sample::Index, Outcome)>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let outcome =
            prop_oneof![6 => Just(Ack), 1 => Just(Requeue), 1 => Just(Release), 1 => Just(Reject)];
        prop_oneof![
            3 => (0u8..20).prop_map(|n| Step::Deliver { arrives: n > 0 }),
            1 => vec((any::<prop::sample::Index>(), outcome), 1..20).prop_map(Step::Settle),
        ]
    }

    proptest! {
        /// A broker that keeps its own books agrees: each delivery was settled as the program said,
        /// each frame was about something unsettled, and nothing else was touched.
        #[test]
        fn the_broker_understands_what_the_program_meant(steps in vec(step(), 0..200)) {
            let mut unsettled = Unsettled::default();
            let mut broker_unacked = BTreeSet::new();
            let mut broker_knows = BTreeMap::new();
            let mut program_has = Vec::new();
            let mut program_meant = BTreeMap::new();
            let mut last_tag = 0;
            for step in steps {
                match step {
                    Step::Deliver { arrives } => {
                        last_tag += 1;
                        broker_unacked.insert(last_tag);
                        if arrives {
                            unsettled.delivered(last_tag);
                            program_has.push(last_tag);
                        }
                    }
                    Step::Settle(choices) => {
                        let mut said = Vec::new();
                        for (which, outcome) in choices {
                            if !program_has.is_empty() {
                                let tag = program_has.remove(which.index(program_has.len()));
                                program_meant.insert(tag, outcome);
                                said.push((tag, outcome));
                            }
                        }
                        for frame in settle(&mut unsettled, &said) {
                            let (tag, up_to, outcome) = match frame {
                                SettleFrame::Ack(tag) => (tag, tag, Ack),
                                SettleFrame::AckUpTo(tag) => (0, tag, Ack),
                                SettleFrame::Requeue(tag) => (tag, tag, Requeue),
                                SettleFrame::Release(tag) => (tag, tag, Release),
                                SettleFrame::Reject(tag) => (tag, tag, Reject),
                            };
                            prop_assert!(broker_unacked.contains(&up_to), "{frame:?} is unknown");
                            let covered: Vec<u64> =
                                broker_unacked.range(tag..=up_to).copied().collect();
                            for tag in covered {
                                broker_unacked.remove(&tag);
                                broker_knows.insert(tag, outcome);
                            }
                        }
                    }
                }
                prop_assert_eq!(&broker_knows, &program_meant);
            }
        }
    }
}
