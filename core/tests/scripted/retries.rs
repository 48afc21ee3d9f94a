//! Retries through wait queues, step by step: the copy is confirmed before the original is acknowledged, and
//! whatever goes wrong in between leaves the original where it is.

use std::{sync::Arc, time::Duration};

use enoki_core::{
    Body, Broker, BrokerOptions, Capability, Error, ErrorKind, Failure, Handler, OnError, Outcome,
    Purpose, QueueKind, Retry, RunningService, Service, Value, WorkQueue,
    transport::{Change, PublishOutcome},
};
use tokio::time::{Instant, sleep};

use crate::script::{
    ReceiverState, Script, ScriptedSession, SenderState, Trouble, Watched, in_time,
};

const BILLING: WorkQueue<String> = WorkQueue::new("billing");

async fn fails(_: Body<String>) -> Result<(), Failure> {
    Err(Failure::new("the bank does not answer"))
}

async fn panics(_: Body<String>) {
    panic!("the test says so");
}

struct Stage {
    receiver: Arc<Watched<ReceiverState>>,
    /// Of the publisher that the consumer has for its retries.
    sender: Arc<Watched<SenderState>>,
    consuming: Arc<ScriptedSession>,
    script: Arc<Script>,
    running: RunningService,
}

impl Stage {
    /// A service on a broker that delays nothing itself, with one delivery.
    async fn with<A: 'static>(handler: impl Handler<String, (), A>, policy: Retry) -> Self {
        let script = Script::new();
        script.state.change(|state| {
            state.lacks = vec![Capability::DelayedRequeue, Capability::ReplicatedDelayedRequeue];
        });
        let broker = Broker::connect_with(script.clone(), BrokerOptions::new()).await.unwrap();
        let service = Service::new("office", broker).consume(&BILLING, handler.on_error(policy));
        let running = service.start().await.unwrap();
        let receiver = script.receiver(0).await;
        receiver.deliver("order");
        let sender = script.sender(0).await;
        let consuming = script.session(Purpose::Consume, 0).await;
        Self { receiver, sender, consuming, script, running }
    }

    /// The queue that the nth message was published to, and its header of this name.
    fn sent(&self, n: usize, header: &str) -> (String, Option<Value>) {
        self.sender.change(|state| {
            let sent = &state.taken[n];
            assert!(sent.mandatory && sent.exchange.is_empty());
            (sent.routing_key.to_string(), sent.message.headers.get(header).cloned())
        })
    }

    fn is_settled(&self) -> bool {
        !self.receiver.settlements().is_empty()
    }

    fn declared(&self, name: &str) -> usize {
        let applied = self.consuming.applied();
        let declared = applied.iter().filter(
            |change| matches!(change, Change::DeclareQueue(queue) if queue.name.as_str() == name),
        );
        declared.count()
    }
}

#[tokio::test(start_paused = true)]
async fn the_copy_is_confirmed_before_the_original_is_acknowledged() {
    let stage = Stage::with(fails, OnError::retry()).await;
    stage.sender.took(1).await;
    assert_eq!(
        stage.sent(0, "enoki-attempt"),
        ("billing.retry.1000ms".to_owned(), Some(Value::from(2)))
    );
    let expiration = stage.sender.change(|state| state.taken[0].message.properties.expiration);
    let expiration = expiration.unwrap();
    assert!((1000..=1100).contains(&expiration.as_millis()), "{expiration:?}");
    // However long the broker takes to confirm it.
    sleep(Duration::from_secs(9)).await;
    assert!(!stage.is_settled());
    stage.sender.confirm(0..1);
    stage.receiver.settles(1).await;
    assert_eq!(stage.receiver.settlements(), [(1, Outcome::Ack)]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_never_confirmed_leaves_the_original_to_come_back() {
    let stage = Stage::with(fails, OnError::retry()).await;
    stage.sender.took(1).await;
    let since = Instant::now();
    stage.receiver.settles(1).await;
    assert_eq!(stage.receiver.settlements(), [(1, Outcome::Requeue)]);
    // The deadline of the copy, and then the delay.
    assert_eq!(since.elapsed().as_secs(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_the_broker_refuses_leaves_the_original_to_come_back() {
    let stage = Stage::with(fails, OnError::retry()).await;
    stage.sender.took(1).await;
    let refusal = Error::new(ErrorKind::Refused, "publish").because("the queue is full");
    stage.sender.tell(0, PublishOutcome::Rejected(refusal.transient(false)));
    stage.receiver.settles(1).await;
    assert_eq!(stage.receiver.settlements(), [(1, Outcome::Requeue)]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_queue_that_is_gone_is_declared_again_and_the_copy_published_again() {
    let stage = Stage::with(fails, OnError::retry()).await;
    assert_eq!(stage.declared("billing.retry.1000ms"), 1);
    stage.sender.took(1).await;
    stage.sender.tell(0, PublishOutcome::Unroutable);
    stage.sender.took(2).await;
    assert_eq!(stage.declared("billing.retry.1000ms"), 2);
    assert!(!stage.is_settled());
    assert_eq!(stage.sent(0, "enoki-attempt"), stage.sent(1, "enoki-attempt"));
    stage.sender.confirm(1..2);
    stage.receiver.settles(1).await;
    assert_eq!(stage.receiver.settlements(), [(1, Outcome::Ack)]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_no_queue_gets_twice_leaves_the_original_to_come_back() {
    let stage = Stage::with(fails, OnError::retry()).await;
    for n in 0..2 {
        stage.sender.took(n + 1).await;
        stage.sender.tell(n, PublishOutcome::Unroutable);
    }
    stage.receiver.settles(1).await;
    assert_eq!(stage.receiver.settlements(), [(1, Outcome::Requeue)]);
}

/// RabbitMQ expires a queue with the messages in it, and to publish to it is no use of it.
#[tokio::test(start_paused = true)]
async fn a_wait_queue_is_declared_again_before_it_can_expire_with_what_waits() {
    let stage = Stage::with(fails, OnError::retry()).await;
    stage.sender.took(1).await;
    stage.sender.confirm(0..1);
    assert_eq!(stage.declared("billing.retry.1000ms"), 1);
    for (after, declared) in [(60, 1), (300, 2), (60, 2), (400, 3)] {
        sleep(Duration::from_secs(after)).await;
        let sent = stage.sender.change(|state| state.taken.len());
        stage.receiver.deliver("another");
        stage.sender.took(sent + 1).await;
        stage.sender.confirm(sent..sent + 1);
        assert_eq!(stage.declared("billing.retry.1000ms"), declared, "after {after} s more");
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_may_be_killed_between_the_copy_and_the_acknowledgement() {
    let stage = Stage::with(fails, OnError::retry()).await;
    stage.sender.took(1).await;
    in_time(stage.running.kill()).await;
    // The broker gives an unsettled delivery to the next consumer: two messages with one id, and none lost.
    assert!(stage.receiver.settlements().iter().all(|(_, outcome)| *outcome != Outcome::Ack));
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_becomes_a_dead_letter_before_the_original_is_acknowledged() {
    for is_panic in [false, true] {
        let policy = OnError::retry().attempts(1);
        let stage = match is_panic {
            false => Stage::with(fails, policy).await,
            true => Stage::with(panics, policy).await,
        };
        assert_eq!(stage.declared("billing.dead"), 1);
        stage.sender.took(1).await;
        let kind = if is_panic { "panic" } else { "error" };
        let expected = ("billing.dead".to_owned(), Some(Value::from(kind)));
        assert_eq!(stage.sent(0, "enoki-error-kind"), expected);
        sleep(Duration::from_secs(9)).await;
        assert!(!stage.is_settled());
        // Its queue is gone: it is declared again.
        stage.sender.tell(0, PublishOutcome::Unroutable);
        stage.sender.took(2).await;
        assert_eq!(stage.declared("billing.dead"), 2);
        stage.sender.confirm(1..2);
        stage.receiver.settles(1).await;
        assert_eq!(stage.receiver.settlements(), [(1, Outcome::Ack)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_stored_leaves_the_original_to_come_back() {
    let stage = Stage::with(fails, OnError::retry().attempts(1)).await;
    stage.sender.took(1).await;
    let refusal = Error::new(ErrorKind::Refused, "publish").because("the queue is full");
    stage.sender.tell(0, PublishOutcome::Rejected(refusal.transient(false)));
    stage.receiver.settles(1).await;
    assert_eq!(stage.receiver.settlements(), [(1, Outcome::Requeue)]);
}

#[tokio::test(start_paused = true)]
async fn what_the_policy_needs_is_declared_at_start_or_the_service_does_not_start() {
    let stage = Stage::with(fails, OnError::retry()).await;
    let declared: Vec<_> = stage.consuming.applied().into_iter().collect();
    for millis in [1000, 2000, 4000, 8000] {
        let name = format!("billing.retry.{millis}ms");
        let found = declared.iter().find_map(|change| match change {
            Change::DeclareQueue(queue) if queue.name.as_str() == name => Some(queue),
            _ => None,
        });
        assert_eq!(found.unwrap().kind, QueueKind::Replicated, "{name}");
    }
    drop(stage.script);

    let script = Script::new();
    script.state.change(|state| {
        state.lacks = vec![Capability::DelayedRequeue, Capability::ReplicatedDelayedRequeue];
        state.apply_trouble = Some(|change| match change {
            Change::DeclareQueue(queue) if queue.name.as_str().contains(".retry.") => {
                Some(Trouble::Fails(Error::new(ErrorKind::Denied, "declare")))
            }
            _ => None,
        });
    });
    let broker = Broker::connect_with(script, BrokerOptions::new()).await.unwrap();
    let service = Service::new("office", broker);
    let started = service.consume(&BILLING, fails.on_error(OnError::retry())).start().await;
    assert_eq!(started.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_delays_and_counts_is_left_to_do_it() {
    let (broker, script) = Script::broker().await;
    let service = Service::new("office", broker);
    let _running =
        service.consume(&BILLING, fails.on_error(OnError::retry())).start().await.unwrap();
    let receiver = script.receiver(0).await;
    receiver.change(|state| state.delays = true);
    receiver.deliver("order");
    receiver.settles(1).await;
    let (_, outcome) = receiver.settlements()[0];
    let Outcome::RetryAfter(delay) = outcome else { panic!("{outcome}") };
    assert!((1000..=1100).contains(&delay.as_millis()), "{delay:?}");
}
