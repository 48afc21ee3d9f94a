//! Dependencies that are made for each worker.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc};

use async_trait::async_trait;
use futures_util::FutureExt;

use crate::{
    consumer::extract::{FromDelivery, FromState, Incoming},
    consumer::failure::Failure,
    delivery::Envelope,
    outcome::Outcome,
};

/// Makes a dependency for each worker, and is told what the worker's result was: a transaction that
/// is committed or rolled back, a span that is closed.
///
/// It is a part of the service's state, and a handler asks for what it makes by [`Provided`]. For one
/// delivery everything happens in this order, and only for providers that the handler asks for:
///
/// 1. [`provide`](Provider::provide), in the order of the handler's arguments;
/// 2. [`setup`](Provider::setup), in the same order;
/// 3. the handler;
/// 4. [`result`](Provider::result), in the same order, whether the handler succeeded or not, or was not
///    called, since an argument or a provider failed before;
/// 5. [`teardown`](Provider::teardown), in the opposite order, for everything that was provided;
/// 6. the delivery is settled.
///
/// An error in any of them fails the message as an error of the handler would, by what the [`Failure`]
/// says or else by the consumer's [`OnError`](crate::OnError), and nothing else. A panic is one, too. A
/// message that cannot be decoded is rejected, and has no result. [`Context::current`] is that of
/// the handler.
///
/// [`Context::current`]: crate::Context::current
///
/// ```
/// use std::sync::Arc;
///
/// use enoki::{
///     Body, Failure, Outcome, Service, WorkQueue, consume::{Provided, Provider, WorkerInfo},
///     topology::Topology,
/// };
/// use tokio::sync::Notify;
///
/// #[derive(Clone)]
/// struct Database {
///     committed: Arc<Notify>,
/// }
///
/// #[derive(Clone)]
/// struct Transaction;
///
/// #[async_trait::async_trait]
/// impl Provider for Database {
///     type Handle = Transaction;
///
///     async fn provide(&self, _: &WorkerInfo) -> Result<Transaction, Failure> {
///         Ok(Transaction)
///     }
///
///     async fn result(
///         &self,
///         _: &WorkerInfo,
///         _transaction: &Transaction,
///         result: Result<Outcome, &Failure>,
///     ) -> Result<(), Failure> {
///         println!("{}", if result.is_ok() { "commit" } else { "roll back" });
///         self.committed.notify_one();
///         Ok(()) // only now is the message acknowledged
///     }
/// }
///
/// const BILLING: WorkQueue<String> = WorkQueue::new("billing");
///
/// async fn bill(Provided(_transaction): Provided<Database>, Body(order): Body<String>) {
///     println!("{order}");
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// let broker = enoki::connect("memory://provider").await?;
/// broker.declare(&Topology::new().with_queue(&BILLING)).await?;
/// broker.publisher(&BILLING.route()).await?.publish(&"order 1".to_owned()).await?;
///
/// let committed = Arc::new(Notify::new());
/// Service::new("billing", broker)
///     .state(Database { committed: committed.clone() })
///     .consume(&BILLING, bill)
///     .run_until(committed.notified())
///     .await
/// # }
/// ```
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// What the handler gets.
    type Handle: Clone + Send + Sync + 'static;

    /// Makes it for one worker.
    async fn provide(&self, worker: &WorkerInfo) -> Result<Self::Handle, Failure>;

    /// Everything that the handler asked for is there; it runs next.
    async fn setup(&self, worker: &WorkerInfo, handle: &Self::Handle) -> Result<(), Failure> {
        let _ = (worker, handle);
        Ok(())
    }

    /// The handler has run: what it decided, or why it failed, or why it was not called. An error here fails the message, and
    /// is what the providers after this one are told.
    async fn result(
        &self,
        worker: &WorkerInfo,
        handle: &Self::Handle,
        result: Result<Outcome, &Failure>,
    ) -> Result<(), Failure> {
        let _ = (worker, handle, result);
        Ok(())
    }

    /// The last that is heard of it, also when the handler never ran.
    async fn teardown(&self, worker: &WorkerInfo, handle: Self::Handle) -> Result<(), Failure> {
        let _ = (worker, handle);
        Ok(())
    }
}

/// Which worker a [`Provider`] is asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The name of the service.
    pub service: Arc<str>,
    /// The name of the handler.
    pub handler: Arc<str>,
    /// The delivery that it handles.
    pub envelope: Envelope,
}

/// What a [`Provider`] makes for this worker, as an argument of a handler.
///
/// The provider is the service's state, or a part of it by [`FromState`].
pub struct Provided<P: Provider>(pub P::Handle);

impl<P: Provider<Handle: fmt::Debug>> fmt::Debug for Provided<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Provided").field(&self.0).finish()
    }
}

impl<M, S: Sync, P: Provider + FromState<S>> FromDelivery<M, S> for Provided<P> {
    async fn from_delivery(incoming: &mut Incoming<'_>, state: &S) -> Result<Self, Failure> {
        let provider = P::from_state(state);
        let worker = incoming.worker()?;
        let handle = provider.provide(&worker).await.map_err(Failure::of_provider)?;
        let made = Made { provider, worker, handle: Some(handle.clone()) };
        incoming.hooks().made.push(Box::new(made));
        Ok(Self(handle))
    }
}

/// What was provided to one worker, to be told of its result.
#[derive(Default)]
pub(crate) struct Hooks {
    made: Vec<Box<dyn Hook>>,
}

impl Hooks {
    pub(crate) async fn set_up(&mut self) -> Result<(), Failure> {
        for hook in &mut self.made {
            hook.setup().await.map_err(Failure::of_provider)?;
        }
        Ok(())
    }

    /// Tells the result to everything that was provided, and takes its leave; what comes of it is
    /// the result that counts.
    pub(crate) async fn result(
        &mut self,
        mut result: Result<Outcome, Failure>,
    ) -> Result<Outcome, Failure> {
        for hook in &mut self.made {
            if let Err(failure) = guarded(hook.result(result.as_ref().copied())).await {
                result = result.and(Err(failure));
            }
        }
        result
    }

    pub(crate) async fn tear_down(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        while let Some(mut hook) = self.made.pop() {
            result = result.and(guarded(hook.teardown()).await);
        }
        result
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("made", &self.made.len()).finish_non_exhaustive()
    }
}

/// A panic of one provider must not keep the others from their turn.
async fn guarded(hook: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    AssertUnwindSafe(hook)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(Failure::new("a provider of a dependency panicked")))
}

/// A provider and what it made, whose types are forgotten.
#[async_trait]
trait Hook: Send {
    async fn setup(&mut self) -> Result<(), Failure>;
    async fn result(&mut self, result: Result<Outcome, &Failure>) -> Result<(), Failure>;
    async fn teardown(&mut self) -> Result<(), Failure>;
}

struct Made<P: Provider> {
    provider: P,
    worker: WorkerInfo,
    /// There until the teardown.
    handle: Option<P::Handle>,
}

#[async_trait]
impl<P: Provider> Hook for Made<P> {
    async fn setup(&mut self) -> Result<(), Failure> {
        match &self.handle {
            Some(handle) => self.provider.setup(&self.worker, handle).await,
            None => Ok(()),
        }
    }

    async fn result(&mut self, result: Result<Outcome, &Failure>) -> Result<(), Failure> {
        match &self.handle {
            Some(handle) => self.provider.result(&self.worker, handle, result).await,
            None => Ok(()),
        }
    }

    async fn teardown(&mut self) -> Result<(), Failure> {
        match self.handle.take() {
            Some(handle) => self.provider.teardown(&self.worker, handle).await,
            None => Ok(()),
        }
    }
}
