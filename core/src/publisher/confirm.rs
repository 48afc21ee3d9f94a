//! The outcome of a message, to be awaited.

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    sync::oneshot,
    time::{Instant, Sleep},
};

use super::Confirmed;
use crate::{
    error::{Error, ErrorKind, Result},
    publisher::pipeline::Window,
    short_str::ShortStr,
};

/// The outcome of a message that was handed over; await it.
///
/// Dropping it does not take the message back.
///
/// ```
/// # use enoki::{WorkQueue, topology::Topology};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// const BILLING: WorkQueue<u32> = WorkQueue::new("billing");
///
/// let broker = enoki::connect("memory://confirm").await?;
/// broker.declare(&Topology::new().with_queue(&BILLING)).await?;
/// let orders = broker.publisher(&BILLING.route()).await?;
/// let mut confirms = Vec::new();
/// for order in 0..100 {
///     confirms.push(orders.enqueue(&order).await?); // waits only for room
/// }
/// for confirm in confirms {
///     confirm.await?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "the outcome is only known by awaiting it"]
pub struct Confirm {
    outcome: oneshot::Receiver<Result<()>>,
    message_id: ShortStr,
    exchange: ShortStr,
    window: Arc<Window>,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Confirm {
    pub(super) fn new(
        outcome: oneshot::Receiver<Result<()>>,
        message_id: ShortStr,
        exchange: ShortStr,
        window: Arc<Window>,
        deadline: Instant,
    ) -> Self {
        Self { outcome, message_id, exchange, window, deadline, timer: None }
    }

    /// The id of the message.
    pub fn message_id(&self) -> &ShortStr {
        &self.message_id
    }

    fn indeterminate(&self, reason: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Indeterminate, "publish to")
            .on(format!("exchange {:?}", self.exchange.as_str()))
            .because(reason)
            .remedy("publish it again with the same message id, if a duplicate does no harm")
    }
}

impl Future for Confirm {
    type Output = Result<Confirmed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match Pin::new(&mut this.outcome).poll(cx) {
            Poll::Ready(Ok(result)) => {
                return Poll::Ready(
                    result.map(|()| Confirmed { message_id: this.message_id.clone() }),
                );
            }
            Poll::Ready(Err(_)) => {
                return Poll::Ready(Err(
                    this.indeterminate("the publisher's task ended before the outcome was known")
                ));
            }
            Poll::Pending => {}
        }
        // Most outcomes are there when they are asked for: a timer is only made for the others.
        let deadline = this.deadline;
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        timer.as_mut().poll(cx).map(|()| {
            let trouble = this.window.trouble();
            let reason = format!("the broker had not confirmed it by the deadline{trouble}");
            Err(this.indeterminate(reason))
        })
    }
}

impl fmt::Debug for Confirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirm").field("message_id", &self.message_id).finish_non_exhaustive()
    }
}
