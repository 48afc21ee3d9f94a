//! Waiting until a worker has its result.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::timeout,
};

use crate::{
    error::{Error, ErrorKind, Result},
    service::RunningService,
    worker_result::{CAPACITY, WorkerResult},
};

/// Waits until a worker of a running service has its result, on any transport.
///
/// It hears of each worker that begins after the waiter was made, so make it before publishing.
/// Results that were passed over are kept, so that they can be waited for in any order. At most
/// 1,024 may be waiting; more are an error.
///
/// ```
/// use enoki::{Body, Outcome, Service, WorkQueue, testing::EntrypointWaiter};
/// # use std::time::Duration;
///
/// const BILLING: WorkQueue<u32> = WorkQueue::new("billing");
///
/// async fn bill(Body(cents): Body<u32>) {
///     println!("{cents} cents");
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// let broker = enoki::connect("memory://waiter").await?;
/// let running = Service::new("shop", broker.clone()).consume(&BILLING, bill).start().await?;
/// let mut waiter = EntrypointWaiter::new(&running);
/// let sent = broker.publisher(&BILLING.route()).await?.publish(&850).await?;
/// let result = waiter.of_message(&sent.message_id).await?;
/// assert_eq!(result.outcome, Some(Outcome::Ack));
/// # running.stop(Duration::from_secs(5)).await
/// # }
/// ```
#[derive(Debug)]
pub struct EntrypointWaiter {
    results: broadcast::Receiver<Arc<WorkerResult>>,
    passed: VecDeque<Arc<WorkerResult>>,
    within: Duration,
}

impl EntrypointWaiter {
    /// A waiter for the workers of this service.
    pub fn new(service: &RunningService) -> Self {
        Self {
            results: service.results().listen(),
            passed: VecDeque::new(),
            within: Duration::from_secs(30),
        }
    }

    /// How long each wait may take; 30 seconds by default.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// The next result that was not waited for yet, whichever it is.
    pub async fn any(&mut self) -> Result<Arc<WorkerResult>> {
        self.until("any worker", |_| true).await
    }

    /// The next result of the worker of the message with this id.
    pub async fn of_message(&mut self, message_id: &str) -> Result<Arc<WorkerResult>> {
        self.until(&format!("the worker of message {message_id:?}"), |result| {
            result.envelope.message.properties.message_id.as_deref() == Some(message_id)
        })
        .await
    }

    /// The next result of the handler of this name.
    pub async fn of_handler(&mut self, handler: &str) -> Result<Arc<WorkerResult>> {
        self.until(&format!("a worker of {handler:?}"), |result| &*result.handler == handler).await
    }

    /// The next result that is what is waited for; the error of a wait that takes too long names it
    /// by these words.
    ///
    /// Cancel safe: no result is lost.
    pub async fn until(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&WorkerResult) -> bool,
    ) -> Result<Arc<WorkerResult>> {
        let at = self.passed.iter().position(|result| wanted(result));
        if let Some(result) = at.and_then(|at| self.passed.remove(at)) {
            return Ok(result);
        }
        let (within, failed) =
            (self.within, |kind| Error::new(kind, "wait for").on(what.to_owned()));
        let waiting = async {
            loop {
                if self.passed.len() == CAPACITY {
                    return Err(failed(ErrorKind::TooLarge)
                        .because(format!("{CAPACITY} other results are waiting")));
                }
                match self.results.recv().await {
                    Ok(result) if wanted(&result) => return Ok(result),
                    Ok(result) => self.passed.push_back(result),
                    Err(RecvError::Lagged(missed)) => {
                        return Err(failed(ErrorKind::TooLarge).because(format!(
                            "{missed} results came while no call waited, and are lost"
                        )));
                    }
                    Err(RecvError::Closed) => {
                        return Err(failed(ErrorKind::Closed).because("the service is over"));
                    }
                }
            }
        };
        let waited = timeout(within, waiting).await;
        waited.unwrap_or_else(|_| {
            Err(failed(ErrorKind::Timeout).because(format!(
                "it had no result after {within:?}; {} others had",
                self.passed.len()
            )))
        })
    }
}
