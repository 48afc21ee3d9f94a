//! Deliveries of one queue, and the task that owns the receiver.

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    broker::Broker,
    declare::declare,
    delivery::Delivery,
    error::{Error, ErrorKind, Result},
    message::codec::Codecs,
    outcome::Outcome,
    short_str::ShortStr,
    topology::Topology,
    transport::{Delivered, End, GRACE, Receiver, Settle},
};

/// The deliveries of one queue, taken by hand.
///
/// Made by [`Broker::subscribe`](crate::Broker::subscribe), where an example is. Dropped, it stops,
/// and what was not settled goes back to the queue.
#[derive(Debug)]
pub struct Subscription {
    deliveries: async_channel::Receiver<Delivery>,
    control: mpsc::Sender<Stop>,
    ended: watch::Receiver<Option<Result<()>>>,
    pump: JoinHandle<()>,
}

/// A wish to stop: settle until the deadline, then close.
#[derive(Debug, Clone, Copy)]
struct Stop {
    deadline: Instant,
}

impl Subscription {
    pub(crate) async fn open(
        broker: &Broker,
        topology: &Topology,
        queue: ShortStr,
        prefetch: u16,
    ) -> Result<Self> {
        if prefetch == 0 {
            return Err(Error::new(ErrorKind::Configuration, "consume")
                .on(format!("queue {:?}", queue.as_str()))
                .because(
                    "a prefetch of 0 means no limit to one broker and nothing at all to another",
                )
                .remedy("1 to 65535"));
        }
        let receiver = broker
            .with_session(|session| {
                let queue = &queue;
                async move {
                    declare(&*session, topology).await?;
                    session.receiver(queue, prefetch).await
                }
            })
            .await?;
        let (to_handlers, deliveries) = async_channel::bounded(prefetch.into());
        let (settle, settlements) = mpsc::channel(usize::from(prefetch) + 1);
        let (control, stops) = mpsc::channel(1);
        let (end, ended) = watch::channel(None);
        let pump = Pump {
            queue,
            receiver,
            codecs: broker.options().codecs.clone(),
            to_handlers,
            unstarted: deliveries.clone(),
            settle,
            settlements,
            stops,
            unsettled: 0,
            max: prefetch.into(),
        };
        let pump = tokio::spawn(async move { drop(end.send(Some(pump.run().await))) });
        Ok(Self { deliveries, control, ended, pump })
    }

    /// Waits for the next delivery; `None` after [`Subscription::stop`]. An error says why there
    /// will be no more: the broker cancelled the consumer, or the connection ended.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Delivery>> {
        if let Ok(delivery) = self.deliveries.recv().await {
            return Ok(Some(delivery));
        }
        self.end().await.map(|()| None)
    }

    /// Waits for the end, and says why it came. Cancel safe.
    async fn end(&self) -> Result<()> {
        end_of(self.ended.clone()).await
    }

    /// The end, for somebody else to wait for.
    pub(crate) fn watch_end(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let ended = self.ended.clone();
        end_of(ended)
    }

    pub(crate) fn deliveries(&self) -> async_channel::Receiver<Delivery> {
        self.deliveries.clone()
    }

    /// Stops: no more deliveries are asked for, those not taken yet are released uncounted, and the
    /// settlements of the others are awaited and sent until the deadline.
    pub async fn stop(&mut self, deadline: Instant) -> Result<()> {
        // Nobody there: it has ended already.
        let _ = self.control.try_send(Stop { deadline });
        match timeout_at(deadline + GRACE, self.end()).await {
            Ok(result) => result,
            Err(_) => {
                self.pump.abort();
                Err(overdue("the receiver did not close in time"))
            }
        }
    }

    /// Ends now: everything unsettled goes back to the queue.
    pub(crate) fn kill(&mut self) {
        self.pump.abort();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Dropping the receiver of the transport closes its channel.
        self.pump.abort();
    }
}

async fn end_of(mut ended: watch::Receiver<Option<Result<()>>>) -> Result<()> {
    let end = ended.wait_for(Option::is_some).await.map(|end| end.clone()).unwrap_or(None);
    // Who kills a pump does not ask how it ended; so one that is gone without a word has panicked.
    end.unwrap_or_else(|| {
        Err(Error::new(ErrorKind::Unexpected, "consume")
            .because("the task that receives ended without a word"))
    })
}

struct Pump {
    queue: ShortStr,
    receiver: Box<dyn Receiver>,
    codecs: Codecs,
    to_handlers: async_channel::Sender<Delivery>,
    /// The other end of the same channel, to take back what no handler has started on.
    unstarted: async_channel::Receiver<Delivery>,
    settle: mpsc::Sender<Settle>,
    settlements: mpsc::Receiver<Settle>,
    stops: mpsc::Receiver<Stop>,
    unsettled: usize,
    max: usize,
}

impl Pump {
    async fn run(mut self) -> Result<()> {
        let mut arrived = Vec::with_capacity(self.max);
        let mut settled = Vec::with_capacity(self.max);
        loop {
            tokio::select! {
                biased;
                _ = self.settlements.recv_many(&mut settled, self.max) => self.settle(&mut settled),
                stop = self.stops.recv() => match stop {
                    Some(Stop { deadline }) => return self.stop(deadline).await,
                    None => return Ok(()),
                },
                result = self.receiver.receive(&mut arrived, self.max) => {
                    self.hand_out(&mut arrived);
                    match result {
                        Ok(()) => {}
                        // Nobody asked for it: an end all the same, and never a silent one.
                        Err(End::Stopped) => return Err(self.ended("the broker ended it").transient(true)),
                        Err(End::Cancelled(reason)) => {
                            self.drain(Instant::now() + GRACE).await;
                            return Err(self.ended(format!("the broker cancelled the consumer ({reason})"))
                                .remedy("was the queue deleted?")
                                .caused_by(reason));
                        }
                        Err(End::Lost(reason)) => {
                            // The broker delivers them again: no handler need begin on these.
                            self.give_back();
                            return Err(self.ended(format!("the channel ended ({reason})"))
                                .transient(true)
                                .caused_by(reason));
                        }
                    }
                }
            }
        }
    }

    fn hand_out(&mut self, arrived: &mut Vec<Delivered>) {
        for delivered in arrived.drain(..) {
            // More than was asked for. Both channels have room for the prefetch: a settlement that
            // found none would be lost.
            if self.unsettled == self.max {
                let settle = Settle { tag: delivered.tag, outcome: Outcome::Release };
                self.receiver.settle(&[settle]);
                continue;
            }
            self.unsettled += 1;
            let delivery = Delivery::new(delivered, self.codecs.clone(), self.settle.clone());
            let _ = self.to_handlers.try_send(delivery);
        }
    }

    fn settle(&mut self, settled: &mut Vec<Settle>) {
        self.unsettled = self.unsettled.saturating_sub(settled.len());
        self.receiver.settle(settled);
        settled.clear();
    }

    async fn stop(mut self, deadline: Instant) -> Result<()> {
        // First, so that no handler begins while the broker is slow to answer.
        self.give_back();
        let stopping = timeout_at(deadline, self.receiver.stop()).await;
        self.drain(deadline).await;
        match stopping {
            Ok(result) => result,
            Err(_) => Err(overdue("the broker did not stop the consumer in time")),
        }
    }

    /// Gives back what no handler has started on.
    fn give_back(&self) {
        self.to_handlers.close();
        while let Ok(delivery) = self.unstarted.try_recv() {
            delivery.settle(Outcome::Release);
        }
    }

    /// Gives back what no handler has started on, waits for the settlements of the rest, closes.
    async fn drain(&mut self, deadline: Instant) {
        self.give_back();
        let mut arrived = Vec::new();
        let mut settled = Vec::new();
        let mut more = true;
        let drained = async {
            loop {
                while let Ok(settle) = self.settlements.try_recv() {
                    settled.push(settle);
                }
                self.unsettled = self.unsettled.saturating_sub(settled.len());
                self.receiver.settle(&settled);
                settled.clear();
                if !more && self.unsettled == 0 {
                    return;
                }
                tokio::select! {
                    biased;
                    Some(settle) = self.settlements.recv() => settled.push(settle),
                    result = self.receiver.receive(&mut arrived, self.max), if more => {
                        more = result.is_ok();
                        for Delivered { tag, .. } in arrived.drain(..) {
                            self.receiver.settle(&[Settle { tag, outcome: Outcome::Release }]);
                        }
                    }
                }
            }
        };
        let _ = timeout_at(deadline, drained).await;
        // Closing has a moment of its own: the settlements just sent must leave this process.
        let close_by = deadline.max(Instant::now() + GRACE);
        if !matches!(timeout_at(close_by, self.receiver.close()).await, Ok(Ok(()))) {
            tracing::debug!(queue = %self.queue, "the receiver did not close properly");
        }
    }

    fn ended(&self, reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Connection, "consume")
            .on(format!("queue {:?}", self.queue.as_str()))
            .because(reason)
            .transient(false)
    }
}

fn overdue(reason: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, "stop consuming").because(reason)
}
