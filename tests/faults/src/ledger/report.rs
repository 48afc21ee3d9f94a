//! What a ledger says when it is closed.

use std::{cmp::Reverse, collections::BinaryHeap, fmt};

use super::{
    Book, Capacity,
    record::{Answer, Expect, Fault, How, Record},
};

/// What a ledger says: numbers of messages, unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Somebody tried to publish it.
    pub attempted: u64,
    /// The publisher was told that it is stored.
    pub confirmed: u64,
    /// The publisher was told that no queue is bound for it.
    pub unroutable: u64,
    /// The publisher was told that it was refused.
    pub refused: u64,
    /// The publisher was told that it was never sent.
    pub not_sent: u64,
    /// The publisher was told that nobody knows.
    pub indeterminate: u64,
    /// The publisher was told nothing.
    pub unanswered: u64,
    /// It has reached a handler.
    pub handled: u64,
    /// All deliveries.
    pub deliveries: u64,
    /// Deliveries that were not settled.
    pub unsettled: u64,
    /// Nobody knew whether it was stored, and it has reached a handler.
    pub recovered: u64,
    /// It went with its queue, as it was allowed to.
    pub perished: u64,
    /// Confirmed, and never seen again.
    pub lost: u64,
    /// Confirmed, and it could not have been.
    pub false_ok: u64,
    /// Said to be stored nowhere, and delivered.
    pub false_failure: u64,
    /// Deliveries of messages that nobody has published.
    pub unexpected: u64,
    /// First deliveries that came after that of a later message, where order was promised.
    pub order_violations: u64,
    /// Deliveries beyond the first, by cause.
    pub duplicates: Duplicates,
    /// The faults, in the order in which they came.
    pub faults: Vec<FaultReport>,
}

/// Deliveries beyond the first of each message, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Duplicates {
    /// It was published again, because a fault had left the outcome open.
    pub published_again: u64,
    /// It was delivered again, because a fault came before its settlement.
    pub delivered_again: u64,
    /// A handler had given it back.
    pub returned: u64,
    /// No fault and no handler explains it.
    pub unexplained: u64,
    /// Faults would explain it, but not so many: counted above, too.
    pub beyond_bounds: u64,
}

impl Duplicates {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { published_again, delivered_again, returned, unexplained, .. } = self;
        published_again + delivered_again + returned + unexplained
    }
}

/// One fault, and what it has duplicated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultReport {
    /// What it was.
    pub name: String,
    /// How many messages had been tried when it came.
    pub at_message: u64,
    /// Messages without an outcome when it came.
    pub outstanding: u64,
    /// Deliveries without a settlement when it came.
    pub in_flight: u64,
    /// Copies published because of it, and how many that can be: what was outstanding.
    pub published_again: (u64, u64),
    /// Deliveries repeated because of it, and how many that can be: what was in flight.
    pub delivered_again: (u64, u64),
    /// Whether it has healed.
    pub healed: bool,
}

impl Report {
    /// What must not be, in words; nothing if all is well.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |count: u64, what: &str| {
            if count > 0 {
                failures.push(format!("{count} {what}"));
            }
        };
        check(self.lost, "confirmed and lost");
        check(self.false_ok, "confirmed that could not be stored");
        check(self.false_failure, "said to be stored nowhere, and delivered");
        check(self.unexpected, "delivered that nobody has published");
        check(self.unanswered, "without an outcome");
        check(self.order_violations, "delivered out of order");
        check(self.duplicates.unexplained, "delivered again for no reason");
        check(
            self.duplicates.beyond_bounds,
            "delivered again beyond what the faults can have caused",
        );
        for fault in self.faults.iter().filter(|fault| !fault.healed) {
            failures.push(format!("{} at message {} never healed", fault.name, fault.at_message));
        }
        failures
    }
}

pub(super) fn report(book: &Book, capacity: Capacity) -> Report {
    let mut report = Report {
        attempted: book.messages.len() as u64,
        unexpected: book.unexpected,
        order_violations: book.order_violations,
        ..Report::default()
    };
    let mut causes = Causes::default();
    for message in &book.messages {
        count(message, &mut report);
        causes.look_for(message, &book.faults, &mut report.duplicates);
    }
    let bounds = |of: fn(&Fault, Capacity) -> u64| {
        book.faults.iter().map(move |fault| of(fault, capacity)).collect::<Vec<_>>()
    };
    let published = bounds(|fault, capacity| fault.peak_outstanding.min(capacity.outstanding));
    // More than the program holds unsettled: an acknowledgement may be lost on its way.
    let delivered = bounds(|_, capacity| capacity.in_flight);
    let (published_again, beyond) = share_out(causes.published_again, &published);
    report.duplicates.beyond_bounds += beyond;
    let (delivered_again, beyond) = share_out(causes.delivered_again, &delivered);
    report.duplicates.beyond_bounds += beyond;
    let shares = published_again.into_iter().zip(published);
    let shares = shares.zip(delivered_again.into_iter().zip(delivered));
    let of_fault = |(fault, (published_again, delivered_again)): (&Fault, _)| FaultReport {
        name: fault.name.clone(),
        at_message: fault.at_message,
        outstanding: fault.outstanding,
        in_flight: fault.in_flight,
        published_again,
        delivered_again,
        healed: fault.healed.is_some(),
    };
    report.faults = book.faults.iter().zip(shares).map(of_fault).collect();
    report
}

/// Duplicates, each with the first and the last fault that may have caused it.
#[derive(Default)]
struct Causes {
    published_again: Vec<(usize, usize)>,
    delivered_again: Vec<(usize, usize)>,
}

/// Shares duplicates out among the faults that may have caused them, to none more than its bound;
/// says what each fault got, and how many found no fault with room.
///
/// Going through the faults in order and taking first those that no later fault can explain finds
/// room for as many as any way would.
fn share_out(mut causes: Vec<(usize, usize)>, bounds: &[u64]) -> (Vec<u64>, u64) {
    causes.sort_unstable();
    let mut waiting = causes.into_iter().peekable();
    let mut open = BinaryHeap::new();
    let mut beyond = 0;
    let mut shares = Vec::with_capacity(bounds.len());
    for (fault, bound) in bounds.iter().enumerate() {
        while let Some((_, last)) = waiting.next_if(|(first, _)| *first <= fault) {
            open.push(Reverse(last));
        }
        let mut share = 0;
        while share < *bound && open.pop().is_some() {
            share += 1;
        }
        while open.peek().is_some_and(|Reverse(last)| *last <= fault) {
            open.pop();
            beyond += 1;
        }
        shares.push(share);
    }
    (shares, beyond)
}

fn count(message: &Record, report: &mut Report) {
    let answer = message.answered.map(|(_, answer)| answer);
    let is_handled = !message.deliveries.is_empty() || message.dead_lettered > 0;
    *match answer {
        Some(Answer::Confirmed) => &mut report.confirmed,
        Some(Answer::Unroutable) => &mut report.unroutable,
        Some(Answer::Refused) => &mut report.refused,
        Some(Answer::NotSent) => &mut report.not_sent,
        Some(Answer::Indeterminate) => &mut report.indeterminate,
        None => &mut report.unanswered,
    } += 1;
    report.handled += u64::from(is_handled);
    report.deliveries += message.deliveries.len() as u64;
    let unsettled = |delivered: &&super::Delivered| delivered.settled.is_none();
    report.unsettled += message.deliveries.iter().filter(unsettled).count() as u64;
    report.lost += u64::from(message.is_missing());
    let is_confirmed = message.is_confirmed();
    let could_not_be = matches!(message.expect, Expect::Unroutable | Expect::Refused);
    report.false_ok += u64::from(is_confirmed && could_not_be);
    report.perished +=
        u64::from(is_confirmed && message.expect == Expect::Perishable && !is_handled);
    report.false_failure += u64::from(answer.is_some_and(Answer::is_stored_nowhere) && is_handled);
    report.recovered += u64::from(answer == Some(Answer::Indeterminate) && is_handled);
}

impl Causes {
    /// Looks for what may have caused each delivery beyond the first.
    fn look_for(&mut self, message: &Record, faults: &[Fault], duplicates: &mut Duplicates) {
        let mut deliveries = message.deliveries.iter();
        let Some(mut before) = deliveries.next() else { return };
        // A copy more for each unmarked delivery beyond the first.
        let answered = message.answered.map_or(u64::MAX, |(at, _)| at);
        for _ in 1..message.copies() {
            match between(faults, message.attempted, answered) {
                Some(cause) => {
                    self.published_again.push(cause);
                    duplicates.published_again += 1;
                }
                None => duplicates.unexplained += 1,
            }
        }
        let mut marked =
            message.deliveries.iter().filter(|it| it.arrival.redelivered).count() as u64;
        // The first copy's first delivery never reached a handler: this one is no repetition.
        if marked == message.deliveries.len() as u64 {
            marked -= 1;
        }
        for delivered in deliveries {
            if marked > 0 && delivered.arrival.redelivered {
                marked -= 1;
                if matches!(before.settled, Some((_, How::Returned))) {
                    duplicates.returned += 1;
                } else if let Some(cause) = between(faults, before.at, delivered.at) {
                    self.delivered_again.push(cause);
                    duplicates.delivered_again += 1;
                } else {
                    duplicates.unexplained += 1;
                }
            }
            before = delivered;
        }
    }
}

/// The first and the last fault that may have hit something that went on from one event to the
/// other.
fn between(faults: &[Fault], from: u64, to: u64) -> Option<(usize, usize)> {
    let first = faults.iter().position(|fault| fault.meets(from, to))?;
    let last = faults.iter().rposition(|fault| fault.meets(from, to))?;
    Some((first, last))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, count: u64| writeln!(f, "  {name:<44} {count:>9}");
        line("attempted", self.attempted)?;
        line("confirmed", self.confirmed)?;
        line("unroutable", self.unroutable)?;
        line("refused", self.refused)?;
        line("not sent", self.not_sent)?;
        line("indeterminate", self.indeterminate)?;
        line("  of these handled all the same", self.recovered)?;
        line("handled", self.handled)?;
        line("deliveries", self.deliveries)?;
        line("duplicates: published again after a fault", self.duplicates.published_again)?;
        line("duplicates: delivered again after a fault", self.duplicates.delivered_again)?;
        line("duplicates: given back by a handler", self.duplicates.returned)?;
        line("duplicates: unexplained", self.duplicates.unexplained)?;
        line("duplicates: more than the faults explain", self.duplicates.beyond_bounds)?;
        line("gone with their queue, as they may", self.perished)?;
        line("confirmed and lost", self.lost)?;
        line("false Ok", self.false_ok)?;
        line("false failure", self.false_failure)?;
        line("unexpected", self.unexpected)?;
        line("out of order", self.order_violations)?;
        line("without an outcome", self.unanswered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_gets_no_more_than_its_bound_and_none_is_beyond_while_there_is_room() {
        assert_eq!(share_out(vec![(0, 0), (0, 1), (0, 1)], &[2, 1]), (vec![2, 1], 0));
        assert_eq!(share_out(vec![(0, 1), (0, 1), (0, 0)], &[1, 2]), (vec![1, 2], 0));
        assert_eq!(share_out(vec![(0, 0), (0, 0), (1, 1)], &[1, 5]), (vec![1, 1], 1));
        assert_eq!(share_out(vec![(0, 2); 4], &[1, 1, 1]), (vec![1, 1, 1], 1));
        assert_eq!(share_out(vec![], &[1]), (vec![0], 0));
    }
}
