//! What a ledger says when it is closed.

use std::{cmp::Reverse, collections::BinaryHeap, fmt, time::Duration};

use super::{
    Book, Capacity, Number,
    record::{Answer, Delivered, Expect, Fault, How, Record},
};

/// What a ledger says: numbers of messages, unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// A publisher tried to publish it.
    pub attempted: u64,
    /// The publisher was told that it is stored.
    pub confirmed: u64,
    /// The publisher was told that no queue is bound for it.
    pub unroutable: u64,
    /// The publisher was told that it was refused.
    pub refused: u64,
    /// The publisher was told that it was never sent.
    pub not_sent: u64,
    /// The publisher was told that it is not known.
    pub indeterminate: u64,
    /// The publisher was told nothing.
    pub unanswered: u64,
    /// It has reached a handler.
    pub handled: u64,
    /// All deliveries.
    pub deliveries: u64,
    /// Deliveries that were not settled.
    pub unsettled: u64,
    /// The publisher could not know whether it was stored, and it has reached a handler.
    pub recovered: u64,
    /// It went with its queue, as it was allowed to.
    pub perished: u64,
    /// Confirmed, and never seen again.
    pub lost: u64,
    /// Confirmed, and it could not have been.
    pub false_ok: u64,
    /// Said to be stored nowhere, and delivered.
    pub false_failure: u64,
    /// Deliveries of messages that were never published.
    pub unexpected: u64,
    /// First deliveries that came after that of a later message, where order was promised.
    pub order_violations: u64,
    /// First handled after a later message of its path, but not first delivered: a connection that a
    /// fault had ended held it when the later one was delivered.
    pub held_up: u64,
    /// Each of both.
    pub late: Vec<Late>,
    /// Deliveries beyond the first, by cause.
    pub duplicates: Duplicates,
    /// The faults, in the order in which they came.
    pub faults: Vec<FaultReport>,
}

/// A message that first came after a later one of its path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Late {
    /// Which it is.
    pub number: Number,
    /// The latest that came before it.
    pub after: Number,
    /// Whether it was marked as one that may have been delivered before.
    pub is_marked: bool,
    /// The first and the last fault that it may be due to, if any.
    pub faults: Option<(usize, usize)>,
}

/// Deliveries beyond the first of each message, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Duplicates {
    /// It was published again, because a fault had left the outcome open.
    pub published_again: u64,
    /// It was delivered again, because a fault came before its settlement.
    pub delivered_again: u64,
    /// It was delivered again, because a broker was killed that had taken its acknowledgement and not
    /// yet written it down.
    pub forgotten: u64,
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
        let Self { published_again, delivered_again, forgotten, returned, unexplained, .. } = self;
        published_again + delivered_again + forgotten + returned + unexplained
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
    /// Copies published because of it, and how many that can be: what was outstanding, for each
    /// connection lost.
    pub published_again: (u64, u64),
    /// Deliveries repeated because of it, and how many that can be: what was in flight, for each
    /// connection lost.
    pub delivered_again: (u64, u64),
    /// Deliveries repeated because a killed broker had forgotten their acknowledgements, and how many
    /// that can be: what was acknowledged within the time that it may forget.
    pub forgotten: (u64, u64),
    /// How long before the broker's death the oldest of them was acknowledged.
    pub oldest_forgotten: Option<Duration>,
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
        check(self.unexpected, "delivered that were never published");
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
        ..Report::default()
    };
    let mut causes = Causes::default();
    for (number, message) in (0..).zip(&book.messages) {
        count(message, &mut report);
        causes.look_for(message, &book.faults, &mut report.duplicates);
        let faults = if capacity.may_hold_up { &book.faults[..] } else { &[] };
        report.late.extend(causes.look_for_delay(number, message, faults));
    }
    let bounds = |of: fn(&Fault, Capacity) -> u64| {
        book.faults.iter().map(move |fault| of(fault, capacity)).collect::<Vec<_>>()
    };
    let published = bounds(|fault, capacity| {
        fault.peak_outstanding.min(capacity.outstanding) * fault.lost.0.max(1)
    });
    // More than the program holds unsettled: an acknowledgement may be lost on its way.
    let delivered = bounds(|fault, capacity| capacity.in_flight * fault.lost.1.max(1));
    let (published_again, beyond) = share_out(causes.published_again, &published);
    report.duplicates.beyond_bounds += beyond;
    report.held_up = causes.held_up.len() as u64;
    report.order_violations = report.late.len() as u64 - report.held_up;
    let (_, beyond) = share_out(causes.held_up, &delivered);
    report.order_violations += beyond;
    let (delivered_again, beyond) = share_out(causes.delivered_again, &delivered);
    report.duplicates.beyond_bounds += beyond;
    let acknowledged = |fault: &Fault| {
        let deliveries = book.messages.iter().flat_map(|message| &message.deliveries);
        deliveries.filter(|delivered| fault.may_have_forgotten(delivered).is_some()).count() as u64
    };
    let forgotten = |at: usize, fault| {
        let ages = causes.forgotten.iter().filter(|(fault, _)| *fault == at).map(|(_, age)| *age);
        ((ages.clone().count() as u64, acknowledged(fault)), ages.max())
    };
    let shares = published_again.into_iter().zip(published);
    let shares = shares.zip(delivered_again.into_iter().zip(delivered));
    for (at, (fault, (published_again, delivered_again))) in
        book.faults.iter().zip(shares).enumerate()
    {
        let (forgotten, oldest_forgotten) = forgotten(at, fault);
        report.duplicates.beyond_bounds += forgotten.0.saturating_sub(forgotten.1);
        report.faults.push(FaultReport {
            name: fault.name.clone(),
            at_message: fault.at_message,
            outstanding: fault.outstanding,
            in_flight: fault.in_flight,
            published_again,
            delivered_again,
            forgotten,
            oldest_forgotten,
            healed: fault.healed.is_some(),
        });
    }
    report
}

/// Duplicates, each with the first and the last fault that may have caused it.
#[derive(Default)]
struct Causes {
    published_again: Vec<(usize, usize)>,
    delivered_again: Vec<(usize, usize)>,
    held_up: Vec<(usize, usize)>,
    /// The fault itself, and how long before the broker's death the acknowledgement was.
    forgotten: Vec<(usize, Duration)>,
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
    let unsettled = |delivered: &&Delivered| delivered.settled.is_none();
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
    /// Looks for what may be why a message came late, if it did.
    fn look_for_delay(
        &mut self,
        number: Number,
        message: &Record,
        faults: &[Fault],
    ) -> Option<Late> {
        let (came, after) = message.came_late?;
        let is_marked = message.deliveries.first().is_some_and(|first| first.arrival.redelivered);
        let faults = between(faults, message.attempted, came).filter(|_| is_marked);
        self.held_up.extend(faults);
        Some(Late { number, after, is_marked, faults })
    }

    /// Looks for what may have caused each delivery beyond the first.
    fn look_for(&mut self, message: &Record, faults: &[Fault], duplicates: &mut Duplicates) {
        let mut deliveries = message.deliveries.iter();
        let Some(mut before) = deliveries.next() else { return };
        let answered = message.answered.map_or(u64::MAX, |(at, _)| at);
        for delivered in deliveries {
            let published = || between(faults, message.attempted, answered);
            let is_marked = delivered.arrival.redelivered;
            if is_marked && matches!(&before.settled, Some(settled) if settled.how == How::Returned)
            {
                duplicates.returned += 1;
            } else if let Some(cause) = forgotten(faults, before, delivered).filter(|_| is_marked) {
                self.forgotten.push(cause);
                duplicates.forgotten += 1;
            } else if let Some(cause) = redelivery(faults, before, delivered).filter(|_| is_marked)
            {
                self.delivered_again.push(cause);
                duplicates.delivered_again += 1;
            } else if let Some(cause) = published() {
                // One more copy: not marked, unless its own first delivery never reached a handler.
                self.published_again.push(cause);
                duplicates.published_again += 1;
            } else {
                duplicates.unexplained += 1;
            }
            before = delivered;
        }
    }
}

/// The fault that had the broker forget the acknowledgement of one delivery, so that the other came.
fn forgotten(faults: &[Fault], before: &Delivered, again: &Delivered) -> Option<(usize, Duration)> {
    faults.iter().enumerate().find_map(|(at, fault)| {
        let is_since = fault.forgot.as_ref().is_some_and(|forgot| forgot.at <= again.at);
        Some((at, fault.may_have_forgotten(before).filter(|_| is_since)?))
    })
}

/// The first and the last fault that may have hit something that went on from one event to the
/// other.
fn between(faults: &[Fault], from: u64, to: u64) -> Option<(usize, usize)> {
    first_and_last(faults, |fault| fault.meets(from, to))
}

/// The first and the last fault that may have had a delivery repeated.
fn redelivery(faults: &[Fault], before: &Delivered, again: &Delivered) -> Option<(usize, usize)> {
    first_and_last(faults, |fault| {
        fault.meets(before.at, again.at) && !fault.is_too_late_for(before)
    })
}

fn first_and_last(faults: &[Fault], is_one: impl Fn(&Fault) -> bool) -> Option<(usize, usize)> {
    Some((faults.iter().position(&is_one)?, faults.iter().rposition(&is_one)?))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, count: u64| writeln!(f, "  {name:<50} {count:>9}");
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
        line("duplicates: acknowledged, and forgotten in a kill", self.duplicates.forgotten)?;
        line("duplicates: given back by a handler", self.duplicates.returned)?;
        line("duplicates: unexplained", self.duplicates.unexplained)?;
        line("duplicates: more than the faults explain", self.duplicates.beyond_bounds)?;
        line("gone with their queue, as they may", self.perished)?;
        line("confirmed and lost", self.lost)?;
        line("false Ok", self.false_ok)?;
        line("false failure", self.false_failure)?;
        line("unexpected", self.unexpected)?;
        line("held up by a fault, in the hands of a connection", self.held_up)?;
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
