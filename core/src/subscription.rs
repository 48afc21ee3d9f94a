//! Deliveries of one queue, and the task that owns the receiver, and the next one when that ends.

mod delayed_requeues;
pub(crate) mod deliveries;
pub(crate) mod on_cancel;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use self::{delayed_requeues::DelayedRequeues, deliveries::Deliveries};
use crate::{
    connections::Connections,
    deadline::{deadline, later},
    delivery::{Decided, Delivery, Settler},
    error::{Error, ErrorKind, Result},
    health::{ConsumerHealth, Health},
    message::codec::Codecs,
    outcome::Outcome,
    source::Source,
    subscription::on_cancel::OnCancel,
    task::{guarded, log, spawn},
    transport::{Delivered, End, GRACE, Receiver, Settle},
};

/// The deliveries of one queue, taken by hand.
///
/// Made by [`Broker::subscribe`](crate::Broker::subscribe), where an example is. When the connection
/// breaks it consumes again as soon as there is one; what was delivered before and not settled is
/// delivered again. Dropped, it stops, and what was not settled goes back to the queue.
#[derive(Debug)]
pub struct Subscription {
    deliveries: Deliveries,
    control: mpsc::Sender<Stop>,
    ended: watch::Receiver<Option<Result<()>>>,
    health: Arc<watch::Sender<ConsumerHealth>>,
    task: JoinHandle<Option<()>>,
}

/// A wish to stop: settle until the deadline, then close.
#[derive(Debug, Clone, Copy)]
struct Stop {
    deadline: Instant,
}

impl Subscription {
    /// Opens it on this connection or, when that fails in a way that may pass, on a later one.
    pub(crate) async fn open(
        connections: &Connections,
        mut source: Source,
        on_cancel: OnCancel,
        deadline: Instant,
    ) -> Result<Self> {
        let receiver = source.open(deadline).await?;
        let prefetch = source.prefetch();
        let (to_handlers, deliveries) = async_channel::bounded(prefetch);
        let deliveries = Deliveries::new(deliveries);
        let (control, stops) = mpsc::channel(1);
        let (end, ended) = watch::channel(None);
        let health = Arc::new(watch::Sender::new(ConsumerHealth::NEW));
        let consuming = ConsumeTask {
            source,
            on_cancel,
            codecs: connections.options().codecs.clone(),
            to_handlers,
            unstarted: deliveries.clone(),
            stops,
            health: health.clone(),
            max: prefetch,
        };
        consuming.subscribed();
        let running = async move { drop(end.send(Some(consuming.run(receiver).await))) };
        let task = spawn(CONSUME, running, drop);
        Ok(Self { deliveries, control, ended, health, task })
    }

    /// Waits for the next delivery; `None` after [`Subscription::stop`]. An error says why there
    /// will be no more: the queue cannot be declared or consumed from any longer.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Delivery>> {
        if let Some(delivery) = self.deliveries.next().await {
            return Ok(Some(delivery));
        }
        self.end().await.map(|()| None)
    }

    /// How it is doing, now and as it changes.
    pub fn health(&self) -> watch::Receiver<ConsumerHealth> {
        self.health.subscribe()
    }

    /// Waits for the end, and says why it came. Cancel safe.
    async fn end(&self) -> Result<()> {
        end_of(self.ended.clone()).await
    }

    /// The end, for another task to wait for.
    pub(crate) fn watch_end(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let ended = self.ended.clone();
        end_of(ended)
    }

    pub(crate) fn deliveries(&self) -> Deliveries {
        self.deliveries.clone()
    }

    /// Stops: no more deliveries are asked for, those not taken yet are released uncounted, and the
    /// settlements of the others are awaited and sent, within this time.
    pub async fn stop(&mut self, within: Duration) -> Result<()> {
        self.stop_by(deadline(within)).await
    }

    pub(crate) async fn stop_by(&mut self, deadline: Instant) -> Result<()> {
        // The task has ended already.
        let _ = self.control.try_send(Stop { deadline });
        match timeout_at(later(deadline, GRACE), self.end()).await {
            Ok(result) => result,
            Err(_) => {
                self.kill();
                Err(overdue("the receiver did not close in time"))
            }
        }
    }

    /// Waits until its receiver is gone, a moment at most: the next consumer gets what it held, in the order
    /// of the queue.
    pub(crate) async fn until_gone(mut self) {
        let _ = timeout_at(deadline(GRACE), &mut self.task).await;
    }

    /// Ends now: everything unsettled goes back to the queue.
    pub(crate) fn kill(&mut self) {
        // Dropping the receiver of the transport closes its channel.
        self.task.abort();
        self.health.send_if_modified(|health| {
            let is_over = matches!(health.health, Health::Stopped { .. });
            if !is_over {
                health.health = Health::Stopped { reason: None };
            }
            !is_over
        });
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn end_of(mut ended: watch::Receiver<Option<Result<()>>>) -> Result<()> {
    let end = ended.wait_for(Option::is_some).await.map(|end| end.clone()).unwrap_or(None);
    // No caller asks for the end of a task that it killed, so a task without a result has panicked.
    end.unwrap_or_else(|| {
        Err(Error::new(ErrorKind::Unexpected, "consume")
            .because("the task that receives ended and gave no reason"))
    })
}

/// Takes deliveries from one receiver after the other, and gives them to the workers.
struct ConsumeTask {
    source: Source,
    on_cancel: OnCancel,
    codecs: Codecs,
    to_handlers: async_channel::Sender<Delivery>,
    /// The other end of the same channel, to take back what no handler has started on.
    unstarted: Deliveries,
    stops: mpsc::Receiver<Stop>,
    health: Arc<watch::Sender<ConsumerHealth>>,
    max: usize,
}

/// A receiver, and what comes back to it. When it is gone, settlements of its deliveries are stale:
/// no other receiver gets them.
struct ActiveReceiver {
    receiver: Box<dyn Receiver>,
    settler: Arc<Settler>,
    settlements: mpsc::Receiver<Decided>,
    delayed: DelayedRequeues,
    unsettled: usize,
}

impl Drop for ActiveReceiver {
    /// However it ended: the broker delivers again what no handler has begun on, so none need begin.
    fn drop(&mut self) {
        self.settler.revoke();
    }
}

/// How the time with one receiver ended.
enum Exit {
    /// The program asked for it.
    Stopped(Result<()>),
    /// The program did not, and the next receiver may succeed.
    Interrupted(Error),
    /// The program did not, and said that this is the end.
    Failed(Error),
}

impl ConsumeTask {
    async fn run(mut self, mut receiver: Box<dyn Receiver>) -> Result<()> {
        let result = loop {
            let receiving = guarded(CONSUME, self.receive_from(receiver)).await;
            // Whatever ended it: what is left is of a receiver that is gone.
            self.unstarted.release();
            let reason = match receiving.unwrap_or_else(Exit::Interrupted) {
                Exit::Stopped(result) => break result,
                Exit::Failed(reason) => break Err(reason),
                Exit::Interrupted(reason) => reason,
            };
            match self.reopen(reason).await {
                Ok(Some(next)) => receiver = next,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            self.subscribed();
        };
        self.to_handlers.close();
        self.unstarted.release();
        self.set(Health::Stopped { reason: result.as_ref().err().cloned() });
        result
    }

    fn set(&self, health: Health) {
        self.health.send_modify(|consumer| consumer.health = health);
    }

    fn subscribed(&self) {
        self.health.send_modify(|consumer| {
            consumer.health = Health::Ready;
            consumer.subscribed += 1;
        });
    }

    /// Consumes again, as soon as the broker lets it; `None` when it was told to stop.
    async fn reopen(&mut self, mut reason: Error) -> Result<Option<Box<dyn Receiver>>> {
        reason = self.source.interrupted(reason);
        loop {
            // The program closed the broker: no surprise, and nothing to try.
            if let Some(closed) = self.source.closed() {
                return Err(closed);
            }
            log(
                || tracing::warn!(queue = &**self.source.queue(), %reason, "not consuming; tried again later"),
            );
            self.set(Health::Reconnecting { reason });
            let opened = tokio::select! {
                biased;
                _ = self.stops.recv() => return Ok(None),
                opened = guarded(CONSUME, self.source.reopen(A_WHILE)) => opened,
            };
            let opened = opened.unwrap_or_else(|panicked| {
                let panicked = panicked.transient(true);
                self.source.failed(&panicked);
                Err(panicked)
            });
            match opened {
                Ok(receiver) => {
                    tracing::info!(queue = &**self.source.queue(), "consuming again");
                    return Ok(Some(receiver));
                }
                Err(error) if error.is_transient() => reason = error,
                Err(error) => {
                    return Err(Error::new(error.kind(), "consume")
                        .on(format!("queue {:?}", self.source.queue().as_str()))
                        .because(format!("it cannot be resumed ({error})"))
                        .caused_by(error));
                }
            }
        }
    }

    async fn receive_from(&mut self, receiver: Box<dyn Receiver>) -> Exit {
        // Room for every unsettled delivery, so that a settlement never finds it full.
        let (settle, settlements) = mpsc::channel(self.max + 1);
        let settler = Arc::new(Settler::new(settle, self.health.clone()));
        let mut active = ActiveReceiver {
            receiver,
            settler,
            settlements,
            delayed: DelayedRequeues::default(),
            unsettled: 0,
        };
        let mut arrived = Vec::with_capacity(self.max);
        let mut decided = Vec::with_capacity(self.max);
        let mut settled = Vec::with_capacity(self.max);
        loop {
            tokio::select! {
                biased;
                _ = active.settlements.recv_many(&mut decided, self.max) => {
                    settled.extend(decided.drain(..).map(Settle::from));
                    active.settle(&mut settled);
                }
                stop = self.stops.recv() => return Exit::Stopped(match stop {
                    Some(Stop { deadline }) => self.stop(active, deadline).await,
                    None => Ok(()),
                }),
                () = active.delayed.due() => {
                    active.delayed.requeue_due(&mut settled);
                    active.settle(&mut settled);
                }
                result = active.receiver.receive(&mut arrived, self.max) => {
                    self.hand_out(&mut active, &mut arrived);
                    match result {
                        Ok(()) => {}
                        // The program did not ask for it: an end all the same, and never a silent one.
                        Err(End::Stopped) => return Exit::Interrupted(self.ended("the broker ended it")),
                        Err(End::Cancelled(reason)) => {
                            self.drain(&mut active, deadline(GRACE)).await;
                            let cancelled = self
                                .ended(format!("the broker cancelled the consumer ({reason})"))
                                .remedy("was the queue deleted?")
                                .caused_by(reason);
                            return match self.on_cancel {
                                OnCancel::Resume => Exit::Interrupted(cancelled),
                                OnCancel::Fail => Exit::Failed(cancelled),
                            };
                        }
                        Err(End::Lost(reason)) => {
                            // The broker delivers them again: no handler need begin on these.
                            self.revoke_unstarted(&active);
                            return Exit::Interrupted(self.ended(format!("the channel ended ({reason})"))
                                .caused_by(reason));
                        }
                    }
                }
            }
        }
    }

    fn hand_out(&self, active: &mut ActiveReceiver, arrived: &mut Vec<Delivered>) {
        for delivered in arrived.drain(..) {
            // More than was asked for. Both channels have room for the prefetch: a settlement that
            // found none would be lost.
            if active.unsettled == self.max {
                active.receiver.settle(&[Settle::new(delivered.tag, Outcome::Release)]);
                continue;
            }
            active.unsettled += 1;
            let delivery = Delivery::new(delivered, self.codecs.clone(), active.settler.clone());
            let _ = self.to_handlers.try_send(delivery);
        }
    }

    async fn stop(&mut self, mut active: ActiveReceiver, deadline: Instant) -> Result<()> {
        // First, so that no handler begins while the broker is slow to answer.
        self.to_handlers.close();
        self.revoke_unstarted(&active);
        let stopping = if self.source.has_single_active_consumer() {
            timeout_at(deadline, active.receiver.stop_last()).await
        } else {
            timeout_at(deadline, active.receiver.stop()).await
        };
        self.drain(&mut active, deadline).await;
        match stopping {
            Ok(result) => result,
            Err(_) => Err(overdue("the broker did not stop the consumer in time")),
        }
    }

    /// Gives back what no handler has started on, and lets none start any more.
    fn revoke_unstarted(&self, active: &ActiveReceiver) {
        active.settler.revoke();
        self.unstarted.release();
    }

    /// Gives back what no handler has started on, waits for the settlements of the rest, closes.
    async fn drain(&self, active: &mut ActiveReceiver, by: Instant) {
        self.revoke_unstarted(active);
        let mut arrived = Vec::new();
        let mut settled = Vec::new();
        let mut more = true;
        let drained = async {
            loop {
                while let Ok(decided) = active.settlements.try_recv() {
                    settled.push(decided.into());
                }
                active.settle(&mut settled);
                // Sooner than asked for, which loses nothing; later this task would be gone.
                active.delayed.requeue_all(&mut settled);
                active.settle(&mut settled);
                if !more && active.unsettled == 0 {
                    return;
                }
                tokio::select! {
                    biased;
                    Some(decided) = active.settlements.recv() => settled.push(decided.into()),
                    result = active.receiver.receive(&mut arrived, self.max), if more => {
                        more = result.is_ok();
                        for Delivered { tag, .. } in arrived.drain(..) {
                            active.receiver.settle(&[Settle::new(tag, Outcome::Release)]);
                        }
                    }
                }
            }
        };
        let _ = timeout_at(by, drained).await;
        // Closing has a moment of its own: the settlements just sent must leave this process.
        let close_by = by.max(deadline(GRACE));
        if !matches!(timeout_at(close_by, active.receiver.close()).await, Ok(Ok(()))) {
            tracing::debug!(queue = &**self.source.queue(), "the receiver did not close properly");
        }
    }

    fn ended(&self, reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Connection, "consume")
            .on(format!("queue {:?}", self.source.queue().as_str()))
            .because(reason)
            .transient(false)
    }
}

impl ActiveReceiver {
    fn settle(&mut self, settled: &mut Vec<Settle>) {
        if !self.receiver.delays() {
            self.delayed.take(settled);
        }
        self.unsettled = self.unsettled.saturating_sub(settled.len());
        self.receiver.settle(settled);
        settled.clear();
    }
}

/// What a task does, for errors.
const CONSUME: &str = "consume";

/// How long one try to consume again may wait for a connection, before it says how things are.
const A_WHILE: Duration = Duration::from_secs(30);

fn overdue(reason: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, "stop consuming").because(reason)
}
