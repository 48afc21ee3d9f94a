//! What became of every message, in the manner of Jepsen's `total-queue`, and whether that may be.

mod record;
mod report;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use enoki::transport::Purpose;
use tokio::time::Instant;

use self::record::{Delivered, Fault, Forgot, OrderedPath, Record, Settled};
pub use self::{
    record::{Answer, Arrival, Expect, How},
    report::{Duplicates, FaultReport, Late, Report},
};

/// How much may be under way at the same time: what a fault can duplicate at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Messages without an outcome: the windows of all publishers.
    pub outstanding: u64,
    /// Deliveries that the broker has no settlement of: the prefetches of all consumers.
    pub in_flight: u64,
    /// Whether the broker may keep what a dead connection holds until it misses it, so that this comes
    /// late.
    pub may_hold_up: bool,
}

/// Every message from its first try to its last settlement.
///
/// A publisher calls [`attempted`](Self::attempted) before and [`answered`](Self::answered) after it
/// publishes; a handler calls [`delivered`](Self::delivered) and [`settled`](Self::settled); a fault
/// calls [`broken`](Self::broken) before and [`healed`](Self::healed) after.
/// [`report`](Self::report) then says what is wrong.
#[derive(Debug)]
pub struct Ledger {
    capacity: Capacity,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// Counts events: the order of things, without a clock.
    now: u64,
    messages: Vec<Record>,
    paths: Vec<OrderedPath>,
    faults: Vec<Fault>,
    outstanding: u64,
    in_flight: u64,
    /// Deliveries of messages that were never published.
    unexpected: u64,
}

/// A message in a ledger: its number, which also says where in the run it is.
pub type Number = u64;

/// A path that keeps the order of its messages: one publisher, one queue, one handler at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ordered(usize);

/// One delivery of a message, to be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryOf {
    number: Number,
    at: Option<usize>,
}

impl DeliveryOf {
    /// Whether it is the first of its message.
    pub fn is_first(self) -> bool {
        self.at == Some(0)
    }
}

/// A fault in a ledger, to be healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultAt(usize);

impl Ledger {
    /// An empty ledger.
    pub fn new(capacity: Capacity) -> Self {
        Self { capacity, book: Mutex::default() }
    }

    /// Adds a path that has to keep its order.
    pub fn ordered(&self) -> Ordered {
        let mut book = self.book();
        book.paths.push(OrderedPath::default());
        Ordered(book.paths.len() - 1)
    }

    /// A message is about to be published: gives it its number.
    pub fn attempted(&self, expect: Expect) -> Number {
        self.attempt(expect, None)
    }

    /// Like [`attempted`](Self::attempted), on a path that has to keep its order.
    pub fn attempted_in(&self, path: Ordered, expect: Expect) -> Number {
        self.attempt(expect, Some(path.0))
    }

    fn attempt(&self, expect: Expect, path: Option<usize>) -> Number {
        let mut book = self.book();
        let attempted = book.tick();
        book.messages.push(Record { expect, path, attempted, ..Record::default() });
        book.outstanding += 1;
        book.note_peaks();
        book.messages.len() as Number - 1
    }

    /// The outcome of a message is known.
    pub fn answered(&self, number: Number, answer: Answer) {
        let mut book = self.book();
        let now = book.tick();
        if let Some(message) = book.message(number)
            && message.answered.replace((now, answer)).is_none()
        {
            book.outstanding = book.outstanding.saturating_sub(1);
        }
    }

    /// A message has reached a handler.
    pub fn delivered(&self, number: Number, arrival: Arrival) -> DeliveryOf {
        let mut book = self.book();
        let now = book.tick();
        let Some(message) = book.message(number) else {
            book.unexpected += 1;
            return DeliveryOf { number, at: None };
        };
        message.deliveries.push(Delivered { at: now, arrival, settled: None });
        let (count, path) = (message.deliveries.len(), message.path);
        book.in_flight += 1;
        if let (1, Some(path)) = (count, path)
            && let Some(path) = book.paths.get_mut(path)
            && let Some(later) = path.overtaken_by(number)
            && let Some(message) = book.message(number)
        {
            message.came_late = Some((now, later));
        }
        book.note_peaks();
        DeliveryOf { number, at: Some(count - 1) }
    }

    /// A handler has settled a delivery.
    pub fn settled(&self, delivery: DeliveryOf, how: How) {
        let mut book = self.book();
        let at = book.tick();
        let settled = Settled { at, time: Instant::now(), how };
        if let Some(message) = book.message(delivery.number)
            && let Some(delivered) = delivery.at.and_then(|at| message.deliveries.get_mut(at))
            && delivered.settled.replace(settled).is_none()
        {
            book.in_flight = book.in_flight.saturating_sub(1);
        }
    }

    /// A message has been found among the dead letters.
    pub fn dead_lettered(&self, number: Number) {
        let mut book = self.book();
        match book.message(number) {
            Some(message) => message.dead_lettered += 1,
            None => book.unexpected += 1,
        }
    }

    /// Something is about to be broken.
    pub fn broken(&self, fault: impl Into<String>) -> FaultAt {
        let mut book = self.book();
        let (began, messages) = (book.tick(), book.messages.len() as u64);
        let fault = Fault {
            name: fault.into(),
            at_message: messages,
            began,
            forgot: None,
            healed: None,
            outstanding: book.outstanding,
            in_flight: book.in_flight,
            lost: (0, 0),
            peak_outstanding: book.outstanding,
        };
        book.faults.push(fault);
        FaultAt(book.faults.len() - 1)
    }

    /// The broker is dead, and has forgotten what it had not yet written down: of what was
    /// acknowledged `within` this time before now, anything may come back.
    pub fn killed(&self, fault: FaultAt, within: Duration) {
        let mut book = self.book();
        let at = book.tick();
        if let Some(fault) = book.faults.get_mut(fault.0) {
            fault.forgot.get_or_insert(Forgot { at, time: Instant::now(), within });
        }
    }

    /// A connection was lost, to the latest fault. Each that is lost may repeat as much as one.
    pub fn lost(&self, purpose: Purpose) {
        if let Some(fault) = self.book().faults.last_mut() {
            match purpose {
                Purpose::Publish => fault.lost.0 += 1,
                Purpose::Consume => fault.lost.1 += 1,
            }
        }
    }

    /// What was broken works again: messages get through.
    pub fn healed(&self, fault: FaultAt) {
        let mut book = self.book();
        let now = book.tick();
        if let Some(fault) = book.faults.get_mut(fault.0) {
            fault.healed.get_or_insert(now);
        }
    }

    /// How many messages have been tried.
    pub fn attempts(&self) -> u64 {
        self.book().messages.len() as u64
    }

    /// How many messages have no outcome yet.
    pub fn outstanding(&self) -> u64 {
        self.book().outstanding
    }

    /// How many deliveries are not settled yet.
    pub fn in_flight(&self) -> u64 {
        self.book().in_flight
    }

    /// The messages that were confirmed and have reached no handler, at most so many of them.
    pub fn missing(&self, at_most: usize) -> Vec<Number> {
        let book = self.book();
        let missing = (0..).zip(&book.messages).filter(|(_, message)| message.is_missing());
        missing.map(|(number, _)| number).take(at_most).collect()
    }

    /// What the ledger says, now.
    pub fn report(&self) -> Report {
        report::report(&self.book(), self.capacity)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn message(&mut self, number: Number) -> Option<&mut Record> {
        self.messages.get_mut(usize::try_from(number).ok()?)
    }

    fn note_peaks(&mut self) {
        let outstanding = self.outstanding;
        for fault in self.faults.iter_mut().rev().take_while(|fault| fault.healed.is_none()) {
            fault.peak_outstanding = fault.peak_outstanding.max(outstanding);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const FIRST: Arrival = Arrival { redelivered: false, attempt: 1 };
    const AGAIN: Arrival = Arrival { redelivered: true, attempt: 2 };

    fn ledger() -> Ledger {
        Ledger::new(Capacity { outstanding: 256, in_flight: 2, may_hold_up: true })
    }

    fn publish(ledger: &Ledger) -> Number {
        let number = ledger.attempted(Expect::Handled);
        ledger.answered(number, Answer::Confirmed);
        number
    }

    fn handle(ledger: &Ledger, number: Number, arrival: Arrival) {
        ledger.settled(ledger.delivered(number, arrival), How::Acked);
    }

    #[test]
    fn nothing_is_wrong_when_everything_arrives_once() {
        let ledger = ledger();
        for _ in 0..10 {
            let number = publish(&ledger);
            handle(&ledger, number, FIRST);
        }
        let report = ledger.report();
        assert_eq!((report.attempted, report.confirmed, report.handled), (10, 10, 10));
        assert_eq!(report.failures(), Vec::<String>::new());
        assert_eq!((ledger.outstanding(), ledger.in_flight()), (0, 0));
    }

    #[test]
    fn a_confirmed_message_that_no_handler_gets_is_lost() {
        let ledger = ledger();
        let lost = publish(&ledger);
        let kept = publish(&ledger);
        handle(&ledger, kept, FIRST);
        assert_eq!(ledger.report().lost, 1);
        assert_eq!(ledger.missing(10), vec![lost]);
        assert_eq!(ledger.report().failures(), vec!["1 confirmed and lost"]);
    }

    #[test]
    fn a_dead_letter_is_not_lost() {
        let ledger = ledger();
        let number = publish(&ledger);
        ledger.dead_lettered(number);
        assert_eq!(ledger.report().failures(), Vec::<String>::new());
    }

    #[test]
    fn what_may_go_with_its_queue_is_not_lost() {
        let ledger = ledger();
        let number = ledger.attempted(Expect::Perishable);
        ledger.answered(number, Answer::Confirmed);
        let report = ledger.report();
        assert_eq!((report.lost, report.perished), (0, 1));
    }

    #[test]
    fn a_confirm_of_what_cannot_be_stored_is_a_false_ok() {
        let ledger = ledger();
        for expect in [Expect::Unroutable, Expect::Refused] {
            let number = ledger.attempted(expect);
            ledger.answered(number, Answer::Confirmed);
        }
        assert_eq!(ledger.report().false_ok, 2);
        assert!(!ledger.report().failures().is_empty());
    }

    #[test]
    fn a_failure_of_what_arrives_is_a_false_failure() {
        for answer in [Answer::Unroutable, Answer::Refused, Answer::NotSent] {
            let ledger = ledger();
            let number = ledger.attempted(Expect::Handled);
            ledger.answered(number, answer);
            handle(&ledger, number, FIRST);
            assert_eq!(ledger.report().false_failure, 1, "{answer:?}");
        }
        let ledger = ledger();
        let number = ledger.attempted(Expect::Handled);
        ledger.answered(number, Answer::Indeterminate);
        handle(&ledger, number, FIRST);
        assert_eq!((ledger.report().false_failure, ledger.report().recovered), (0, 1));
    }

    #[test]
    fn a_message_without_an_outcome_is_a_failure() {
        let ledger = ledger();
        ledger.attempted(Expect::Handled);
        assert_eq!(ledger.report().failures(), vec!["1 without an outcome"]);
    }

    #[test]
    fn a_message_that_was_never_published_is_unexpected() {
        let ledger = ledger();
        handle(&ledger, 7, FIRST);
        ledger.dead_lettered(8);
        assert_eq!(ledger.report().unexpected, 2);
    }

    #[test]
    fn a_duplicate_without_a_fault_is_unexplained() {
        for arrival in [FIRST, AGAIN] {
            let ledger = ledger();
            let number = publish(&ledger);
            handle(&ledger, number, FIRST);
            handle(&ledger, number, arrival);
            assert_eq!(ledger.report().duplicates.unexplained, 1, "{arrival:?}");
        }
    }

    #[test]
    fn a_second_copy_is_explained_by_a_fault_while_it_was_published() {
        let ledger = ledger();
        let number = ledger.attempted(Expect::Handled);
        let fault = ledger.broken("reset");
        ledger.answered(number, Answer::Confirmed);
        ledger.healed(fault);
        handle(&ledger, number, FIRST);
        handle(&ledger, number, FIRST);
        let report = ledger.report();
        assert_eq!(report.duplicates.published_again, 1);
        assert_eq!(report.duplicates.total(), 1);
        assert_eq!(report.faults[0].published_again, (1, 1));
        assert_eq!(report.failures(), Vec::<String>::new());
    }

    #[test]
    fn a_second_copy_is_not_explained_by_a_fault_before_or_after() {
        let ledger = ledger();
        let before = ledger.broken("reset");
        ledger.healed(before);
        let number = publish(&ledger);
        let after = ledger.broken("reset");
        ledger.healed(after);
        handle(&ledger, number, FIRST);
        handle(&ledger, number, FIRST);
        assert_eq!(ledger.report().duplicates.unexplained, 1);
    }

    #[test]
    fn a_redelivery_is_explained_by_a_fault_since_the_delivery() {
        let ledger = ledger();
        let number = publish(&ledger);
        let delivery = ledger.delivered(number, FIRST);
        let fault = ledger.broken("reset");
        ledger.settled(delivery, How::Lost);
        handle(&ledger, number, AGAIN);
        ledger.healed(fault);
        let report = ledger.report();
        assert_eq!(report.duplicates.delivered_again, 1);
        assert_eq!(report.faults[0].delivered_again, (1, 2));
        assert_eq!(report.faults[0].in_flight, 1);
        assert_eq!(report.failures(), Vec::<String>::new());
    }

    #[test]
    fn a_redelivery_that_its_handler_asked_for_is_no_fault_s() {
        let ledger = ledger();
        let number = publish(&ledger);
        let fault = ledger.broken("reset");
        ledger.settled(ledger.delivered(number, FIRST), How::Returned);
        handle(&ledger, number, AGAIN);
        ledger.healed(fault);
        let duplicates = ledger.report().duplicates;
        assert_eq!((duplicates.returned, duplicates.total()), (1, 1));
    }

    #[test]
    fn a_first_delivery_that_is_marked_is_no_duplicate() {
        let ledger = ledger();
        let number = publish(&ledger);
        handle(&ledger, number, AGAIN);
        assert_eq!(ledger.report().duplicates.total(), 0);
    }

    #[test]
    fn more_duplicates_than_were_under_way_are_a_failure() {
        let ledger = ledger();
        let numbers: Vec<_> = (0..3).map(|_| publish(&ledger)).collect();
        for number in &numbers {
            let _ = ledger.delivered(*number, FIRST);
        }
        let fault = ledger.broken("reset");
        for number in numbers {
            handle(&ledger, number, AGAIN);
        }
        ledger.healed(fault);
        assert_eq!(ledger.report().faults[0].delivered_again, (2, 2));
        let failures = ledger.report().failures();
        assert_eq!(failures, vec!["1 delivered again beyond what the faults can have caused"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_killed_broker_may_forget_what_was_acknowledged_just_before_and_nothing_older() {
        let ledger = ledger();
        let numbers: Vec<_> = (0..6).map(|_| publish(&ledger)).collect();
        for number in &numbers {
            handle(&ledger, *number, FIRST);
            sleep(Duration::from_secs(1)).await;
        }
        let fault = ledger.broken("broker killed");
        ledger.killed(fault, Duration::from_millis(4500));
        for number in &numbers {
            handle(&ledger, *number, AGAIN);
        }
        ledger.healed(fault);
        let report = ledger.report();
        // Four, and not against the bound of what was in flight, which is two.
        assert_eq!((report.duplicates.forgotten, report.duplicates.unexplained), (4, 2));
        assert_eq!(report.faults[0].forgotten, (4, 4));
        assert_eq!(report.faults[0].oldest_forgotten, Some(Duration::from_secs(4)));
        assert_eq!(report.faults[0].delivered_again, (0, 2));
        assert_eq!(report.failures(), vec!["2 delivered again for no reason"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_acknowledged_to_a_dead_broker_is_not_what_it_forgot() {
        let ledger = ledger();
        let numbers: Vec<_> = (0..3).map(|_| publish(&ledger)).collect();
        let deliveries: Vec<_> =
            numbers.iter().map(|number| ledger.delivered(*number, FIRST)).collect();
        let fault = ledger.broken("broker killed");
        ledger.killed(fault, Duration::from_secs(1));
        for delivery in deliveries {
            ledger.settled(delivery, How::Acked);
        }
        for number in numbers {
            handle(&ledger, number, AGAIN);
        }
        ledger.healed(fault);
        let report = ledger.report();
        assert_eq!(
            (report.faults[0].forgotten, report.faults[0].delivered_again),
            ((0, 0), (2, 2))
        );
        assert_eq!(report.duplicates.beyond_bounds, 1);
    }

    #[test]
    fn each_connection_that_a_fault_costs_may_repeat_as_much_as_one() {
        let ledger = ledger();
        let numbers: Vec<_> = (0..5).map(|_| publish(&ledger)).collect();
        for number in &numbers {
            let _ = ledger.delivered(*number, FIRST);
        }
        let fault = ledger.broken("reset, and again");
        ledger.lost(Purpose::Consume);
        ledger.lost(Purpose::Consume);
        for number in numbers {
            handle(&ledger, number, AGAIN);
        }
        ledger.healed(fault);
        let report = ledger.report();
        assert_eq!(
            (report.faults[0].delivered_again, report.duplicates.beyond_bounds),
            ((4, 4), 1)
        );
    }

    #[test]
    fn only_what_a_fault_can_have_held_up_may_come_late() {
        for (breaks, mark, late, violations) in
            [(true, AGAIN, 1, 0), (true, FIRST, 0, 1), (false, AGAIN, 0, 1), (false, FIRST, 0, 1)]
        {
            let ledger = ledger();
            let path = ledger.ordered();
            let numbers: Vec<_> =
                (0..2).map(|_| ledger.attempted_in(path, Expect::Handled)).collect();
            if breaks {
                let fault = ledger.broken("partition");
                ledger.healed(fault);
            }
            let _ = ledger.delivered(numbers[1], FIRST);
            let _ = ledger.delivered(numbers[0], mark);
            let report = ledger.report();
            assert_eq!(
                (report.held_up, report.order_violations),
                (late, violations),
                "{breaks} {mark:?}"
            );
        }
    }

    #[test]
    fn nothing_may_come_late_where_the_broker_misses_a_connection_at_once() {
        for (may_hold_up, late) in [(true, (1, 0)), (false, (0, 1))] {
            let ledger = Ledger::new(Capacity { outstanding: 256, in_flight: 2, may_hold_up });
            let path = ledger.ordered();
            let numbers = [(); 2].map(|()| ledger.attempted_in(path, Expect::Handled));
            let fault = ledger.broken("partition");
            ledger.healed(fault);
            let _ = ledger.delivered(numbers[1], FIRST);
            let _ = ledger.delivered(numbers[0], AGAIN);
            let report = ledger.report();
            assert_eq!((report.held_up, report.order_violations), late);
        }
    }

    #[test]
    fn a_fault_that_never_heals_is_a_failure() {
        let ledger = ledger();
        ledger.broken("reset");
        assert_eq!(ledger.report().failures(), vec!["reset at message 0 never healed"]);
    }

    #[test]
    fn first_deliveries_out_of_order_are_counted_where_order_was_promised() {
        let ledger = ledger();
        let path = ledger.ordered();
        let numbers: Vec<_> = (0..4).map(|_| ledger.attempted_in(path, Expect::Handled)).collect();
        for at in [0, 2, 1, 3, 0] {
            let _ = ledger.delivered(numbers[at], FIRST);
        }
        assert_eq!(ledger.report().order_violations, 1);
        // Elsewhere any order will do.
        let (first, second) = (publish(&ledger), publish(&ledger));
        handle(&ledger, second, FIRST);
        handle(&ledger, first, FIRST);
        assert_eq!(ledger.report().order_violations, 1);
    }
}
