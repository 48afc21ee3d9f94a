//! Does what the plan says: publishes the copy of a failed message or its dead letter, and says how the
//! original is settled then.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::{
    cause::{self, Cause, Kind},
    marks::{self, History},
};
use crate::{
    broker::Broker,
    delivery::Envelope,
    error::{Error, ErrorKind, Result},
    failure::Failure,
    message::{Message, payload::Raw},
    outcome::Outcome,
    publisher::{Publisher, PublisherOptions},
    retry::plan::{DECLARED_AGAIN, DelayedBy, Plan},
    short_str::ShortStr,
    task::log,
    topology::{Change, ExchangeKind, ExchangeSpec, route::RouteSpec},
};

/// What takes care of the failed messages of one consumer.
#[derive(Debug)]
pub(crate) struct Retrier {
    plan: Plan,
    broker: Broker,
    /// Its own route is that of the dead letters: a broker that does not report unroutable messages takes
    /// no others.
    publisher: Publisher<Raw>,
    /// When the queues of the plan were last declared.
    declared: Mutex<Instant>,
    queue: ShortStr,
    service: Arc<str>,
    handler: Arc<str>,
    host: String,
}

/// A failed attempt.
pub(crate) struct Failed<'f> {
    pub(crate) envelope: &'f Envelope,
    pub(crate) history: History,
    /// Why; `None` if the handler panicked.
    pub(crate) failure: Option<&'f Failure>,
}

impl Retrier {
    /// Opens a publisher for copies and dead letters. The queues of the plan have just been declared.
    pub(crate) async fn open(
        plan: Plan,
        broker: &Broker,
        queue: ShortStr,
        service: Arc<str>,
        handler: Arc<str>,
        deadline: Instant,
    ) -> Result<Self> {
        let target = &plan.dead.target;
        let route = if target.exchange.is_empty() {
            RouteSpec::<Raw>::to_queue(target.routing_key.as_deref().unwrap_or_default())?
        } else {
            // It is looked for by its name, whatever its kind is.
            let mut exchange =
                ExchangeSpec::existing(target.exchange.clone(), ExchangeKind::Direct);
            exchange.passive = true;
            RouteSpec::new(&exchange, target.routing_key.as_deref().unwrap_or_default())?
        };
        let options = PublisherOptions::new().timeout(PUBLISHED_WITHIN);
        let publisher = timeout_at(deadline, broker.publisher_with(route, options)).await;
        let publisher = publisher.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "consume")
                .on(format!("queue {:?}", queue.as_str()))
                .because("the publisher for its retries was not open in time"))
        })?;
        let (policy, by) = (plan.policy, plan.delayed_by);
        tracing::info!(
            queue = &*queue,
            handler = &*handler,
            "failed messages are tried again: {policy}; kept until then by: {by}; after the last one they go to {}",
            match target.exchange.is_empty() {
                true => format!("queue {:?}", target.routing_key.as_deref().unwrap_or_default()),
                false => format!("exchange {:?}", target.exchange.as_str()),
            },
        );
        Ok(Self {
            plan,
            broker: broker.clone(),
            publisher,
            declared: Mutex::new(Instant::now()),
            queue,
            service,
            handler,
            host: host(),
        })
    }

    /// Reads which attempt a delivery is, where the toolkit counts.
    pub(crate) fn begin(&self, envelope: &mut Envelope) -> History {
        match self.plan.delayed_by {
            DelayedBy::WaitQueues => marks::read(envelope, self.plan.adds_counts),
            DelayedBy::Broker | DelayedBy::Consumer => History::default(),
        }
    }

    /// Stores the message for its next attempt or as a dead letter, as the policy decided, and returns how
    /// the original is to be settled. It is acknowledged only if the broker has confirmed that it stored the
    /// other. Otherwise it comes back later.
    ///
    /// Dropped before it is ready, the message may be stored twice, and is not lost.
    pub(crate) async fn settle(&self, failed: Failed<'_>, decided: Outcome) -> Outcome {
        let (stored, what, later) = match decided {
            Outcome::RetryAfter(delay) if self.plan.delayed_by == DelayedBy::WaitQueues => {
                (self.store_copy(&failed, delay).await, "copy for the next attempt", delay)
            }
            Outcome::RetryAfter(delay) => {
                return Outcome::RetryAfter(self.plan.policy.lengthened(delay));
            }
            Outcome::Reject => {
                let longest = self.plan.policy.longest();
                (self.store_dead_letter(&failed).await, "dead letter", longest)
            }
            other => return other,
        };
        match stored {
            Ok(()) => Outcome::Ack,
            Err(error) => {
                let (queue, handler) = (&*self.queue, &*self.handler);
                log(|| {
                    tracing::error!(
                        queue, handler, %error, again_after = ?later,
                        "the {what} cannot be stored; the original stays in its queue"
                    );
                });
                Outcome::RetryAfter(later)
            }
        }
    }

    async fn store_copy(&self, failed: &Failed<'_>, delay: Duration) -> Result<()> {
        let Some(wait) = self.plan.wait_for(delay) else {
            return Err(
                Error::new(ErrorKind::Unexpected, "retry").because("there is no wait queue")
            );
        };
        let after = self.plan.policy.lengthened(wait.delay);
        let copy = marks::copy(failed.envelope, failed.history, after);
        if self.is_to_be_declared() {
            self.declare().await?;
        }
        let to_wait = || RouteSpec::<Raw>::to_queue(wait.spec.name.as_str());
        let stored = self.publisher.publication(copy.clone()).route(to_wait()?).publish().await;
        match stored {
            Err(error) if error.kind() == ErrorKind::Unroutable => {
                self.declare().await?;
                self.publisher.publication(copy).route(to_wait()?).publish().await.map(drop)
            }
            other => other.map(drop),
        }
    }

    async fn store_dead_letter(&self, failed: &Failed<'_>) -> Result<()> {
        let said = failed.failure.map(ToString::to_string);
        let cause = Cause {
            kind: if said.is_some() { Kind::Error } else { Kind::Panic },
            error: said.as_deref().unwrap_or("the handler panicked"),
            service: &self.service,
            handler: &self.handler,
            host: &self.host,
        };
        let Failed { envelope, history, .. } = failed;
        let by_toolkit = self.plan.delayed_by == DelayedBy::WaitQueues;
        let first_is_known = by_toolkit || envelope.attempt.number == 1;
        let letter = cause::dead_letter(envelope, *history, first_is_known, cause);
        match self.publish_dead_letter(envelope, letter.clone()).await {
            Err(error)
                if error.kind() == ErrorKind::Unroutable && self.plan.dead.declared.is_some() =>
            {
                self.declare().await?;
                self.publish_dead_letter(envelope, letter).await
            }
            other => other,
        }
    }

    async fn publish_dead_letter(&self, envelope: &Envelope, letter: Message) -> Result<()> {
        let letter = self.publisher.publication(letter);
        let target = &self.plan.dead.target;
        let letter = match &target.routing_key {
            Some(_) => letter,
            None => letter.key(envelope.routing_key.clone())?,
        };
        letter.publish().await.map(drop)
    }

    fn is_to_be_declared(&self) -> bool {
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        declared.elapsed() > DECLARED_AGAIN
    }

    /// Declares the queues of the plan again: one may be gone, or about to go.
    async fn declare(&self) -> Result<()> {
        let now = Instant::now();
        for queue in self.plan.queues() {
            self.broker.apply(&Change::DeclareQueue(queue.clone())).await?;
        }
        *self.declared.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(())
    }
}

/// How long a copy may take from the call to its outcome. Meanwhile its worker handles nothing else.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(10);

/// The name of this machine, as far as it tells.
fn host() -> String {
    let by_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let by_shell = || ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok());
    let name = by_kernel.or_else(by_shell).map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
