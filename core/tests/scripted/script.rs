//! A transport that does what a test tells it to, and remembers what it was told to do.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use enoki_core::{
    Attempt, Broker, BrokerOptions, Capability, Disposition, Error, ErrorKind, Message, Outcome,
    Peer, Purpose, Result, ShortStr, Transport,
    transport::{
        Change, Delivered, End, Found, Outgoing, PublishOutcome, Receiver, ReceiverOptions, Sender,
        SenderOptions, Session, Settle,
    },
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

/// A value that can be waited on.
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Watched<T> {
    fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    /// Changes the value and wakes everybody who waits on it.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
        result
    }

    /// Waits until the closure has something.
    async fn when<R>(&self, mut what: impl FnMut(&mut T) -> Option<R>) -> R {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let found = what(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(found) = found {
                self.changed.notify_waiters();
                return found;
            }
            changed.await;
        }
    }

    /// Waits until it is so: a test that waits in vain fails, at once where the clock is paused.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&T) -> bool) {
        timeout(PATIENCE, self.when(|value| is_so(value).then_some(())))
            .await
            .unwrap_or_else(|_| panic!("waited in vain until {what}"));
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

/// No deadline of the toolkit is as late.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Waits for something that may never come: then the test fails, at once where the clock is paused.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("waited in vain")
}

/// What a call comes to that does not succeed.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// It fails with this.
    Fails(Error),
    /// It never returns.
    Hangs,
    /// The session breaks under it.
    Breaks,
    /// It panics.
    Panics,
    /// The same, and what the call says is something else.
    BreaksSaying(Error),
}

impl Trouble {
    async fn come(self) -> Error {
        match self {
            Self::Fails(error) | Self::BreaksSaying(error) => error,
            Self::Breaks => broken(),
            Self::Hangs => std::future::pending().await,
            Self::Panics => panic!("the script says so"),
        }
    }
}

/// The transport.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) state: Watched<ScriptState>,
}

#[derive(Debug, Default)]
pub(crate) struct ScriptState {
    /// Every call to connect.
    pub(crate) connects: Vec<Purpose>,
    /// What the next calls to connect come to; when it is empty they succeed.
    pub(crate) connect_trouble: VecDeque<Trouble>,
    /// What each call to change the topology comes to, where the closure says so.
    pub(crate) apply_trouble: Option<fn(&Change) -> Option<Trouble>>,
    pub(crate) sender_trouble: Option<Trouble>,
    pub(crate) receiver_trouble: Option<Trouble>,
    /// Whether sessions, and receivers, never finish to close.
    pub(crate) close_hangs: bool,
    /// Whether receivers never finish to stop.
    pub(crate) stop_hangs: bool,
    /// Whether every message is confirmed when it is taken.
    pub(crate) confirms: bool,
    /// What the broker cannot do; it can do everything else.
    pub(crate) lacks: Vec<Capability>,
    sessions: Vec<(Purpose, Arc<ScriptedSession>)>,
}

impl ScriptState {
    fn capabilities(&self) -> impl Iterator<Item = Capability> {
        let lacks = |capability: &Capability| {
            self.lacks.iter().any(|set| set == capability || set.parts().contains(capability))
        };
        Capability::ALL.iter().copied().filter(move |capability| !lacks(capability))
    }
}

impl Script {
    /// Everything succeeds, and no message is confirmed before the test says so.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Watched::new(ScriptState::default()) })
    }

    /// A broker on a script that confirms nothing by itself.
    pub(crate) async fn broker() -> (Broker, Arc<Self>) {
        Self::broker_with(BrokerOptions::new()).await
    }

    pub(crate) async fn broker_with(options: BrokerOptions) -> (Broker, Arc<Self>) {
        let script = Self::new();
        let broker = Broker::connect_with(script.clone(), options).await.unwrap();
        (broker, script)
    }

    /// The nth session for this purpose, once there is one.
    pub(crate) async fn session(&self, purpose: Purpose, n: usize) -> Arc<ScriptedSession> {
        let session = self.state.when(|state| {
            let mut sessions = state.sessions.iter().filter(|(of, _)| *of == purpose);
            sessions.nth(n).map(|(_, session)| session.clone())
        });
        timeout(PATIENCE, session).await.unwrap_or_else(|_| panic!("no session {n} to {purpose:?}"))
    }

    /// The nth sender of the first session.
    pub(crate) async fn sender(&self, n: usize) -> Arc<Watched<SenderState>> {
        self.session(Purpose::Publish, 0).await.nth_sender(n).await
    }

    /// The nth receiver of the first session.
    pub(crate) async fn receiver(&self, n: usize) -> Arc<Watched<ReceiverState>> {
        self.session(Purpose::Consume, 0).await.nth_receiver(n).await
    }

    /// How often it connected for this purpose.
    pub(crate) fn connects(&self, purpose: Purpose) -> usize {
        self.state.change(|state| state.connects.iter().filter(|of| **of == purpose).count())
    }
}

#[async_trait]
impl Transport for Script {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn connect(&self, purpose: Purpose, _: Instant) -> Result<Arc<dyn Session>> {
        let trouble = self.state.change(|state| {
            state.connects.push(purpose);
            state.connect_trouble.pop_front()
        });
        if let Some(trouble) = trouble {
            return Err(trouble.come().await);
        }
        let session = self.state.change(|state| {
            let session = Arc::new(ScriptedSession {
                peer: Peer::new("Script", "1.0", state.capabilities()),
                blocked: watch::Sender::new(None),
                state: Watched::new(SessionState::default()),
                apply_trouble: state.apply_trouble,
                sender_trouble: state.sender_trouble.clone(),
                receiver_trouble: state.receiver_trouble.clone(),
                close_hangs: state.close_hangs,
                stop_hangs: state.stop_hangs,
                confirms: state.confirms,
            });
            state.sessions.push((purpose, session.clone()));
            session
        });
        Ok(session)
    }
}

/// A session, which remembers.
#[derive(Debug)]
pub(crate) struct ScriptedSession {
    peer: Peer,
    blocked: watch::Sender<Option<Arc<str>>>,
    pub(crate) state: Watched<SessionState>,
    apply_trouble: Option<fn(&Change) -> Option<Trouble>>,
    sender_trouble: Option<Trouble>,
    receiver_trouble: Option<Trouble>,
    close_hangs: bool,
    stop_hangs: bool,
    confirms: bool,
}

#[derive(Debug, Default)]
pub(crate) struct SessionState {
    pub(crate) applied: Vec<Change>,
    pub(crate) closed: bool,
    ended: Option<Error>,
    end_panics: bool,
    senders: Vec<Arc<Watched<SenderState>>>,
    receivers: Vec<Arc<Watched<ReceiverState>>>,
}

impl ScriptedSession {
    /// The nth sender, once there is one.
    pub(crate) async fn nth_sender(&self, n: usize) -> Arc<Watched<SenderState>> {
        let sender = self.state.when(|state| state.senders.get(n).cloned());
        timeout(PATIENCE, sender).await.unwrap_or_else(|_| panic!("no sender {n}"))
    }

    /// The nth receiver, once there is one.
    pub(crate) async fn nth_receiver(&self, n: usize) -> Arc<Watched<ReceiverState>> {
        let receiver = self.state.when(|state| state.receivers.get(n).cloned());
        timeout(PATIENCE, receiver).await.unwrap_or_else(|_| panic!("no receiver {n}"))
    }

    /// The connection breaks, with everything on it.
    pub(crate) fn break_off(&self) {
        self.state.change(|state| {
            state.ended = Some(broken());
            for sender in &state.senders {
                sender.change(|sender| sender.failure = Some(broken()));
            }
            for receiver in &state.receivers {
                receiver.change(|receiver| receiver.end = Some(|| End::Lost(broken())));
            }
        });
    }

    /// A task that waits for its end finds that this panics.
    pub(crate) fn panic_on_end(&self) {
        self.state.change(|state| state.end_panics = true);
    }

    /// The broker fails, and ends the connection.
    pub(crate) fn fail_inside(&self) {
        self.state.change(|state| {
            state.ended = Some(inside());
            for receiver in &state.receivers {
                receiver.change(|receiver| receiver.end = Some(|| End::Lost(inside())));
            }
        });
    }

    /// Which queues are consumed from.
    pub(crate) fn queues(&self) -> Vec<ShortStr> {
        let receivers = self.state.change(|state| state.receivers.clone());
        receivers.iter().map(|receiver| receiver.change(|it| it.queue.clone())).collect()
    }

    /// The connection ends, and no sender or receiver on it has noticed yet.
    pub(crate) fn end(&self, reason: Error) {
        self.state.change(|state| state.ended = Some(reason));
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.state.change(|state| state.ended.is_some())
    }

    /// Waits until the connection has ended.
    pub(crate) async fn is_over(&self) {
        self.state.until("the session ended", |state| state.ended.is_some()).await;
    }

    /// The broker reads nothing from it any more, or reads again.
    pub(crate) fn block(&self, reason: Option<&str>) {
        self.blocked.send_replace(reason.map(Into::into));
    }

    pub(crate) fn applied(&self) -> Vec<Change> {
        self.state.change(|state| state.applied.clone())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.change(|state| state.closed)
    }

    async fn fail(&self, trouble: Trouble) -> Error {
        if matches!(trouble, Trouble::Breaks | Trouble::BreaksSaying(_)) {
            self.break_off();
        }
        trouble.come().await
    }

    fn check(&self) -> Result<()> {
        self.state.change(|state| state.ended.clone().map_or(Ok(()), Err))
    }
}

/// What a broker says that failed.
pub(crate) fn inside() -> Error {
    Error::new(ErrorKind::Unexpected, "consume").because("INTERNAL_ERROR").transient(true)
}

/// What a broken connection says.
pub(crate) fn broken() -> Error {
    Error::new(ErrorKind::Connection, "talk to the script").because("the line is dead")
}

#[async_trait]
impl Session for ScriptedSession {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    async fn apply(&self, change: &Change) -> Result<Found> {
        self.check()?;
        self.state.change(|state| state.applied.push(change.clone()));
        if let Some(trouble) = self.apply_trouble.and_then(|of| of(change)) {
            return Err(self.fail(trouble).await);
        }
        Ok(Found::default())
    }

    async fn sender(&self, _: SenderOptions) -> Result<Box<dyn Sender>> {
        self.check()?;
        if let Some(trouble) = self.sender_trouble.clone() {
            return Err(self.fail(trouble).await);
        }
        let state = Arc::new(Watched::new(SenderState {
            confirms: self.confirms,
            room: usize::MAX,
            ..SenderState::default()
        }));
        self.state.change(|session| session.senders.push(state.clone()));
        Ok(Box::new(ScriptedSender(state)))
    }

    async fn receiver(&self, options: ReceiverOptions) -> Result<Box<dyn Receiver>> {
        self.check()?;
        if let Some(trouble) = self.receiver_trouble.clone() {
            return Err(self.fail(trouble).await);
        }
        let state = Arc::new(Watched::new(ReceiverState {
            queue: options.queue,
            prefetch: options.prefetch.get(),
            stop_hangs: self.stop_hangs,
            close_hangs: self.close_hangs,
            ..ReceiverState::default()
        }));
        self.state.change(|session| session.receivers.push(state.clone()));
        Ok(Box::new(ScriptedReceiver(state)))
    }

    fn blocked(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.blocked.subscribe()
    }

    async fn ended(&self) -> Error {
        let ended = |state: &mut SessionState| {
            let end = state.end_panics.then_some(None);
            end.or(state.ended.clone().map(Some))
        };
        self.state.when(ended).await.expect("the script says so")
    }

    async fn close(&self, _: Instant) {
        self.state.change(|state| state.closed = true);
        if self.close_hangs {
            std::future::pending::<()>().await;
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct SenderState {
    /// What it took.
    pub(crate) taken: Vec<Outgoing>,
    /// How many more it takes.
    pub(crate) room: usize,
    /// Whether `submit` never returns.
    pub(crate) hangs: bool,
    /// Whether `submit` panics when it has taken what has room.
    pub(crate) panics: bool,
    /// Told next.
    pub(crate) outcomes: VecDeque<(u64, PublishOutcome)>,
    pub(crate) failure: Option<Error>,
    pub(crate) dropped: bool,
    confirms: bool,
}

impl Watched<SenderState> {
    /// Tells the outcome of the nth message that was taken.
    pub(crate) fn tell(&self, n: usize, outcome: PublishOutcome) {
        self.change(|state| {
            let id = state.taken[n].id;
            state.outcomes.push_back((id, outcome));
        });
    }

    /// Confirms this many messages, the oldest first, from the nth on.
    pub(crate) fn confirm(&self, which: std::ops::Range<usize>) {
        which.for_each(|n| self.tell(n, PublishOutcome::Confirmed));
    }

    /// Waits until it has taken this many.
    pub(crate) async fn took(&self, messages: usize) {
        self.until(&format!("{messages} messages were sent"), |state| {
            state.taken.len() >= messages
        })
        .await;
    }

    /// What it took, as text.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.change(|state| state.taken.iter().map(|sent| body(&sent.message)).collect())
    }
}

#[derive(Debug)]
struct ScriptedSender(Arc<Watched<SenderState>>);

#[async_trait]
impl Sender for ScriptedSender {
    async fn submit(&mut self, messages: &mut VecDeque<Outgoing>) -> Result<()> {
        let hangs = self.0.change(|state| {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            while state.room > 0 && !state.hangs {
                let Some(message) = messages.pop_front() else { break };
                state.room -= 1;
                if state.confirms {
                    state.outcomes.push_back((message.id, PublishOutcome::Confirmed));
                }
                state.taken.push(message);
            }
            Ok(state.hangs)
        })?;
        assert!(!self.0.change(|state| state.panics), "the script says so");
        if hangs {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn outcomes(&mut self, into: &mut Vec<(u64, PublishOutcome)>) -> Result<()> {
        self.0
            .when(|state| {
                if !state.outcomes.is_empty() {
                    into.extend(state.outcomes.drain(..));
                    return Some(Ok(()));
                }
                state.failure.clone().map(Err)
            })
            .await
    }
}

impl Drop for ScriptedSender {
    fn drop(&mut self) {
        self.0.change(|state| state.dropped = true);
    }
}

#[derive(Debug, Default)]
pub(crate) struct ReceiverState {
    pub(crate) queue: ShortStr,
    pub(crate) prefetch: u16,
    /// Given next.
    pub(crate) deliveries: VecDeque<Delivered>,
    /// Given after the deliveries.
    pub(crate) end: Option<fn() -> End>,
    /// Each call to settle.
    pub(crate) settled: Vec<Vec<Settle>>,
    pub(crate) stopped: bool,
    pub(crate) closed: bool,
    pub(crate) dropped: bool,
    pub(crate) panics: bool,
    /// Whether it gives more than the prefetch.
    pub(crate) overflows: bool,
    /// Whether its broker can wait before it requeues.
    pub(crate) delays: bool,
    /// Given after it was asked to stop.
    pub(crate) late: Vec<&'static str>,
    /// How long it keeps its thread when it is dropped.
    pub(crate) drops_slowly: Duration,
    given: usize,
    stop_hangs: bool,
    close_hangs: bool,
    last_tag: u64,
}

impl ReceiverState {
    pub(crate) fn deliver(&mut self, text: &str) {
        let mut message = Message::new(serde_json::to_vec(text).unwrap());
        message.properties.content_type = Some(ShortStr::from_static("application/json"));
        self.deliver_message(message);
    }

    fn deliver_message(&mut self, message: Message) {
        self.last_tag += 1;
        self.deliveries.push_back(Delivered {
            tag: self.last_tag,
            message: Arc::new(message),
            exchange: ShortStr::EMPTY,
            routing_key: self.queue.clone(),
            redelivered: false,
            attempt: Attempt::from_flag(false),
            undecodable: None,
        });
    }
}

impl Watched<ReceiverState> {
    /// Delivers a message, as JSON text.
    pub(crate) fn deliver(&self, text: &str) {
        self.change(|state| state.deliver(text));
    }

    pub(crate) fn deliver_message(&self, message: Message) {
        self.change(|state| state.deliver_message(message));
    }

    /// Every settlement, in the order of the tags.
    pub(crate) fn settlements(&self) -> Vec<(u64, Outcome)> {
        let mut all: Vec<_> = self.change(|state| {
            let settled = state.settled.iter().flatten();
            settled.map(|settle| (settle.tag, outcome(settle.disposition))).collect()
        });
        all.sort_by_key(|(tag, _)| *tag);
        all
    }

    /// Waits until this many deliveries are settled.
    pub(crate) async fn settles(&self, deliveries: usize) {
        self.until(&format!("{deliveries} deliveries were settled"), |state| {
            state.settled.iter().flatten().count() >= deliveries
        })
        .await;
    }

    pub(crate) async fn is_dropped(&self) {
        self.until("the receiver was dropped", |state| state.dropped).await;
    }
}

/// The outcome that comes to this.
fn outcome(disposition: Disposition) -> Outcome {
    match disposition {
        Disposition::Accept => Outcome::Ack,
        Disposition::Return { counted: true, after: None } => Outcome::Requeue,
        Disposition::Return { counted: true, after: Some(delay) } => Outcome::RetryAfter(delay),
        Disposition::Return { counted: false, after: None } => Outcome::Release,
        Disposition::Return { counted: false, after: Some(_) } => {
            unreachable!("no outcome is that")
        }
        Disposition::Reject => Outcome::Reject,
    }
}

#[derive(Debug)]
struct ScriptedReceiver(Arc<Watched<ReceiverState>>);

#[async_trait]
impl Receiver for ScriptedReceiver {
    async fn receive(&mut self, into: &mut Vec<Delivered>, max: usize) -> Result<(), End> {
        let panics = self
            .0
            .when(|state| {
                if state.panics {
                    return Some(Ok(true));
                }
                let given = state.given - state.settled.iter().flatten().count();
                let room = usize::from(state.prefetch).saturating_sub(given);
                let room = if state.overflows { usize::MAX } else { room };
                let count = max.min(state.deliveries.len()).min(room);
                if count > 0 {
                    state.given += count;
                    into.extend(state.deliveries.drain(..count));
                    return Some(Ok(false));
                }
                let stopped = state.stopped.then_some(End::Stopped);
                state.end.map(|end| end()).or(stopped).map(Err)
            })
            .await?;
        assert!(!panics, "the script says so");
        Ok(())
    }

    fn settle(&mut self, settlements: &[Settle]) {
        if !settlements.is_empty() {
            self.0.change(|state| state.settled.push(settlements.to_vec()));
        }
    }

    fn delays(&self) -> bool {
        self.0.change(|state| state.delays)
    }

    async fn stop(&mut self) -> Result<()> {
        if self.0.change(|state| state.stop_hangs) {
            std::future::pending::<()>().await;
        }
        self.0.change(|state| {
            state.stopped = true;
            // What a broker had sent before it heard of it.
            let late = std::mem::take(&mut state.late);
            late.into_iter().for_each(|text| state.deliver(text));
        });
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        if self.0.change(|state| state.close_hangs) {
            std::future::pending::<()>().await;
        }
        self.0.change(|state| state.closed = true);
        Ok(())
    }
}

impl Drop for ScriptedReceiver {
    fn drop(&mut self) {
        std::thread::sleep(self.0.change(|state| state.drops_slowly));
        self.0.change(|state| state.dropped = true);
    }
}

/// The text of a message that was published as a JSON string.
pub(crate) fn body(message: &Message) -> String {
    serde_json::from_slice(&message.body).unwrap()
}
