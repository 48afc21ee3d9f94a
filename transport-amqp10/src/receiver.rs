//! Deliveries of one queue, on a link of their own.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use enoki_core::{
    Error, ErrorKind, Outcome, Result, ShortStr,
    transport::{Delivered, End, Receiver, Session, Settle, later},
};
use fe2o3_amqp::{
    link::{
        RecvError,
        delivery::{Delivery, DeliveryInfo},
        receiver::{CreditMode, TerminalDeliveryState},
    },
    types::{
        definitions::{Fields, ReceiverSettleMode, SenderSettleMode},
        messaging::{Accepted, Batch, Data, Modified, Rejected, Released},
        primitives::{Symbol, Timestamp, Value as WireValue},
    },
};
use futures_util::FutureExt;
use tokio::{
    sync::watch,
    task::unconstrained,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    address,
    connection::{Ended, REPLY_TIMEOUT},
    error::{self, Cause},
    headers::{Incoming, incoming},
    io::link_progress::Gauge,
    peer::{self, Dialect},
    session::{self, Amqp10Session},
    session_pool::Channel,
    topology,
};

/// A consumer.
pub(crate) struct Amqp10Receiver {
    queue: ShortStr,
    /// Gone once it is closed; dropping it gives everything unsettled back.
    link: Option<fe2o3_amqp::Receiver>,
    /// Dropped after the link: links end before their session.
    channel: Channel,
    gauge: Arc<Gauge>,
    health: watch::Receiver<Option<Ended>>,
    dialect: Dialect,
    /// Whether the queue can requeue for later.
    delays: bool,
    prefetch: u32,
    /// The largest body to take, and the largest message that comes in whole.
    max_body: usize,
    max_message: usize,
    /// Deliveries taken from the link, of which the last has this tag.
    taken: u64,
    /// How many deliveries the broker may have sent, since the link began.
    granted: u64,
    unsettled: HashMap<u64, DeliveryInfo>,
    /// Since when nothing more is wanted.
    stopping: Option<Instant>,
    ended: Option<Over>,
}

/// An end that can be told again.
#[derive(Debug, Clone)]
enum Over {
    Stopped,
    Cancelled(Cause),
    Lost(Cause),
}

impl Amqp10Receiver {
    /// Starts to consume.
    pub(crate) async fn open(
        session: &Amqp10Session,
        queue: &ShortStr,
        prefetch: u16,
    ) -> Result<Self> {
        let subject = subject(queue);
        if prefetch == 0 {
            return Err(Error::new(ErrorKind::Configuration, CONSUME)
                .on(subject)
                .because("a prefetch of 0 would receive nothing"));
        }
        let delays = topology::delays(session, queue).await;
        let channel = session.pool().channel_from(queue, CONSUME, &subject).await?;
        let name = session.link_name("receiver");
        let gauge = channel.line().links.watch(&name);
        let builder = fe2o3_amqp::Receiver::builder()
            .name(name)
            .source(address::source(queue, peer::dialect(session.peer())))
            .sender_settle_mode(SenderSettleMode::Unsettled)
            .receiver_settle_mode(ReceiverSettleMode::First)
            .credit_mode(CreditMode::Manual);
        let (mut link, channel) = session
            .attach(CONSUME, &subject, channel, |handle| builder.attach(handle).boxed())
            .await?;
        let prefetch = u32::from(prefetch);
        session.answered(CONSUME, &subject, link.set_credit(prefetch)).await?;
        Ok(Self {
            queue: queue.clone(),
            link: Some(link),
            channel,
            gauge,
            health: session.health(),
            dialect: peer::dialect(session.peer()),
            delays,
            prefetch,
            max_body: session.options().max_body,
            max_message: session.options().max_message(),
            taken: 0,
            granted: u64::from(prefetch),
            unsettled: HashMap::new(),
            stopping: None,
            ended: None,
        })
    }

    fn take(&mut self, delivery: Delivery<Batch<Data>>) -> Delivered {
        let (info, message) = delivery.into_parts();
        let mut sections = message.body.into_inner().into_iter().map(|data| data.0.into_vec());
        let bytes = match (sections.next(), sections.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => Bytes::from(only),
            (Some(mut whole), Some(second)) => {
                whole.extend_from_slice(&second);
                sections.for_each(|section| whole.extend_from_slice(&section));
                Bytes::from(whole)
            }
        };
        let mut read = incoming(&bytes, self.dialect);
        if read.message.body.len() > self.max_body || bytes.len() > self.max_message {
            // Or the beginning of one, whose rest was left out.
            read.message.body = Bytes::new();
            read.undecodable = Some("the body exceeds the limit `max_body`".into());
        }
        self.deliver(info, read)
    }

    fn deliver(&mut self, info: DeliveryInfo, incoming: Incoming) -> Delivered {
        self.taken += 1;
        self.unsettled.insert(self.taken, info);
        let Incoming { message, exchange, routing_key, redelivered, attempt, undecodable } =
            incoming;
        Delivered {
            tag: self.taken,
            message: Arc::new(message),
            exchange,
            routing_key,
            redelivered,
            attempt,
            undecodable,
        }
    }

    /// Takes what the link gave, or why it gives no more.
    fn received(
        &mut self,
        received: Result<Delivery<Batch<Data>>, RecvError>,
        into: &mut Vec<Delivered>,
    ) {
        match received {
            Ok(delivery) => {
                let delivered = self.take(delivery);
                into.push(delivered);
            }
            Err(RecvError::MessageDecode(error)) => {
                let mut delivered = self.deliver(error.info, incoming(&Bytes::new(), self.dialect));
                delivered.undecodable = Some(error.source.to_string().into());
                into.push(delivered);
            }
            Err(error) => self.ended = Some(self.over(error)),
        }
    }

    fn over(&self, error: RecvError) -> Over {
        let cancelled = matches!(
            error,
            RecvError::LinkStateError(
                fe2o3_amqp::link::LinkStateError::RemoteClosed
                    | fe2o3_amqp::link::LinkStateError::RemoteClosedWithError(_)
                    | fe2o3_amqp::link::LinkStateError::RemoteDetached
                    | fe2o3_amqp::link::LinkStateError::RemoteDetachedWithError(_)
            )
        );
        let cause = Cause::from(error);
        if cancelled { Over::Cancelled(cause) } else { Over::Lost(cause) }
    }

    fn end(&self, over: &Over) -> End {
        match over {
            Over::Stopped => End::Stopped,
            Over::Cancelled(cause) => End::Cancelled(match cause {
                Cause::Peer(_) => error::failed(CONSUME, subject(&self.queue), cause),
                _ => Error::new(ErrorKind::NotFound, CONSUME)
                    .on(subject(&self.queue))
                    .because("the broker cancelled the consumer, as it does when a queue goes"),
            }),
            Over::Lost(cause) => End::Lost(self.lost(CONSUME, cause)),
        }
    }

    fn lost(&self, operation: &'static str, cause: &Cause) -> Error {
        session::failed(operation, &subject(&self.queue), cause, self.health.borrow().as_ref())
    }

    /// Whether all that was under way when the broker gave up its credit has been given. A broker
    /// that had none left need not say so, and Artemis does not.
    fn is_empty(&self) -> bool {
        let none_left = self.granted <= self.taken;
        let all_taken = self.gauge.total().is_some_and(|total| total <= self.taken);
        self.stopping.is_some() && (none_left || all_taken)
    }

    /// Asks for as many deliveries as there is room for, once half of it is not asked for: when
    /// there is no credit, at once.
    fn top_up(&mut self) {
        let room = self.prefetch.saturating_sub(count(self.unsettled.len()));
        let Some(link) = &mut self.link else { return };
        if self.stopping.is_some() || self.ended.is_some() || link.credit() > room / 2 {
            return;
        }
        // The link's queue is longer than any prefetch, so this never waits.
        let _ = unconstrained(link.set_credit(room)).now_or_never();
        self.granted = self.taken + u64::from(room);
    }

    /// Settles these; what can be is said in one frame for a row of deliveries.
    fn dispose(&self, deliveries: Vec<DeliveryInfo>, outcome: Outcome) {
        let Some(link) = &self.link else { return };
        if deliveries.is_empty() {
            return;
        }
        let state = match outcome {
            Outcome::Ack => TerminalDeliveryState::Accepted(Accepted {}),
            Outcome::Release => TerminalDeliveryState::Released(Released {}),
            Outcome::Reject => TerminalDeliveryState::Rejected(Rejected { error: None }),
            Outcome::RetryAfter(delay) => TerminalDeliveryState::Modified(Modified {
                delivery_failed: Some(true),
                undeliverable_here: None,
                message_annotations: Some(not_before(SystemTime::now(), delay)),
            }),
            // `Requeue`; and what a later version of the core may add loses nothing this way.
            _ => TerminalDeliveryState::Modified(Modified {
                delivery_failed: Some(true),
                undeliverable_here: None,
                message_annotations: None,
            }),
        };
        // The link's queue is longer than any prefetch, so this never waits. A link that is gone
        // fails here and is noticed by `receive`.
        let _ = unconstrained(link.dispose_all(deliveries, state)).now_or_never();
    }
}

impl fmt::Debug for Amqp10Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp10Receiver")
            .field("queue", &self.queue)
            .field("unsettled", &self.unsettled.len())
            .field("stopping", &self.stopping)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Receiver for Amqp10Receiver {
    async fn receive(&mut self, into: &mut Vec<Delivered>, max: usize) -> Result<(), End> {
        let before = into.len();
        loop {
            if let Some(over) = &self.ended {
                return if into.len() > before { Ok(()) } else { Err(self.end(over)) };
            }
            let Some(link) = &mut self.link else { return Err(End::Stopped) };
            if into.len() - before >= max.max(1) {
                return Ok(());
            }
            if let Some(received) = link.recv().now_or_never() {
                self.received(received, into);
                continue;
            }
            if into.len() > before {
                return Ok(());
            }
            if self.is_empty() {
                self.ended = Some(Over::Stopped);
                continue;
            }
            let Some(link) = &mut self.link else { return Err(End::Stopped) };
            let Some(since) = self.stopping else {
                let received = link.recv().await;
                self.received(received, into);
                continue;
            };
            tokio::select! {
                biased;
                received = link.recv() => self.received(received, into),
                () = self.gauge.emptied(), if self.gauge.total().is_none() => {}
                () = sleep_until(later(since, REPLY_TIMEOUT)) => {
                    let silent = "the broker did not say what was still under way";
                    self.ended = Some(Over::Lost(Cause::Lost(silent.to_owned())));
                }
            }
        }
    }

    fn settle(&mut self, settlements: &[Settle]) {
        // One pass for each outcome that occurs: mostly there is one.
        for outcome in [Outcome::Ack, Outcome::Reject, Outcome::Release, Outcome::Requeue] {
            let deliveries = settlements
                .iter()
                .filter(|settle| settle.outcome == outcome)
                .filter_map(|settle| self.unsettled.remove(&settle.tag))
                .collect();
            self.dispose(deliveries, outcome);
        }
        for settle in settlements {
            if let Outcome::RetryAfter(_) = settle.outcome
                && let Some(delivery) = self.unsettled.remove(&settle.tag)
            {
                self.dispose(vec![delivery], settle.outcome);
            }
        }
        self.top_up();
    }

    fn delays(&self) -> bool {
        self.delays
    }

    async fn stop(&mut self) -> Result<()> {
        if self.stopping.is_some() || self.ended.is_some() {
            return Ok(());
        }
        self.stopping = Some(Instant::now());
        if self.is_empty() {
            return Ok(());
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        match timeout(REPLY_TIMEOUT, link.drain()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lost("stop", &Cause::from(error))),
            Err(_) => Err(error::timed_out("stop", subject(&self.queue))),
        }
    }

    async fn close(&mut self) -> Result<()> {
        // Deliveries that nobody settled count as attempts, which closing a link does not say.
        let unsettled = self.unsettled.drain().map(|(_, info)| info).collect();
        self.dispose(unsettled, Outcome::Requeue);
        let Some(link) = self.link.take() else { return Ok(()) };
        self.ended = Some(match self.ended.take() {
            Some(Over::Lost(cause)) => Over::Lost(cause),
            _ => Over::Stopped,
        });
        // Frames of one session are written in order, so the answer says that the broker has read
        // every settlement before it.
        match timeout(REPLY_TIMEOUT, link.close()).await {
            Ok(Ok(())) => {
                self.channel.release();
                Ok(())
            }
            // It was closed before.
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(error::timed_out("close", subject(&self.queue))),
        }
    }
}

/// What asks RabbitMQ to deliver a message no sooner than after this time, by its own clock.
fn not_before(now: SystemTime, delay: Duration) -> Fields {
    let time = now.checked_add(delay.min(Outcome::LONGEST_DELAY)).unwrap_or(now);
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Rounded up: a delay is a minimum.
    let millis = i64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
    let time = WireValue::Timestamp(Timestamp::from_milliseconds(millis));
    Fields::from_iter([(Symbol::from("x-opt-delivery-time"), time)])
}

fn subject(queue: &ShortStr) -> String {
    format!("queue {:?}", queue.as_str())
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

const CONSUME: &str = "consume from";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_ends_at_a_time_and_never_sooner() {
        let at = |now: Duration, delay| {
            let fields = not_before(SystemTime::UNIX_EPOCH + now, delay);
            match fields.get(&Symbol::from("x-opt-delivery-time")) {
                Some(WireValue::Timestamp(time)) => time.milliseconds(),
                other => panic!("{other:?}"),
            }
        };
        let millis = Duration::from_millis;
        assert_eq!(at(millis(1000), millis(250)), 1250);
        assert_eq!(at(Duration::from_micros(1_000_001), millis(250)), 1251);
        // What is further away than 49.7 days ends the queue.
        let longest = i64::try_from(Outcome::LONGEST_DELAY.as_millis()).unwrap();
        assert_eq!(at(Duration::ZERO, Duration::MAX), longest);
    }
}
