//! The messages under way on one channel.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use enoki_core::{
    Error, ErrorKind, Result, ShortStr,
    transport::{Outgoing, PublishOutcome},
};
use lapin::{
    Channel, Confirmation, PublisherConfirm, message::BasicReturnMessage,
    options::BasicPublishOptions,
};
use tokio::time::timeout;

use super::{
    PUBLISH,
    attribution::{Answer, Attribution, Verdict},
    ready::Ready,
};
use crate::{
    error,
    headers::{properties_out, short},
    session::REPLY_TIMEOUT,
};

type Writing = Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send>>;

/// The messages under way on one channel, at most so many.
pub(super) struct Window {
    // Shared by the writes, since a clone of a lapin channel clones some fifteen others.
    channel: Arc<Channel>,
    size: usize,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Not yet on the wire, in the order of publishing, which is the order of writing.
    writing: VecDeque<usize>,
    /// How many wait for the broker's answer.
    confirming: usize,
    attribution: Attribution,
    ready: Arc<Ready>,
    woken: Vec<usize>,
    /// Exchanges that took a message of this sender: it is known that they were there.
    seen: Vec<ShortStr>,
    sent: u64,
    /// Whether its owner is gone.
    lingering: bool,
}

struct Slot {
    waker: Waker,
    /// The core's name for the message.
    id: u64,
    /// Its place in the order of publishing.
    number: u64,
    exchange: ShortStr,
    body: usize,
    stage: Stage,
}

enum Stage {
    /// Nothing, or a message that was answered and is not judged yet.
    Idle,
    /// Queued in lapin; its future tells when it has been written.
    Writing(Writing),
    Confirming(PublisherConfirm),
    /// The channel ended before the answer.
    Lost,
}

impl Window {
    pub(super) fn new(channel: Channel, size: usize) -> Self {
        Self {
            channel: Arc::new(channel),
            size,
            slots: Vec::new(),
            free: Vec::new(),
            writing: VecDeque::new(),
            confirming: 0,
            attribution: Attribution::default(),
            ready: Arc::default(),
            woken: Vec::new(),
            seen: Vec::new(),
            sent: 0,
            lingering: false,
        }
    }

    /// Whether the channel is open.
    pub(super) fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    /// Whether this message can be sent now. One whose id another has waits for that one's outcome:
    /// the broker returns messages by nothing else.
    pub(super) fn has_room_for(&self, outgoing: &Outgoing) -> bool {
        let used = self.slots.len() - self.free.len();
        used < self.size
            && !(outgoing.mandatory
                && outgoing
                    .message
                    .properties
                    .message_id
                    .as_ref()
                    .is_some_and(|id| self.attribution.has(id)))
    }

    /// Puts a message behind those before it. `false` if the channel is gone: nothing was taken.
    pub(super) fn send(&mut self, outgoing: &Outgoing) -> Result<bool> {
        let exchange = short(&outgoing.exchange)?;
        let routing_key = short(&outgoing.routing_key)?;
        let properties = properties_out(&outgoing.message)?;
        let options = BasicPublishOptions { mandatory: outgoing.mandatory, immediate: false };
        let (channel, message) = (self.channel.clone(), outgoing.message.clone());
        let mut writing: Writing = Box::pin(async move {
            channel.basic_publish(exchange, routing_key, options, &message.body, properties).await
        });
        // The first poll puts the frames in lapin's queue. Whoever waits for them to be written
        // polls again, so this one needs to wake nobody.
        let stage = match writing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Stage::Writing(writing),
            Poll::Ready(Ok(confirm)) => Stage::Confirming(confirm),
            Poll::Ready(Err(_)) => return Ok(false),
        };
        let slot = self.slot(outgoing);
        let mandatory = outgoing.mandatory.then(|| outgoing.message.properties.message_id.clone());
        self.attribution.departed(slot, mandatory.flatten());
        match stage {
            Stage::Confirming(_) => {
                self.confirming += 1;
                self.woken.push(slot);
            }
            _ => self.writing.push_back(slot),
        }
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.stage = stage;
        }
        Ok(true)
    }

    fn slot(&mut self, outgoing: &Outgoing) -> usize {
        self.sent += 1;
        let at = self.free.pop().unwrap_or(self.slots.len());
        if at == self.slots.len() {
            self.slots.push(Slot {
                waker: self.ready.waker(at),
                id: 0,
                number: 0,
                exchange: ShortStr::EMPTY,
                body: 0,
                stage: Stage::Idle,
            });
        }
        if let Some(slot) = self.slots.get_mut(at) {
            slot.id = outgoing.id;
            slot.number = self.sent;
            slot.exchange = outgoing.exchange.clone();
            slot.body = outgoing.message.body.len();
        }
        at
    }

    /// Looks at every answer there is, and appends the outcomes that are sure. Returns the error
    /// that ended the channel, if one did.
    pub(super) fn drain(
        &mut self,
        task: &Waker,
        into: &mut Vec<(u64, PublishOutcome)>,
    ) -> Option<lapin::Error> {
        self.ready.wakes(task);
        let mut failed = None;
        // Until a round sees no answer: what was answered before any answer that was seen has then
        // been seen too, which the attribution relies on.
        while self.round(&mut failed) {}
        // After a failure some were never answered, and their returns may still wait in lapin.
        let all_answered = failed.is_none() && self.is_done();
        let Self { attribution, slots, free, seen, .. } = self;
        attribution.conclude(all_answered, |at, verdict| {
            let Some(slot) = slots.get_mut(at) else { return };
            free.push(at);
            let outcome = match verdict {
                Verdict::Confirmed => {
                    if seen.last() != Some(&slot.exchange) && !seen.contains(&slot.exchange) {
                        seen.push(slot.exchange.clone());
                    }
                    PublishOutcome::Confirmed
                }
                Verdict::Unroutable => PublishOutcome::Unroutable,
                Verdict::Refused => PublishOutcome::Rejected(
                    Error::new(ErrorKind::Refused, PUBLISH)
                        .on(target(&slot.exchange))
                        .because("the broker refused the message, as a full queue does"),
                ),
            };
            into.push((slot.id, outcome));
        });
        failed
    }

    /// Looks once at whatever may have changed; says whether there was an answer.
    fn round(&mut self, failed: &mut Option<lapin::Error>) -> bool {
        let mut answered = self.written(failed);
        let mut woken = mem::take(&mut self.woken);
        for slot in woken.drain(..) {
            answered |= self.look(slot, failed);
        }
        self.ready.take(&mut woken);
        for slot in woken.drain(..) {
            answered |= self.look(slot, failed);
        }
        self.woken = woken;
        answered
    }

    /// Writing ends in order, so only the first is asked, and only the first wakes.
    fn written(&mut self, failed: &mut Option<lapin::Error>) -> bool {
        let mut answered = false;
        while let Some(at) = self.writing.front().copied()
            && let Some(slot) = self.slots.get_mut(at)
            && let Stage::Writing(writing) = &mut slot.stage
        {
            match writing.as_mut().poll(&mut Context::from_waker(&slot.waker)) {
                Poll::Pending => break,
                Poll::Ready(Ok(confirm)) => {
                    slot.stage = Stage::Confirming(confirm);
                    self.confirming += 1;
                    self.writing.pop_front();
                    answered |= self.look(at, failed);
                }
                Poll::Ready(Err(error)) => {
                    slot.stage = Stage::Lost;
                    self.writing.pop_front();
                    failed.get_or_insert(error);
                }
            }
        }
        answered
    }

    /// Asks for the answer to one message.
    fn look(&mut self, at: usize, failed: &mut Option<lapin::Error>) -> bool {
        let Some(slot) = self.slots.get_mut(at) else { return false };
        let Stage::Confirming(confirm) = &mut slot.stage else { return false };
        let mut cx = Context::from_waker(&slot.waker);
        let Poll::Ready(answer) = Pin::new(confirm).poll(&mut cx) else { return false };
        slot.stage = Stage::Idle;
        self.confirming -= 1;
        let (answer, carried) = match answer {
            Ok(Confirmation::Ack(carried)) => (Answer::Ack, carried),
            Ok(Confirmation::Nack(carried)) => (Answer::Nack, carried),
            // Not on a confirm channel; and an answer that says nothing is none.
            Ok(Confirmation::NotRequested) => return false,
            Err(error) => {
                slot.stage = Stage::Lost;
                failed.get_or_insert(error);
                return false;
            }
        };
        self.attribution.answered(at, answer, carried.as_ref().map(message_id));
        true
    }

    /// Whether no message waits for an answer.
    fn is_done(&self) -> bool {
        self.writing.is_empty() && self.confirming == 0
    }

    /// Everything that is under way, for another owner.
    fn take(&mut self) -> Self {
        Self {
            channel: self.channel.clone(),
            size: self.size,
            slots: mem::take(&mut self.slots),
            free: mem::take(&mut self.free),
            writing: mem::take(&mut self.writing),
            confirming: mem::take(&mut self.confirming),
            attribution: mem::take(&mut self.attribution),
            ready: self.ready.clone(),
            woken: mem::take(&mut self.woken),
            seen: mem::take(&mut self.seen),
            sent: self.sent,
            lingering: self.lingering,
        }
    }

    /// The channel is gone. Where its last words say which messages the broker refused, those have
    /// an outcome; nobody knows about the others.
    pub(super) fn abandon(&self, error: &lapin::Error, into: &mut Vec<(u64, PublishOutcome)>) {
        let lapin::ErrorKind::ProtocolError(reply) = error.kind() else { return };
        let words = LastWords::read(reply.get_id(), reply.get_message().as_str());
        for slot in self.slots.iter().filter(|slot| slot.is_open()) {
            let newest = || self.slots.iter().all(|other| !other.is_newer_than(slot));
            let refused = match words {
                LastWords::Exchange(_) => {
                    // An exchange that was there may have gone a moment ago, after it had taken
                    // messages that are not confirmed yet. The last one it cannot have taken.
                    words.name(&slot.exchange) && (!self.seen.contains(&slot.exchange) || newest())
                }
                LastWords::TooLarge(limit) => slot.body > limit,
                LastWords::Other => false,
            };
            if refused {
                let error = error::failed(PUBLISH, target(&slot.exchange), error);
                into.push((slot.id, PublishOutcome::Rejected(error)));
            }
        }
    }
}

impl Slot {
    /// Whether it holds a message without an answer.
    fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Writing(_) | Stage::Confirming(_) | Stage::Lost)
    }

    fn is_newer_than(&self, other: &Self) -> bool {
        self.is_open() && self.exchange == other.exchange && self.number > other.number
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("channel", &self.channel.id())
            .field("size", &self.size)
            .field("writing", &self.writing.len())
            .field("confirming", &self.confirming)
            .finish_non_exhaustive()
    }
}

impl Drop for Window {
    /// Stays for the answers that are under way. If the broker closed the channel for one of those
    /// messages while lapin was closing it from this side, lapin would give up the connection.
    fn drop(&mut self) {
        let under_way = !self.is_done() && self.is_open();
        if under_way
            && !mem::replace(&mut self.lingering, true)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let mut window = self.take();
            runtime.spawn(async move {
                let mut ignored = Vec::new();
                let over = poll_fn(|cx| {
                    let failed = window.drain(cx.waker(), &mut ignored).is_some();
                    ignored.clear();
                    if failed || window.is_done() { Poll::Ready(()) } else { Poll::Pending }
                });
                let _ = timeout(REPLY_TIMEOUT, over).await;
            });
        }
    }
}

/// What the broker says when it closes a channel for a message on it.
#[derive(Debug, Clone, Copy)]
enum LastWords<'a> {
    /// It has no such exchange, or this login may not publish to it; the text names it.
    Exchange(&'a str),
    /// The body is larger than this.
    TooLarge(usize),
    /// Nothing that tells one message from another.
    Other,
}

impl<'a> LastWords<'a> {
    fn read(code: u16, text: &'a str) -> Self {
        match code {
            // Access to a topic depends on the routing key, not only on the exchange.
            403 if text.contains("access to topic") => Self::Other,
            403 | 404 => Self::Exchange(text),
            406 => text
                .rsplit_once("larger than configured max size ")
                .and_then(|(_, limit)| limit.trim().parse().ok())
                .map_or(Self::Other, Self::TooLarge),
            _ => Self::Other,
        }
    }

    /// Whether it names this exchange: `no exchange 'shop' in vhost '/'`.
    fn name(self, exchange: &str) -> bool {
        let Self::Exchange(text) = self else { return false };
        text.contains(&format!("exchange '{exchange}' in vhost"))
    }
}

fn message_id(returned: &BasicReturnMessage) -> &str {
    returned.delivery.properties.message_id().as_ref().map_or("", |id| id.as_str())
}

/// How an error names where a message was published to.
pub(super) fn target(exchange: &str) -> String {
    if exchange.is_empty() {
        "the default exchange".to_owned()
    } else {
        format!("exchange {exchange:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_say_which_messages_were_refused() {
        let missing = LastWords::read(404, "NOT_FOUND - no exchange 'shop' in vhost '/'");
        assert!(missing.name("shop"));
        assert!(!missing.name("sho"));
        assert!(!missing.name(""));
        let refused = "ACCESS_REFUSED - access to exchange 'a'b' in vhost '/' refused for user 'u'";
        assert!(LastWords::read(403, refused).name("a'b"));
        let topic = "ACCESS_REFUSED - access to topic 'k' in exchange 'shop' in vhost '/' refused";
        assert!(!LastWords::read(403, topic).name("shop"));
        let large = "PRECONDITION_FAILED - message size 9 is larger than configured max size 8";
        assert!(matches!(LastWords::read(406, large), LastWords::TooLarge(8)));
        assert!(matches!(LastWords::read(406, "PRECONDITION_FAILED - x"), LastWords::Other));
    }
}
