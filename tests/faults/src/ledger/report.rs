//! What a ledger says when it is closed.

use std::fmt;

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
}

impl Duplicates {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { published_again, delivered_again, returned, unexplained } = self;
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
    /// Copies published because of it, and how many that can be.
    pub published_again: (u64, u64),
    /// Deliveries repeated because of it, and how many that can be.
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
        for FaultReport { name, at_message, published_again, delivered_again, healed, .. } in
            &self.faults
        {
            let mut bound = |(count, bound): (u64, u64), what: &str| {
                if count > bound {
                    failures.push(format!(
                        "{count} {what} by {name} at message {at_message}, and it can be {bound}"
                    ));
                }
            };
            bound(*published_again, "published again");
            bound(*delivered_again, "delivered again");
            if !healed {
                failures.push(format!("{name} at message {at_message} never healed"));
            }
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
    report.faults = book.faults.iter().map(|fault| of_fault(fault, capacity)).collect();
    for message in &book.messages {
        count(message, &mut report);
        attribute(message, &book.faults, &mut report);
    }
    report
}

fn of_fault(fault: &Fault, capacity: Capacity) -> FaultReport {
    FaultReport {
        name: fault.name.clone(),
        at_message: fault.at_message,
        outstanding: fault.outstanding,
        in_flight: fault.in_flight,
        published_again: (0, fault.peak_outstanding.min(capacity.outstanding)),
        // More than the program holds unsettled: an acknowledgement may be lost on its way.
        delivered_again: (0, capacity.in_flight),
        healed: fault.healed.is_some(),
    }
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

/// Finds a cause for each delivery beyond the first.
fn attribute(message: &Record, faults: &[Fault], report: &mut Report) {
    let mut deliveries = message.deliveries.iter();
    let Some(mut before) = deliveries.next() else { return };
    // A copy more for each unmarked delivery beyond the first.
    let answered = message.answered.map_or(u64::MAX, |(at, _)| at);
    for _ in 1..message.copies() {
        let cause = faults.iter().position(|fault| fault.meets(message.attempted, answered));
        match cause.and_then(|cause| report.faults.get_mut(cause)) {
            Some(fault) => {
                fault.published_again.0 += 1;
                report.duplicates.published_again += 1;
            }
            None => report.duplicates.unexplained += 1,
        }
    }
    let mut marked = message.deliveries.iter().filter(|it| it.arrival.redelivered).count() as u64;
    // The first copy's first delivery never reached a handler: this one is no repetition.
    if marked == message.deliveries.len() as u64 {
        marked -= 1;
    }
    for delivered in deliveries {
        if marked > 0 && delivered.arrival.redelivered {
            marked -= 1;
            let cause = faults.iter().rposition(|fault| fault.meets(before.at, delivered.at));
            if matches!(before.settled, Some((_, How::Returned))) {
                report.duplicates.returned += 1;
            } else if let Some(fault) = cause.and_then(|cause| report.faults.get_mut(cause)) {
                fault.delivered_again.0 += 1;
                report.duplicates.delivered_again += 1;
            } else {
                report.duplicates.unexplained += 1;
            }
        }
        before = delivered;
    }
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
        line("gone with their queue, as they may", self.perished)?;
        line("confirmed and lost", self.lost)?;
        line("false Ok", self.false_ok)?;
        line("false failure", self.false_failure)?;
        line("unexpected", self.unexpected)?;
        line("out of order", self.order_violations)?;
        line("without an outcome", self.unanswered)
    }
}
