//! Where failed messages of one queue wait for their next attempt, and where the last failure leads to. Pure.

use std::{fmt, time::Duration};

use super::policy::Retry;
use crate::{
    capability::{Capability, Peer},
    error::{Error, ErrorKind, Result},
    message::value::Value,
    short_str::ShortStr,
    topology::{DeadLetter, Overflow, QueueKind, QueueSpec, Topology},
};

/// Who keeps a failed message of a queue until its next attempt.
///
/// [`Broker::delayed_by`](crate::Broker::delayed_by) tells it, and each consumer with
/// [`OnError::retry`](crate::OnError::retry) logs it when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DelayedBy {
    /// The broker, in the queue itself. It counts the attempts.
    Broker,
    /// A wait queue for each delay, from which the broker sends the message back to its queue. What waits
    /// there is a copy, published and confirmed before the original is acknowledged; the toolkit counts the
    /// attempts in a header of it.
    WaitQueues,
    /// This process, which holds the delivery unsettled: it counts towards the prefetch, and comes back
    /// sooner when the consumer stops or its connection ends. The broker counts the attempts.
    Consumer,
}

impl DelayedBy {
    /// For this queue; `None` where the peer can do neither, so that no attempt could be counted.
    pub(crate) fn of(peer: &Peer, queue: &QueueSpec) -> Option<Self> {
        // Of a passive queue the kind is not known.
        let is_replicated = queue.kind == QueueKind::Replicated && !queue.passive;
        let by_replicated = is_replicated && peer.can(Capability::ReplicatedDelayedRequeue);
        if by_replicated || peer.can(Capability::DelayedRequeue) {
            return Some(Self::Broker);
        }
        if WAIT_QUEUES.iter().all(|capability| peer.can(*capability)) {
            return Some(Self::WaitQueues);
        }
        peer.can(Capability::DeliveryCount).then_some(Self::Consumer)
    }

    /// The error for a peer that can do neither.
    pub(crate) fn unsupported(peer: &Peer, queue: &ShortStr) -> Error {
        Error::new(ErrorKind::Unsupported, "retry")
            .on(format!("messages of queue {:?}", queue.as_str()))
            .because(format!(
                "{peer} neither counts attempts nor lets queues expire, so the retries would never end"
            ))
            .remedy("use `OnError::requeue()` or `OnError::reject()`")
    }
}

impl fmt::Display for DelayedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broker => "the broker",
            Self::WaitQueues => "wait queues",
            Self::Consumer => "this process, which holds the delivery",
        })
    }
}

/// What a peer has to do for wait queues.
const WAIT_QUEUES: &[Capability] = &[
    Capability::QueueExpiry,
    Capability::QueueMessageExpiry,
    Capability::MessageExpiry,
    Capability::DeadLetterRejected,
    Capability::DeadLetterExpired,
    Capability::UnroutableDetection,
];

/// What a consumer's policy comes to at one peer.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) policy: Retry,
    pub(crate) delayed_by: DelayedBy,
    /// By their delay, ascending. Empty unless wait queues are used.
    pub(crate) waits: Vec<WaitQueue>,
    pub(crate) dead: DeadLetters,
    /// Whether the broker counts failures of each stay in the queue and nothing else, so that its number may
    /// be added to the toolkit's.
    pub(crate) adds_counts: bool,
}

/// A queue that keeps copies for one delay.
#[derive(Debug)]
pub(crate) struct WaitQueue {
    pub(crate) delay: Duration,
    pub(crate) spec: QueueSpec,
}

/// Where a message goes after its last attempt.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    pub(crate) target: DeadLetter,
    /// The queue that is declared for them, where their queue has no dead letters of its own.
    pub(crate) declared: Option<QueueSpec>,
}

impl Plan {
    /// The plan for a queue of this topology, which other queues of the program may have in their names as
    /// `base` (a temporary queue has a suffix more).
    pub(crate) fn new(
        policy: Retry,
        peer: &Peer,
        queue: &ShortStr,
        base: &ShortStr,
        topology: &Topology,
    ) -> Result<Self> {
        let refused = |error: Error| error.on(format!("queue {:?}", queue.as_str()));
        policy.check().map_err(refused)?;
        let own = QueueSpec::named(queue.clone());
        let spec = topology.queues().iter().find(|spec| spec.name == *queue).unwrap_or(&own);
        let delayed_by =
            DelayedBy::of(peer, spec).ok_or_else(|| DelayedBy::unsupported(peer, queue))?;
        let waits = match delayed_by {
            DelayedBy::WaitQueues => {
                let levels = policy.levels().into_iter();
                levels.map(|delay| WaitQueue::new(delay, spec, peer)).collect::<Result<_>>()?
            }
            DelayedBy::Broker | DelayedBy::Consumer => Vec::new(),
        };
        if delayed_by == DelayedBy::Broker
            && let Some(limit) = spec.delivery_limit
            && limit < policy.most_attempts() - 1
        {
            return Err(refused(Error::new(ErrorKind::Configuration, "consume"))
                .because(format!(
                    "its delivery limit of {limit} comes before the last of {} attempts, and the dead \
                     letter would not say why",
                    policy.most_attempts()
                ))
                .remedy("declare no delivery limit, or have fewer attempts"));
        }
        Ok(Self {
            policy,
            delayed_by,
            waits,
            dead: DeadLetters::of(spec, base)?,
            adds_counts: peer.can(Capability::UncountedRelease),
        })
    }

    /// Adds the queues that it needs.
    pub(crate) fn describe(&self, topology: &mut Topology) {
        for queue in self.queues() {
            topology.add_queue(queue.clone());
        }
    }

    /// The queues that it needs.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &QueueSpec> {
        self.waits.iter().map(|wait| &wait.spec).chain(&self.dead.declared)
    }

    /// The wait queue for a delay: the first that is not shorter, or else the longest.
    pub(crate) fn wait_for(&self, delay: Duration) -> Option<&WaitQueue> {
        self.waits.iter().find(|wait| wait.delay >= delay).or(self.waits.last())
    }
}

impl WaitQueue {
    /// How long a wait queue stays unused. The broker expires a queue with the messages in it, and to publish
    /// to it is no use of it. So it has to outlive, since it was last declared, the time until it is declared
    /// again ([`DECLARED_AGAIN`]) and the longest wait after that.
    fn expires(delay: Duration) -> Duration {
        delay.saturating_mul(2).saturating_add(2 * DECLARED_AGAIN)
    }

    fn new(delay: Duration, of: &QueueSpec, peer: &Peer) -> Result<Self> {
        let name = format!("{}.retry.{}ms", of.name.as_str(), delay.as_millis());
        let mut spec = QueueSpec::new(name)?;
        // Copies say their own time, which is never longer. This is for those that others put there.
        spec.message_ttl = Some(Retry::at_the_longest(delay));
        spec.expires = Some(Self::expires(delay));
        spec.dead_letter = Some(DeadLetter::to_queue(of.name.clone()));
        let lasts = of.durable && !of.exclusive && !of.auto_delete;
        if lasts && peer.can(Capability::ReplicatedQueues) && peer.can(Capability::LengthLimit) {
            spec.kind = QueueKind::Replicated;
            // Without both, the broker removes a message that it has sent on, whether it arrived or not.
            spec.overflow = Some(Overflow::RejectPublish);
            let strategy = ShortStr::from_static("x-dead-letter-strategy");
            spec.arguments.set(strategy, Value::from("at-least-once"));
        }
        Ok(Self { delay, spec })
    }
}

/// Before a copy is published, its wait queue is declared again when that was so long ago.
pub(crate) const DECLARED_AGAIN: Duration = Duration::from_secs(5 * 60);

impl DeadLetters {
    fn of(queue: &QueueSpec, base: &ShortStr) -> Result<Self> {
        if let Some(target) = &queue.dead_letter {
            return Ok(Self { target: target.clone(), declared: None });
        }
        let mut spec = QueueSpec::new(format!("{}.dead", base.as_str()))?;
        if !queue.passive {
            spec.kind = queue.kind;
        }
        Ok(Self { target: DeadLetter::to_queue(spec.name.clone()), declared: Some(spec) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: ShortStr = ShortStr::from_static("billing");

    fn topology(change: impl FnOnce(&mut QueueSpec)) -> Topology {
        let mut spec = QueueSpec::named(QUEUE);
        change(&mut spec);
        let mut topology = Topology::new();
        topology.add_queue(spec);
        topology
    }

    fn peer(lacks: &[Capability]) -> Peer {
        let lacks = |can: &Capability| lacks.contains(can);
        let can = Capability::ALL.iter().copied();
        let can = can.filter(|can| !lacks(can) && !can.parts().iter().any(lacks));
        Peer::new("test", "1", can)
    }

    fn plan(peer: &Peer, topology: &Topology) -> Result<Plan> {
        Plan::new(Retry::new(), peer, &QUEUE, &QUEUE, topology)
    }

    /// As RabbitMQ.
    const NO_DELAYS: &[Capability] =
        &[Capability::DelayedRequeue, Capability::ReplicatedDelayedRequeue];

    #[test]
    fn the_peer_and_the_queue_decide_who_keeps_a_failed_message() {
        use Capability as C;
        let (classic, replicated) = (
            QueueSpec::named(QUEUE),
            QueueSpec { kind: QueueKind::Replicated, ..QueueSpec::named(QUEUE) },
        );
        let passive = QueueSpec { passive: true, ..replicated.clone() };
        for (lacks, queue, expected) in [
            (&[][..], &classic, Some(DelayedBy::Broker)),
            (&[C::DelayedRequeue], &replicated, Some(DelayedBy::Broker)),
            (&[C::DelayedRequeue], &classic, Some(DelayedBy::WaitQueues)),
            (&[C::DelayedRequeue], &passive, Some(DelayedBy::WaitQueues)),
            (NO_DELAYS, &replicated, Some(DelayedBy::WaitQueues)),
            (
                &[C::DelayedRequeue, C::ReplicatedDelayedRequeue, C::QueueExpiry],
                &classic,
                Some(DelayedBy::Consumer),
            ),
            (
                &[
                    C::DelayedRequeue,
                    C::ReplicatedDelayedRequeue,
                    C::DeadLetterExpired,
                    C::DeliveryCount,
                ],
                &classic,
                None,
            ),
        ] {
            assert_eq!(DelayedBy::of(&peer(lacks), queue), expected, "{lacks:?} {queue:?}");
        }
    }

    #[test]
    fn each_delay_has_a_wait_queue_that_sends_back_at_least_once_and_outlives_what_waits() {
        let plan = plan(&peer(NO_DELAYS), &topology(|_| {})).unwrap();
        let names: Vec<_> = plan.queues().map(|queue| queue.name.as_str()).collect();
        let expected = [
            "billing.retry.1000ms",
            "billing.retry.2000ms",
            "billing.retry.4000ms",
            "billing.retry.8000ms",
            "billing.dead",
        ];
        assert_eq!(names, expected);
        for wait in &plan.waits {
            let spec = &wait.spec;
            spec.check().unwrap();
            assert_eq!(spec.dead_letter, Some(DeadLetter::to_queue(QUEUE)));
            assert_eq!(
                (spec.kind, spec.overflow),
                (QueueKind::Replicated, Some(Overflow::RejectPublish))
            );
            assert!(spec.arguments.contains("x-dead-letter-strategy"));
            let longest = DECLARED_AGAIN + Retry::at_the_longest(wait.delay);
            assert!(spec.expires.unwrap() > longest, "{spec:?}");
        }
        let wait =
            |millis| plan.wait_for(Duration::from_millis(millis)).map(|wait| wait.delay.as_secs());
        assert_eq!([wait(1), wait(1001), wait(8000), wait(8001)], [1, 2, 8, 8].map(Some));
    }

    #[test]
    fn the_longest_delay_makes_a_queue_that_brokers_take() {
        let policy = Retry::new().first(Duration::MAX).at_most(Duration::MAX);
        let plan = Plan::new(policy, &peer(NO_DELAYS), &QUEUE, &QUEUE, &topology(|_| {})).unwrap();
        plan.queues().for_each(|queue| queue.check().unwrap());
    }

    #[test]
    fn wait_queues_of_a_queue_that_goes_are_on_one_node_and_the_dead_letters_stay() {
        let name = ShortStr::from_static("screen.123");
        let base = ShortStr::from_static("screen");
        let topology = {
            let mut topology = Topology::new();
            topology.add_queue(QueueSpec { exclusive: true, ..QueueSpec::named(name.clone()) });
            topology
        };
        let plan = Plan::new(Retry::new(), &peer(NO_DELAYS), &name, &base, &topology).unwrap();
        assert!(plan.waits.iter().all(|wait| wait.spec.kind == QueueKind::Classic));
        assert!(plan.waits.iter().all(|wait| wait.spec.arguments.is_empty()));
        assert_eq!(plan.waits[0].spec.name.as_str(), "screen.123.retry.1000ms");
        assert_eq!(plan.dead.declared.unwrap().name.as_str(), "screen.dead");
    }

    #[test]
    fn dead_letters_go_where_the_queue_s_own_go() {
        let own = DeadLetter { exchange: ShortStr::from_static("lost"), routing_key: None };
        let plan = plan(&peer(NO_DELAYS), &topology(|queue| queue.dead_letter = Some(own.clone())))
            .unwrap();
        assert!(plan.dead.declared.is_none());
        assert_eq!(plan.dead.target, own);
    }

    #[test]
    fn a_policy_that_cannot_be_kept_is_refused_at_start() {
        let limit = |limit| {
            topology(|queue| {
                queue.kind = QueueKind::Replicated;
                queue.delivery_limit = Some(limit);
                queue.dead_letter = Some(DeadLetter::to_queue(ShortStr::from_static("lost")));
            })
        };
        plan(&peer(&[]), &limit(4)).unwrap();
        plan(&peer(NO_DELAYS), &limit(1)).unwrap();
        let error = plan(&peer(&[]), &limit(3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(
            error.to_string().contains("queue \"billing\": its delivery limit of 3"),
            "{error}"
        );

        let error = plan(&Peer::new("GarageMQ", "1", []), &topology(|_| {})).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("GarageMQ 1 neither counts"), "{error}");

        let long = ShortStr::from_static(Box::leak("q".repeat(250).into_boxed_str()));
        let error = Plan::new(Retry::new(), &peer(NO_DELAYS), &long, &long, &topology(|_| {}));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Configuration);
    }
}
