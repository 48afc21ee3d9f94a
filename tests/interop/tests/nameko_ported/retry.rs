//! `test_retry` and `test_retry_policy` of `test/amqp/test_publish.py`: how often a message is sent.

use enoki::{
    ErrorKind,
    publish::{PublisherOptions, RetryPolicy},
    topology::{RouteSpec, Topology},
};
use enoki_faults::proxy::{Act, Cut, Direction, Kind};
use enoki_interop::Checked;

use super::stage::{Stage, same};

/// How often a message is sent whose connection breaks each time before the confirm.
async fn sent(stage: &Stage, options: PublisherOptions, own: Option<RetryPolicy>) -> Checked<u64> {
    let broker = stage.behind_the_proxy().await?;
    let queue = stage.queue("q")?.of::<String>();
    let route = RouteSpec::to_queue(broker.queue_name(&queue)?.as_str())?;
    let options = options.declare(Topology::new().with_queue(&queue));
    let publisher = broker.publisher_with(route, options).await?;
    let proxy = stage.proxy();
    let frames = || proxy.traffic().frames(Direction::ToBroker, Kind::Publish);
    let before = frames();
    for nth in 1..=10 {
        proxy.arm(Direction::FromBroker, Kind::Confirm, nth, Act::Cut(Cut::Reset));
    }
    let mut publication = publisher.message(&"msg".to_owned())?;
    if let Some(policy) = own {
        publication = publication.retry(policy);
    }
    let outcome = publication.publish().await.map_err(|error| error.kind());
    proxy.disarm();
    same("the outcome", outcome.err(), Some(ErrorKind::Indeterminate))?;
    Ok(frames() - before)
}

/// So many retries are one try more; and none where the publisher wants none.
pub(crate) async fn retry(stage: &Stage) -> Checked {
    for (policy, expected) in [(RetryPolicy::new().retries(3), 4), (RetryPolicy::never(), 1)] {
        let options = PublisherOptions::new().retry(policy);
        same("how often it is sent", sent(stage, options, None).await?, expected)?;
    }
    Ok(())
}

/// A policy of the call's own wins over the publisher's.
pub(crate) async fn retry_policy(stage: &Stage) -> Checked {
    let options = PublisherOptions::new().retry(RetryPolicy::never());
    let own = Some(RetryPolicy::new().retries(1));
    same("how often it is sent", sent(stage, options, own).await?, 2)
}
