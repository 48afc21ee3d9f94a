//! What is done to single frames.

use tokio::sync::oneshot;

use super::{Cut, Direction, Kind};

/// What is done to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It passes, and the test that set the rule is told.
    Pass,
    /// It vanishes. Only for what is one frame: without its first frame, the rest of a message is a
    /// breach of the protocol.
    Drop,
    /// It vanishes, and everything after it in this direction of this connection does.
    DropRest,
    /// It passes, and no answer does from now on, in this connection.
    HoldAnswers,
    /// It waits, and everything after it in this direction of this connection does.
    Hold,
    /// It does not pass, and its connection is cut.
    Cut(Cut),
    /// Half of it passes, then its connection is cut.
    CutInside(Cut),
}

/// A rule that waits for its frame.
#[derive(Debug)]
pub(super) struct Waiting {
    direction: Direction,
    kind: Kind,
    left: u64,
    act: Act,
    fired: oneshot::Sender<()>,
}

/// A rule that was set; tells when it has come to something. Dropping it does not take the rule back.
#[derive(Debug)]
pub struct Armed {
    fired: oneshot::Receiver<()>,
}

impl Armed {
    /// Waits until the frame has come, and says whether it has: `false` if the rule was disarmed.
    pub async fn fired(self) -> bool {
        self.fired.await.is_ok()
    }
}

/// Cuts the connection that carries a certain byte.
#[derive(Debug)]
pub(super) struct AfterBytes {
    direction: Direction,
    left: u64,
    cut: Cut,
    fired: oneshot::Sender<()>,
}

pub(super) fn after_bytes(direction: Direction, bytes: u64, cut: Cut) -> (AfterBytes, Armed) {
    let (fired, fires) = oneshot::channel();
    (AfterBytes { direction, left: bytes, cut, fired }, Armed { fired: fires })
}

/// Counts bytes that are about to pass; says how many of them still may, and the cut that follows,
/// if one does.
pub(super) fn count(
    rules: &mut Vec<AfterBytes>,
    direction: Direction,
    bytes: usize,
) -> Option<(usize, Cut)> {
    let length = bytes as u64;
    let due = rules.iter().position(|rule| rule.direction == direction && rule.left < length);
    for rule in rules.iter_mut().filter(|rule| rule.direction == direction && rule.left >= length) {
        rule.left -= length;
    }
    let AfterBytes { left, cut, fired, .. } = rules.remove(due?);
    let _ = fired.send(());
    Some((usize::try_from(left).unwrap_or(bytes), cut))
}

pub(super) fn arm(direction: Direction, kind: Kind, nth: u64, act: Act) -> (Waiting, Armed) {
    let (fired, fires) = oneshot::channel();
    (Waiting { direction, kind, left: nth.max(1), act, fired }, Armed { fired: fires })
}

/// What the rules want done to this frame: the first that waits for it.
pub(super) fn judge(rules: &mut Vec<Waiting>, direction: Direction, kind: Kind) -> Option<Act> {
    let concerned = |rule: &&mut Waiting| (rule.direction, rule.kind) == (direction, kind);
    // Each counts the frame, also when another rule takes it.
    rules.iter_mut().filter(concerned).for_each(|rule| rule.left = rule.left.saturating_sub(1));
    let due = rules
        .iter()
        .position(|rule| (rule.direction, rule.kind, rule.left) == (direction, kind, 0))?;
    let rule = rules.remove(due);
    let _ = rule.fired.send(());
    Some(rule.act)
}
