//! Handlers: async functions whose arguments come out of the delivery.

use std::{fmt, future::Future, marker::PhantomData, pin::Pin};

use crate::{
    consumer::incoming::Incoming, consumer::on_error::OnError, failure::Failure,
    message::codec::Codecs, outcome::Outcome, subscription::on_cancel::OnCancel,
};

/// An async function that handles deliveries from a queue of `M`, in a service with state `S`.
///
/// Any `async fn` of up to eight arguments is one, where each argument implements [`FromDelivery`](crate::FromDelivery),
/// and which returns `()`, [`Outcome`], or a `Result` of one of them with any error.
///
/// ```
/// use enoki_core::{Attempt, Body, Handler, OnError, Outcome, State};
///
/// async fn bill(State(rate): State<u32>, Body(order): Body<String>, attempt: Attempt) -> Outcome {
///     println!("{order} at {rate}, attempt {}", attempt.number);
///     Outcome::Ack
/// }
///
/// fn is_handler<A>(_: impl Handler<String, u32, A>) {}
/// is_handler(bill.concurrency(16).on_error(OnError::reject()));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle deliveries from a queue of `{M}` in a service with state `{S}`: a handler is an `async fn` whose arguments come out of the delivery, its body as `Body<{M}>`"
)]
pub trait Handler<M, S, A>: Clone + Send + Sync + Sized + 'static {
    /// Refuses, when the program is built, what the types of the arguments cannot refuse.
    #[doc(hidden)]
    const CHECKED: ();

    /// Takes the arguments out and runs the function.
    #[doc(hidden)]
    fn call<'c>(&'c self, incoming: Incoming<'c>, state: &'c S) -> HandlerFuture<'c>;

    /// How the consumer that runs it is set up.
    #[doc(hidden)]
    fn options(&self) -> ConsumerOptions;

    /// Its name in call ids and logs: by default that of the function.
    #[doc(hidden)]
    fn name(&self) -> &'static str;

    /// How many deliveries are handled at the same time, 1 to 65,535; 10 by default. With 1 they
    /// are handled in the order of the queue.
    fn concurrency(self, handlers: u16) -> Configured<Self, M, S, A> {
        Configured::new(self.options(), self).concurrency(handlers)
    }

    /// How many unsettled deliveries the broker may hand over, 1 to 65,535; as many as
    /// [`concurrency`](Handler::concurrency) by default.
    fn prefetch(self, deliveries: u16) -> Configured<Self, M, S, A> {
        Configured::new(self.options(), self).prefetch(deliveries)
    }

    /// What happens to a delivery whose handler returned an error; [`OnError::requeue`] by default, and
    /// [`OnError::retry`] tries it again later.
    fn on_error(self, on_error: impl Into<OnError>) -> Configured<Self, M, S, A> {
        Configured::new(self.options(), self).on_error(on_error)
    }

    /// What happens when the broker cancels the consumer, for instance because its queue was deleted;
    /// [`OnCancel::Resume`] by default.
    fn on_cancel(self, on_cancel: OnCancel) -> Configured<Self, M, S, A> {
        Configured::new(self.options(), self).on_cancel(on_cancel)
    }

    /// Errors of this type are no surprise: they are logged as warnings and not as errors. What
    /// happens to the delivery is the same.
    fn expects<E: std::error::Error + 'static>(self) -> Configured<Self, M, S, A> {
        Configured::new(self.options(), self).expects::<E>()
    }

    /// The encodings it accepts; the broker handle's by default.
    fn accept(self, codecs: Codecs) -> Configured<Self, M, S, A> {
        Configured::new(self.options(), self).accept(codecs)
    }

    /// Another name than the function's, in call ids and logs.
    fn named(self, name: &'static str) -> Configured<Self, M, S, A> {
        Configured::new(self.options(), self).named(name)
    }
}

/// What a handler's run comes to.
#[doc(hidden)]
pub type HandlerFuture<'c> = Pin<Box<dyn Future<Output = Handled> + Send + 'c>>;

/// What a handler's run came to.
#[doc(hidden)]
#[derive(Debug)]
pub enum Handled {
    /// The function returned.
    Returned(Result<Outcome, Failure>),
    /// An argument could not be taken out, or a provider failed; the function was not called.
    Refused(Failure),
}

/// How a consumer is set up.
#[doc(hidden)]
#[derive(Debug, Clone, Default)]
pub struct ConsumerOptions {
    pub(crate) concurrency: Option<u16>,
    pub(crate) prefetch: Option<u16>,
    pub(crate) on_error: OnError,
    pub(crate) on_cancel: OnCancel,
    pub(crate) accept: Option<Codecs>,
    pub(crate) name: Option<&'static str>,
    pub(crate) expected: Vec<Expected>,
}

/// Whether an error is one that is no surprise.
pub(crate) type Expected = fn(&(dyn std::error::Error + 'static)) -> bool;

/// A handler, and how the consumer that runs it is set up.
///
/// It remembers what it is a handler of, so that the compiler can tell where the handler alone does
/// not say: one without [`State`](crate::State) goes with a service of any state.
pub struct Configured<H, M, S, A> {
    handler: H,
    options: ConsumerOptions,
    handles: Handles<M, S, A>,
}

type Handles<M, S, A> = PhantomData<fn() -> (M, S, A)>;

impl<H, M, S, A> Configured<H, M, S, A> {
    fn new(options: ConsumerOptions, handler: H) -> Self {
        Self { handler, options, handles: PhantomData }
    }

    pub(crate) fn handler(&self) -> &H {
        &self.handler
    }

    pub(crate) fn own_options(&self) -> &ConsumerOptions {
        &self.options
    }

    /// See [`Handler::concurrency`].
    #[must_use]
    pub fn concurrency(mut self, handlers: u16) -> Self {
        self.options.concurrency = Some(handlers);
        self
    }

    /// See [`Handler::prefetch`].
    #[must_use]
    pub fn prefetch(mut self, deliveries: u16) -> Self {
        self.options.prefetch = Some(deliveries);
        self
    }

    /// See [`Handler::expects`].
    #[must_use]
    pub fn expects<E: std::error::Error + 'static>(mut self) -> Self {
        self.options.expected.push(|error| error.is::<E>());
        self
    }

    /// See [`Handler::on_cancel`].
    #[must_use]
    pub fn on_cancel(mut self, on_cancel: OnCancel) -> Self {
        self.options.on_cancel = on_cancel;
        self
    }

    /// See [`Handler::on_error`].
    #[must_use]
    pub fn on_error(mut self, on_error: impl Into<OnError>) -> Self {
        self.options.on_error = on_error.into();
        self
    }

    /// See [`Handler::accept`].
    #[must_use]
    pub fn accept(mut self, codecs: Codecs) -> Self {
        self.options.accept = Some(codecs);
        self
    }

    /// See [`Handler::named`].
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.options.name = Some(name);
        self
    }
}

impl<H: Clone, M, S, A> Clone for Configured<H, M, S, A> {
    fn clone(&self) -> Self {
        Self::new(self.options.clone(), self.handler.clone())
    }
}

impl<H, M, S, A> fmt::Debug for Configured<H, M, S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configured").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    note = "it returns `()`, `Outcome`, or a `Result` of one of them with any error"
)]
pub trait IntoOutcome {
    /// The outcome, or why there is none.
    fn into_outcome(self) -> Result<Outcome, Failure>;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Result<Outcome, Failure> {
        Ok(Outcome::Ack)
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Result<Outcome, Failure> {
        Ok(self)
    }
}

impl<T: IntoOutcome, E: Into<Failure>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Result<Outcome, Failure> {
        self.map_err(Into::into)?.into_outcome()
    }
}
