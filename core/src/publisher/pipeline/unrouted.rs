//! Messages that found no queue, and may find one a moment later.

use crate::connection::{DeclaredByHand, Standing};

/// Tells the messages that found no queue and will find none, from those that came while what the program
/// declared by hand was away with its connection.
pub(super) struct Unrouted {
    by_hand: DeclaredByHand,
    /// Which incarnation had declared it when this last looked.
    seen: Option<u64>,
    /// Messages with smaller ids may have been sent before that.
    sure_from: u64,
}

impl Unrouted {
    pub(super) fn new(by_hand: DeclaredByHand) -> Self {
        Self { by_hand, seen: None, sure_from: 0 }
    }

    /// A sender was opened, and has sent nothing yet.
    pub(super) fn has_a_sender(&mut self) {
        self.seen = match self.by_hand.standing() {
            Standing::There(epoch) => Some(epoch),
            Standing::Away | Standing::Left => None,
        };
        self.sure_from = 0;
    }

    /// Whether the message of this id, which found no queue, may find one if it is sent again. The
    /// next id is that of what is sent from now on.
    pub(super) fn may_pass(&mut self, id: u64, next_id: u64) -> bool {
        match self.by_hand.standing() {
            Standing::Left => false,
            Standing::Away => {
                self.seen = None;
                true
            }
            Standing::There(epoch) => {
                if self.seen.replace(epoch) != Some(epoch) {
                    self.sure_from = next_id;
                }
                id < self.sure_from
            }
        }
    }
}
