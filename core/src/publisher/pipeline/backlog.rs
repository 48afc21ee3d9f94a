//! The messages of a pipeline that have no outcome yet, and what becomes of them.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    QueuedMessage, Window,
    in_flight::{InFlight, Pending},
    unrouted::Unrouted,
};
use crate::{
    connection::DeclaredByHand,
    deadline::deadline,
    error::{Error, ErrorKind, Result},
    transport::{Outgoing, PublishOutcome},
};

/// The messages of a pipeline that have no outcome yet: each is waiting, or due later, or with a sender.
pub(super) struct Backlog {
    in_flight: InFlight,
    /// Not with a sender: safe to give to the next one.
    waiting: VecDeque<Outgoing>,
    /// Refused, or without a queue, and to be sent again at that time.
    later: Vec<(Instant, u64)>,
    unrouted: Unrouted,
    window: Arc<Window>,
    /// Why messages wait: there is no sender, or the last one failed.
    trouble: Option<Error>,
}

impl Backlog {
    pub(super) fn new(window: Arc<Window>, by_hand: DeclaredByHand) -> Self {
        Self {
            in_flight: InFlight::default(),
            waiting: VecDeque::new(),
            later: Vec::new(),
            unrouted: Unrouted::new(by_hand),
            window,
            trouble: None,
        }
    }

    /// A sender was opened.
    pub(super) fn has_a_sender(&mut self) {
        self.unrouted.has_a_sender();
    }

    /// Whether every message has its outcome.
    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether there is something to send.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What a sender may take from, at the front.
    pub(super) fn waiting(&mut self) -> &mut VecDeque<Outgoing> {
        &mut self.waiting
    }

    /// A message was handed over. It waits for a sender.
    pub(super) fn add(&mut self, message: QueuedMessage) {
        let pending = Pending::new(message, Instant::now());
        let id = self.in_flight.next_id();
        self.waiting.push_back(pending.outgoing(id));
        self.in_flight.add(pending);
    }

    /// When the first of those that wait is too late.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        let deadlines = self.waiting.iter().map(|outgoing| self.in_flight.too_late(outgoing.id));
        deadlines.flatten().min()
    }

    /// Gives up what waited too long for a sender.
    pub(super) fn drop_overdue(&mut self) {
        let now = Instant::now();
        let in_flight = &self.in_flight;
        let in_time = |outgoing: &Outgoing| {
            in_flight.too_late(outgoing.id).is_some_and(|too_late| too_late > now)
        };
        if self.waiting.iter().all(in_time) {
            return;
        }
        let (waiting, overdue) =
            std::mem::take(&mut self.waiting).into_iter().partition::<VecDeque<_>, _>(in_time);
        self.waiting = waiting;
        for outgoing in overdue {
            let trouble = self.trouble.clone();
            self.settle(outgoing.id, |pending| {
                let why =
                    trouble.as_ref().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
                let error = match pending.sent {
                    0 => pending
                        .error(why_unsent(trouble.as_ref()))
                        .because(format!("the deadline passed before it was sent{why}")),
                    _ => pending.indeterminate(format!(
                        "the broker had not confirmed it by the deadline{why}"
                    )),
                };
                Err(match trouble {
                    Some(trouble) => error.caused_by(trouble),
                    None => error,
                })
            });
        }
    }

    pub(super) fn resolve(&mut self, outcomes: &mut Vec<(u64, PublishOutcome)>) {
        self.trouble = None;
        let mut freed = Freed { window: &self.window, messages: 0 };
        for (id, outcome) in outcomes.drain(..) {
            let Some(pending) = self.in_flight.take(id) else { continue };
            let retry = pending.message.retry;
            let may_pass = match &outcome {
                PublishOutcome::Confirmed => false,
                PublishOutcome::Unroutable => self.unrouted.may_pass(id, self.in_flight.next_id()),
                PublishOutcome::Rejected(error) => retry.is_passing(error),
            };
            if may_pass && retry.allows(pending.sent + 1) {
                let due = deadline(retry.delay(pending.sent + 1));
                if due < pending.too_late {
                    let id = self.in_flight.add(Pending { sent: pending.sent + 1, ..pending });
                    self.later.push((due, id));
                    continue;
                }
            }
            let result = match outcome {
                PublishOutcome::Confirmed => Ok(()),
                PublishOutcome::Unroutable => Err(pending
                    .error(ErrorKind::Unroutable)
                    .because("no queue is bound for it")
                    .remedy("declare the queue that should get it, or publish with `optional()`")),
                PublishOutcome::Rejected(error) => Err(error),
            };
            freed.messages += 1;
            pending.message.reply.send(result);
        }
    }

    /// When the next refused message is to be sent again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.later.iter().map(|(due, _)| *due).min()
    }

    /// Sends again what is due.
    pub(super) fn bring_back(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.later)
            .into_iter()
            .partition::<Vec<_>, _>(|(due, _)| *due <= now);
        self.later = later;
        for (_, id) in due {
            if let Some(pending) = self.in_flight.get(id) {
                self.waiting.push_back(pending.outgoing(id));
            }
        }
    }

    /// There is no sender, for this reason; messages wait for one.
    pub(super) fn wait_on(&mut self, reason: Error) {
        self.trouble = Some(reason);
    }

    /// The sender failed: what it took may or may not be stored. It is sent again, before what was
    /// not sent yet, or indeterminate.
    pub(super) fn interrupted(&mut self, reason: Error) {
        let elsewhere: HashSet<u64> = self
            .waiting
            .iter()
            .map(|outgoing| outgoing.id)
            .chain(self.later.iter().map(|(_, id)| *id))
            .collect();
        let taken: Vec<_> = self.in_flight.ids().filter(|id| !elsewhere.contains(id)).collect();
        let mut again = VecDeque::new();
        for id in taken {
            let Some(pending) = self.in_flight.get_mut(id) else { continue };
            pending.sent += 1;
            // Whatever does not pass would only happen again.
            if reason.is_transient() && pending.message.retry.allows(pending.sent) {
                again.push_back(pending.outgoing(id));
                continue;
            }
            self.settle(id, |pending| {
                Err(pending
                    .indeterminate(format!(
                        "the broker had not confirmed it when the channel ended ({reason})"
                    ))
                    .caused_by(reason.clone()))
            });
        }
        again.append(&mut self.waiting);
        self.waiting = again;
        self.trouble = Some(reason);
    }

    /// No sender can be opened.
    pub(super) fn fail_all(&mut self, reason: &Error) {
        for outgoing in std::mem::take(&mut self.waiting) {
            self.settle(outgoing.id, |pending| {
                Err(match pending.sent {
                    0 => reason.clone(),
                    _ => pending
                        .indeterminate(format!(
                            "the broker had not confirmed it when the connection broke, \
                             and there is no other ({reason})"
                        ))
                        .caused_by(reason.clone()),
                })
            });
        }
    }

    fn settle(&mut self, id: u64, result: impl FnOnce(&Pending) -> Result<()>) {
        if let Some(pending) = self.in_flight.take(id) {
            let freed = Freed { window: &self.window, messages: 1 };
            let result = result(&pending);
            pending.message.reply.send(result);
            drop(freed);
        }
    }
}

/// Room in the window that becomes free when this is dropped, whatever happens before.
struct Freed<'w> {
    window: &'w Window,
    messages: usize,
}

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        self.window.free(self.messages);
    }
}

/// The kind of error of a message that was never sent: that of a refusal that does not pass by
/// itself, where there is one.
fn why_unsent(trouble: Option<&Error>) -> ErrorKind {
    match trouble.map(Error::kind) {
        Some(
            kind @ (ErrorKind::Denied
            | ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Configuration
            | ErrorKind::Unsupported),
        ) => kind,
        _ => ErrorKind::Timeout,
    }
}
