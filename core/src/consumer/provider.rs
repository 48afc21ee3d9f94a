//! Dependencies that are made for each worker.

use std::fmt;

use async_trait::async_trait;

use crate::{
    consumer::extract::{FromDelivery, FromState},
    consumer::incoming::{Hook, Incoming, WorkerInfo},
    failure::Failure,
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

    /// Called last, also when the handler never ran.
    async fn teardown(&self, worker: &WorkerInfo, handle: Self::Handle) -> Result<(), Failure> {
        let _ = (worker, handle);
        Ok(())
    }
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
