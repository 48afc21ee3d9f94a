//! The one ordered path of a publisher's messages: a window, a queue, and the task that owns the
//! sender.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    declare::declare,
    error::{Error, ErrorKind, Result},
    link::Link,
    message::Message,
    short_str::ShortStr,
    topology::Topology,
    transport::{Outgoing, PublishOutcome, Sender},
};

/// A publisher's end of the lane.
#[derive(Debug)]
pub(crate) struct Lane {
    inbox: mpsc::Sender<Intake>,
    window: Arc<Window>,
}

#[derive(Debug)]
enum Intake {
    One(Parcel),
    Many(Vec<Parcel>),
}

impl Intake {
    /// Nothing of it was handed over.
    fn refuse(self, reason: &Error) {
        match self {
            Self::One(parcel) => parcel.reply.send(Err(reason.clone())),
            Self::Many(parcels) => {
                parcels.into_iter().for_each(|parcel| parcel.reply.send(Err(reason.clone())));
            }
        }
    }
}

/// A message, where it goes, until when, and who is told.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) exchange: ShortStr,
    pub(crate) routing_key: ShortStr,
    pub(crate) mandatory: bool,
    pub(crate) message: Arc<Message>,
    pub(crate) deadline: Instant,
    pub(crate) reply: Reply,
}

/// Who is told the outcome.
#[derive(Debug)]
pub(crate) enum Reply {
    One(oneshot::Sender<Result<()>>),
    Batch { batch: Arc<Batch>, at: usize },
}

impl Reply {
    fn send(self, result: Result<()>) {
        match self {
            // Nobody waits any longer: fine, the message was published all the same.
            Self::One(reply) => drop(reply.send(result)),
            Self::Batch { batch, at } => batch.settle(at, result),
        }
    }
}

/// The outcomes of messages published together: one wake for all of them.
#[derive(Debug)]
pub(crate) struct Batch {
    state: Mutex<BatchState>,
    done: tokio::sync::Notify,
}

#[derive(Debug)]
struct BatchState {
    outcomes: Vec<Option<Result<()>>>,
    open: usize,
}

impl Batch {
    pub(crate) fn of(size: usize) -> Arc<Self> {
        let state = BatchState { outcomes: (0..size).map(|_| None).collect(), open: size };
        Arc::new(Self { state: Mutex::new(state), done: tokio::sync::Notify::new() })
    }

    pub(crate) fn settle(&self, at: usize, result: Result<()>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot @ None) = state.outcomes.get_mut(at) {
            *slot = Some(result);
            state.open -= 1;
            if state.open == 0 {
                self.done.notify_one();
            }
        }
    }

    /// Waits for all outcomes, at most until the deadline; what has none then is `None`.
    pub(crate) async fn outcomes(&self, deadline: Instant) -> Vec<Option<Result<()>>> {
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).open > 0 {
            let _ = timeout_at(deadline, self.done.notified()).await;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.outcomes)
    }
}

/// How many messages may be without an outcome.
#[derive(Debug)]
pub(crate) struct Window {
    room: Semaphore,
    size: u32,
}

impl Window {
    /// Waits until every message has its outcome, at most until the deadline, then lets no more in.
    pub(crate) async fn close(&self, deadline: Instant) {
        if let Ok(Ok(all)) = timeout_at(deadline, self.room.acquire_many(self.size)).await {
            all.forget();
        }
        self.room.close();
    }
}

impl Lane {
    /// A lane with room for `window` messages, which declares the topology on every new session.
    pub(crate) fn new(link: Link, topology: Topology, window: u16, open_timeout: Duration) -> Self {
        let size = usize::from(window);
        let (inbox, intake) = mpsc::channel(size);
        let window = Arc::new(Window { room: Semaphore::new(size), size: window.into() });
        let task = Task {
            link,
            topology,
            open_timeout,
            inbox: intake,
            window: window.clone(),
            waiting: VecDeque::new(),
            in_flight: InFlight::default(),
        };
        tokio::spawn(task.run(size));
        Self { inbox, window }
    }

    pub(crate) fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// Waits for room, at most until the deadline, then hands a message over. Cancel safe: dropped
    /// before it is ready, the message was not handed over.
    pub(crate) async fn send(
        &self,
        deadline: Instant,
        parcel: impl FnOnce() -> Parcel,
    ) -> Result<()> {
        self.room(1, deadline).await?;
        self.hand_over(Intake::One(parcel()))
    }

    /// Like [`Lane::send`], for any number. Those that find no room are told so, each by its reply:
    /// the ones before them may be stored already.
    pub(crate) async fn send_many(&self, deadline: Instant, mut parcels: Vec<Parcel>) {
        while !parcels.is_empty() {
            let rest = parcels.split_off(parcels.len().min(self.window.size as usize / 2 + 1));
            let sent = match self.room(parcels.len(), deadline).await {
                Ok(()) => self.hand_over(Intake::Many(parcels)),
                Err(reason) => {
                    Intake::Many(parcels).refuse(&reason);
                    Err(reason)
                }
            };
            if let Err(reason) = sent {
                return Intake::Many(rest).refuse(&reason);
            }
            parcels = rest;
        }
    }

    async fn room(&self, messages: usize, deadline: Instant) -> Result<()> {
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        let permits = match self.window.room.try_acquire_many(messages) {
            Ok(permits) => permits,
            Err(tokio::sync::TryAcquireError::Closed) => return Err(closed()),
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                timeout_at(deadline, self.window.room.acquire_many(messages))
                    .await
                    .map_err(|_| {
                        Error::new(ErrorKind::Timeout, "publish")
                            .because(format!(
                                "no room in the window of {} before the deadline",
                                self.window.size
                            ))
                            .remedy("the message was not sent")
                    })?
                    .map_err(|_| closed())?
            }
        };
        // Given back by the task, when the outcomes are known.
        permits.forget();
        Ok(())
    }

    fn hand_over(&self, intake: Intake) -> Result<()> {
        // Each entry holds at least one permit of the window, and the inbox is as large: never full.
        self.inbox.try_send(intake).map_err(|unsent| {
            unsent.into_inner().refuse(&closed());
            closed()
        })
    }
}

struct Task {
    link: Link,
    topology: Topology,
    open_timeout: Duration,
    inbox: mpsc::Receiver<Intake>,
    window: Arc<Window>,
    /// Not yet taken by a sender: safe to give to the next one.
    waiting: VecDeque<Outgoing>,
    in_flight: InFlight,
}

impl Task {
    async fn run(mut self, window: usize) {
        let mut declared = None;
        loop {
            if self.waiting.is_empty() {
                match self.inbox.recv().await {
                    Some(intake) => self.take_in(intake),
                    None => return,
                }
            }
            match self.open(window, &mut declared).await {
                Ok(sender) => {
                    let Err(reason) = self.work(sender).await else { return };
                    self.fail_sent(&reason);
                }
                Err(reason) => self.fail_all(&reason),
            }
        }
    }

    async fn open(&mut self, window: usize, declared: &mut Option<u64>) -> Result<Box<dyn Sender>> {
        let deadline = Instant::now() + self.open_timeout;
        let mut again = true;
        loop {
            let incarnation = self.link.session(deadline).await?;
            let opening = async {
                if *declared != Some(incarnation.epoch) {
                    declare(&*incarnation.session, &self.topology).await?;
                    *declared = Some(incarnation.epoch);
                }
                incarnation.session.sender(window).await
            };
            let opened = timeout_at(deadline, opening).await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Timeout, "open a publisher")
                    .because("the deadline passed"))
            });
            // The connection broke under it: nothing was sent, so the next one will do. Only once,
            // for a broker that lets everybody in and then hangs up.
            if opened.is_err() && incarnation.has_ended() && std::mem::take(&mut again) {
                continue;
            }
            return opened;
        }
    }

    /// Works until the publishers are gone and everything has its outcome, or the sender fails.
    async fn work(&mut self, mut sender: Box<dyn Sender>) -> Result<()> {
        let mut outcomes = Vec::new();
        let mut arrived = Vec::new();
        let mut open = true;
        loop {
            if !self.waiting.is_empty() {
                self.drop_overdue();
                sender.submit(&mut self.waiting).await?;
            }
            if !open && self.in_flight.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                result = sender.outcomes(&mut outcomes) => {
                    self.resolve(&mut outcomes);
                    result?;
                }
                count = self.inbox.recv_many(&mut arrived, INTAKE), if open => {
                    open = count > 0;
                    arrived.drain(..).for_each(|intake| self.take_in(intake));
                }
            }
        }
    }

    fn take_in(&mut self, intake: Intake) {
        match intake {
            Intake::One(parcel) => self.queue(parcel),
            Intake::Many(parcels) => parcels.into_iter().for_each(|parcel| self.queue(parcel)),
        }
    }

    fn queue(&mut self, parcel: Parcel) {
        let Parcel { exchange, routing_key, mandatory, message, deadline, reply } = parcel;
        let pending = Pending {
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
            deadline,
            reply,
        };
        let id = self.in_flight.add(pending);
        self.waiting.push_back(Outgoing { id, exchange, routing_key, mandatory, message });
    }

    /// Gives up what waited too long for a sender: it was never sent.
    fn drop_overdue(&mut self) {
        let now = Instant::now();
        let in_time = |in_flight: &InFlight, outgoing: &Outgoing| {
            in_flight.deadline(outgoing.id).is_some_and(|deadline| deadline > now)
        };
        if self.waiting.iter().all(|outgoing| in_time(&self.in_flight, outgoing)) {
            return;
        }
        for outgoing in std::mem::take(&mut self.waiting) {
            if in_time(&self.in_flight, &outgoing) {
                self.waiting.push_back(outgoing);
            } else {
                self.settle(outgoing.id, |pending| {
                    Err(pending
                        .error(ErrorKind::Timeout)
                        .because("the deadline passed before it was sent"))
                });
            }
        }
    }

    fn resolve(&mut self, outcomes: &mut Vec<(u64, PublishOutcome)>) {
        let mut freed = 0;
        for (id, outcome) in outcomes.drain(..) {
            let Some(pending) = self.in_flight.take(id) else { continue };
            freed += 1;
            let result = match outcome {
                PublishOutcome::Confirmed => Ok(()),
                PublishOutcome::Unroutable => Err(pending
                    .error(ErrorKind::Unroutable)
                    .because("no queue is bound for it")
                    .remedy("declare the queue that should get it, or publish with `optional()`")),
                PublishOutcome::Rejected(error) => Err(error),
            };
            pending.reply.send(result);
        }
        self.window.room.add_permits(freed);
    }

    /// The sender failed: what it took may or may not be stored.
    fn fail_sent(&mut self, reason: &Error) {
        let waiting: std::collections::HashSet<u64> =
            self.waiting.iter().map(|outgoing| outgoing.id).collect();
        for id in self.in_flight.ids().filter(|id| !waiting.contains(id)).collect::<Vec<_>>() {
            self.settle(id, |pending| {
                Err(pending
                    .error(ErrorKind::Indeterminate)
                    .because(format!(
                        "the broker had not confirmed it when the channel ended ({reason})"
                    ))
                    .remedy(
                        "publish it again with the same message id, if a duplicate does no harm",
                    )
                    .caused_by(reason.clone()))
            });
        }
    }

    /// No sender could be opened: nothing of this was sent.
    fn fail_all(&mut self, reason: &Error) {
        for outgoing in std::mem::take(&mut self.waiting) {
            self.settle(outgoing.id, |_| Err(reason.clone()));
        }
    }

    fn settle(&mut self, id: u64, result: impl FnOnce(&Pending) -> Result<()>) {
        if let Some(pending) = self.in_flight.take(id) {
            let result = result(&pending);
            pending.reply.send(result);
            self.window.room.add_permits(1);
        }
    }
}

/// Messages without an outcome, by consecutive ids: the window slides over them.
#[derive(Default)]
struct InFlight {
    first: u64,
    slots: VecDeque<Option<Pending>>,
}

struct Pending {
    exchange: ShortStr,
    routing_key: ShortStr,
    deadline: Instant,
    reply: Reply,
}

impl Pending {
    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, "publish to").on(format!(
            "exchange {:?} with key {:?}",
            self.exchange.as_str(),
            self.routing_key.as_str()
        ))
    }
}

impl InFlight {
    fn add(&mut self, pending: Pending) -> u64 {
        self.slots.push_back(Some(pending));
        self.first + self.slots.len() as u64 - 1
    }

    fn take(&mut self, id: u64) -> Option<Pending> {
        let at = usize::try_from(id.checked_sub(self.first)?).ok()?;
        let pending = self.slots.get_mut(at)?.take();
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        pending
    }

    fn deadline(&self, id: u64) -> Option<Instant> {
        let at = usize::try_from(id.checked_sub(self.first)?).ok()?;
        self.slots.get(at)?.as_ref().map(|pending| pending.deadline)
    }

    fn ids(&self) -> impl Iterator<Item = u64> {
        (self.first..).zip(&self.slots).filter(|(_, slot)| slot.is_some()).map(|(id, _)| id)
    }

    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

/// How many hand-overs are taken at a time: enough to share a wake, few enough not to delay.
const INTAKE: usize = 256;

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "publish").because("the broker was closed")
}
