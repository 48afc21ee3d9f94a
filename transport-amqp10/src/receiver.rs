//! Consuming: the deliveries of one queue, on a link of their own.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use enoki_core::{
    Disposition, Error, ErrorKind, Outcome, Result, ShortStr,
    transport::{Delivered, End, Receiver, ReceiverOptions, Settle, later},
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
    connection::{self, Ended},
    connections::Connections,
    error::{self, Cause, queue_subject},
    headers::incoming::{Incoming, incoming},
    io::link_progress::LinkProgress,
    limits::REPLY_TIMEOUT,
    options::max_message,
    peer::{self, Dialect},
    session_pool::LinkSession,
    topology::rabbitmq::delays,
};

/// Receives from one queue.
///
/// `taken` never exceeds `granted`. The broker's credit, the deliveries inside fe2o3-amqp and those in
/// `unsettled` are together at most `prefetch`. Once `ended` is set, no more deliveries are taken; once
/// `link` is `None`, `ended` is set.
pub(crate) struct Amqp10Receiver {
    queue: ShortStr,
    /// `None` once it is closed. If it is dropped without being closed, the broker requeues all unsettled
    /// deliveries.
    link: Option<fe2o3_amqp::Receiver>,
    /// Declared behind the link and dropped after it: links end before their session.
    session: LinkSession,
    /// How many deliveries the broker sent on this link.
    progress: Arc<LinkProgress>,
    session_ended: watch::Receiver<Option<Ended>>,
    dialect: Dialect,
    /// Whether the queue can requeue for later.
    delays: bool,
    prefetch: u32,
    /// The largest body that is taken, in bytes.
    max_body: usize,
    /// The largest message that comes in whole, in bytes; the rest of a larger one is left out on the way.
    max_message: usize,
    /// How many deliveries were taken from the link. It is the tag of the last.
    taken: u64,
    /// How many deliveries the broker may have sent since the link was attached.
    granted: u64,
    unsettled: HashMap<u64, DeliveryInfo>,
    /// When `stop` was called: no more credit is granted since then.
    stopping: Option<Instant>,
    ended: Option<LinkEnd>,
}

/// Why the link gives no more deliveries. `receive` returns it each time that it is called.
#[derive(Debug, Clone)]
enum LinkEnd {
    Stopped,
    Cancelled(Cause),
    Lost(Cause),
}

impl Amqp10Receiver {
    /// Starts to consume.
    pub(crate) async fn open(connections: &Connections, options: ReceiverOptions) -> Result<Self> {
        options.refuse_arguments(connections.peer())?;
        let ReceiverOptions { queue, prefetch, name, .. } = options;
        let subject = queue_subject(&queue);
        let dialect = peer::dialect(connections.peer());
        let delays = delays(connections, &queue).await;
        let session = connections.session_from(&queue, CONSUME, &subject).await?;
        let name = connections.link_name(name.as_deref().unwrap_or("receiver"));
        let progress = session.socket().links.watch(&name);
        let builder = fe2o3_amqp::Receiver::builder()
            .name(name)
            .source(address::source(&queue, dialect))
            .sender_settle_mode(SenderSettleMode::Unsettled)
            .receiver_settle_mode(ReceiverSettleMode::First)
            .credit_mode(CreditMode::Manual);
        let (mut link, session) = connections
            .attach(CONSUME, &subject, session, |handle| builder.attach(handle).boxed())
            .await?;
        let prefetch = u32::from(prefetch.get());
        connections.answered(CONSUME, &subject, link.set_credit(prefetch)).await?;
        Ok(Self {
            queue,
            link: Some(link),
            session,
            progress,
            session_ended: connections.end_state().subscribe(),
            dialect,
            delays,
            prefetch,
            max_body: connections.options().max_body,
            max_message: max_message(connections.options()),
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
            // It may be the beginning of a message whose rest was left out.
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

    /// Takes a delivery of the link, or the reason why there are no more.
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
            Err(error) => self.ended = Some(Self::link_end(error)),
        }
    }

    fn link_end(error: RecvError) -> LinkEnd {
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
        if cancelled { LinkEnd::Cancelled(cause) } else { LinkEnd::Lost(cause) }
    }

    fn end(&self, end: &LinkEnd) -> End {
        match end {
            LinkEnd::Stopped => End::Stopped,
            LinkEnd::Cancelled(cause) => End::Cancelled(match cause {
                Cause::Peer(_) => error::failed(CONSUME, queue_subject(&self.queue), cause),
                _ => Error::new(ErrorKind::NotFound, CONSUME)
                    .on(queue_subject(&self.queue))
                    .because("the broker cancelled the consumer, as it does when a queue goes"),
            }),
            LinkEnd::Lost(cause) => End::Lost(self.lost(CONSUME, cause)),
        }
    }

    fn lost(&self, operation: &'static str, cause: &Cause) -> Error {
        let ended = self.session_ended.borrow();
        connection::failed(operation, &queue_subject(&self.queue), cause, ended.as_ref())
    }

    /// Whether every delivery was taken that the broker sent before it had no credit left. It says so when it
    /// is asked to drain (§2.6.7); Artemis does not answer if it had none left before.
    fn is_drained(&self) -> bool {
        let none_left = self.granted <= self.taken;
        let all_taken = self.progress.total().is_some_and(|total| total <= self.taken);
        self.stopping.is_some() && (none_left || all_taken)
    }

    /// Grants credit for as many deliveries as there is room for, once at least half of the room is without.
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

    /// Settles deliveries with one disposition. fe2o3-amqp writes one frame for a row of them.
    fn dispose(&self, deliveries: Vec<DeliveryInfo>, disposition: Disposition) {
        let Some(link) = &self.link else { return };
        if deliveries.is_empty() {
            return;
        }
        let state = state(disposition);
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
            if let Some(end) = &self.ended {
                return if into.len() > before { Ok(()) } else { Err(self.end(end)) };
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
            if self.is_drained() {
                self.ended = Some(LinkEnd::Stopped);
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
                () = self.progress.wait_drained(), if self.progress.total().is_none() => {}
                () = sleep_until(later(since, REPLY_TIMEOUT)) => {
                    let silent = "the broker did not say which deliveries were still under way";
                    self.ended = Some(LinkEnd::Lost(Cause::Lost(silent.to_owned())));
                }
            }
        }
    }

    fn settle(&mut self, settlements: &[Settle]) {
        for (disposition, deliveries) in grouped(settlements, &mut self.unsettled) {
            self.dispose(deliveries, disposition);
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
        if self.is_drained() {
            return Ok(());
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        match timeout(REPLY_TIMEOUT, link.drain()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lost("stop", &Cause::from(error))),
            Err(_) => Err(error::timed_out("stop", queue_subject(&self.queue))),
        }
    }

    async fn close(&mut self) -> Result<()> {
        // Deliveries that were not settled count as attempts, which closing a link does not say.
        let unsettled = self.unsettled.drain().map(|(_, info)| info).collect();
        self.dispose(unsettled, Disposition::Return { counted: true, after: None });
        let Some(link) = self.link.take() else { return Ok(()) };
        self.ended = Some(match self.ended.take() {
            Some(LinkEnd::Lost(cause)) => LinkEnd::Lost(cause),
            _ => LinkEnd::Stopped,
        });
        // Frames of one session are written in order, so the answer says that the broker has read
        // every settlement before it.
        match timeout(REPLY_TIMEOUT, link.close()).await {
            Ok(Ok(())) => {
                self.session.mark_reusable();
                Ok(())
            }
            // It was closed before.
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(error::timed_out("close", queue_subject(&self.queue))),
        }
    }
}

/// Takes the settled deliveries out of the unsettled ones, and puts those together that one frame can
/// settle. Each delivery is in one group, whatever its disposition is: one that stayed unsettled would
/// keep its credit until the link ends.
fn grouped<D>(
    settlements: &[Settle],
    unsettled: &mut HashMap<u64, D>,
) -> Vec<(Disposition, Vec<D>)> {
    let mut groups: Vec<(Disposition, Vec<D>)> = Vec::new();
    let mut delayed = Vec::new();
    for settle in settlements {
        let Some(delivery) = unsettled.remove(&settle.tag) else { continue };
        let disposition = settle.disposition;
        // Each delay has a time of its own, so these do not go together.
        if let Disposition::Return { after: Some(_), .. } = disposition {
            delayed.push((disposition, vec![delivery]));
            continue;
        }
        match groups.iter_mut().find(|(of_group, _)| *of_group == disposition) {
            Some((_, deliveries)) => deliveries.push(delivery),
            None => groups.push((disposition, vec![delivery])),
        }
    }
    groups.append(&mut delayed);
    groups
}

/// The outcome of AMQP 1.0 that says this (sections 3.4.2 to 3.4.5).
fn state(disposition: Disposition) -> TerminalDeliveryState {
    match disposition {
        Disposition::Accept => TerminalDeliveryState::Accepted(Accepted {}),
        Disposition::Reject => TerminalDeliveryState::Rejected(Rejected { error: None }),
        Disposition::Return { counted: false, after: None } => {
            TerminalDeliveryState::Released(Released {})
        }
        Disposition::Return { counted, after } => TerminalDeliveryState::Modified(Modified {
            delivery_failed: Some(counted),
            undeliverable_here: None,
            message_annotations: after.map(|delay| not_before(SystemTime::now(), delay)),
        }),
    }
}

/// The annotation that asks RabbitMQ to deliver a message no sooner than after this time, by the broker's
/// clock.
fn not_before(now: SystemTime, delay: Duration) -> Fields {
    let time = now.checked_add(delay.min(Outcome::LONGEST_DELAY)).unwrap_or(now);
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Rounded up: a delay is a minimum.
    let millis = i64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
    let time = WireValue::Timestamp(Timestamp::from_milliseconds(millis));
    Fields::from_iter([(Symbol::from("x-opt-delivery-time"), time)])
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

const CONSUME: &str = "consume from";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

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
        // A time that is further away than 49.7 days ends the queue.
        let longest = i64::try_from(Outcome::LONGEST_DELAY.as_millis()).unwrap();
        assert_eq!(at(Duration::ZERO, Duration::MAX), longest);
    }

    fn disposition() -> impl Strategy<Value = Disposition> {
        let after = proptest::option::of((1u64..3).prop_map(Duration::from_millis));
        prop_oneof![
            3 => Just(Disposition::Accept),
            1 => Just(Disposition::Reject),
            2 => (any::<bool>(), after)
                .prop_map(|(counted, after)| Disposition::Return { counted, after }),
        ]
    }

    proptest! {
        /// Whatever it is settled by: a delivery that stays here keeps its credit until the link ends.
        #[test]
        fn each_settled_delivery_is_in_one_frame_with_its_disposition(
            settled in vec((0u64..20, disposition()), 0..40),
        ) {
            let mut unsettled: HashMap<u64, u64> = (0..15).map(|tag| (tag, tag)).collect();
            let settlements: Vec<_> =
                settled.iter().map(|&(tag, disposition)| Settle::new(tag, disposition)).collect();
            let groups = grouped(&settlements, &mut unsettled);
            let mut said: Vec<_> = groups
                .iter()
                .flat_map(|(disposition, tags)| tags.iter().map(|tag| (*tag, *disposition)))
                .collect();
            said.sort_by_key(|(tag, _)| *tag);
            let mut meant = BTreeMap::new();
            for (tag, disposition) in settled.into_iter().filter(|(tag, _)| *tag < 15) {
                meant.entry(tag).or_insert(disposition);
            }
            prop_assert!(meant.keys().all(|tag| !unsettled.contains_key(tag)));
            prop_assert_eq!(unsettled.len() + meant.len(), 15);
            prop_assert_eq!(said, meant.into_iter().collect::<Vec<_>>());
            prop_assert!(groups.iter().all(|(_, tags)| !tags.is_empty()));
        }
    }
}
