//! How a function is taken as a [`Handler`], so that each mistake has a compile error of its own.
//!
//! The compiler tells of the innermost bound that does not hold. So the shape of the function
//! ([`Call`]) asks nothing of its arguments and its result; these have bounds of their own, each with
//! a message. The `do_not_recommend` on the implementation for every type keeps the error at the
//! trait with the message, and short.
//!
//! Programs do not name any of this: it is public because the bounds of [`Handler`] are.

use std::future::{Ready, ready};

use crate::{
    consumer::extract::FromDelivery,
    consumer::handler::{
        Configured, ConsumerOptions, Handled, Handler, HandlerFuture, IntoOutcome,
    },
    consumer::incoming::Incoming,
    failure::Failure,
    outcome::Outcome,
};

/// A function of at most eight arguments, or one that is [`Configured`].
pub trait Function<M, S, A>: Clone + Send + Sync + 'static {
    /// What it returns, before that is awaited.
    type Returned;
    /// Its arguments, and [`NoArgument`] up to eight.
    type Arguments;
    /// How many arguments it has, where that can be too many.
    type Arity;
    /// See [`Handler::CHECKED`].
    const CHECKED: ();

    /// Calls it.
    fn apply(&self, arguments: Self::Arguments) -> Self::Returned;
    /// See [`Call::delegate`].
    fn delegated<'c>(&'c self, incoming: Incoming<'c>, state: &'c S) -> Delegated<'c>;
    /// See [`Call::options`].
    fn set_up(&self) -> ConsumerOptions;
    /// See [`Call::name`].
    fn called(&self) -> &'static str;
}

#[diagnostic::do_not_recommend]
impl<F: Call<M, S, A>, M, S, A> Function<M, S, A> for F {
    type Returned = F::Returned;
    type Arguments = F::Arguments;
    type Arity = F::Arity;
    const CHECKED: () = F::CHECKED;

    fn apply(&self, arguments: Self::Arguments) -> Self::Returned {
        self.call_with(arguments)
    }

    fn delegated<'c>(&'c self, incoming: Incoming<'c>, state: &'c S) -> Delegated<'c> {
        self.delegate(incoming, state)
    }

    fn set_up(&self) -> ConsumerOptions {
        self.options()
    }

    fn called(&self) -> &'static str {
        self.name()
    }
}

/// What can be called with the arguments `A`: its shape alone, whatever the arguments and the result
/// are.
pub trait Call<M, S, A>: Clone + Send + Sync + 'static {
    /// See [`Function::Returned`].
    type Returned;
    /// See [`Function::Arguments`].
    type Arguments;
    /// See [`Function::Arity`].
    type Arity;
    /// See [`Handler::CHECKED`].
    const CHECKED: () = ();

    /// Calls the function.
    fn call_with(&self, arguments: Self::Arguments) -> Self::Returned;

    /// The run of the handler inside this one, or the delivery back where there is none inside.
    fn delegate<'c>(&'c self, incoming: Incoming<'c>, _: &'c S) -> Delegated<'c> {
        Err(incoming)
    }

    /// How the consumer that runs it is set up.
    fn options(&self) -> ConsumerOptions {
        ConsumerOptions::default()
    }

    /// Its name in call ids and logs: that of the function.
    fn name(&self) -> &'static str {
        let path = std::any::type_name::<Self>();
        path.rsplit("::").find(|part| !part.starts_with('{')).unwrap_or(path)
    }
}

/// See [`Call::delegate`].
pub(super) type Delegated<'c> = Result<HandlerFuture<'c>, Incoming<'c>>;

/// A configured handler delegates each call, so it has no arguments of its own.
impl<M, S, A, H> Call<M, S, A> for Configured<H, M, S, A>
where
    M: 'static,
    S: 'static,
    A: 'static,
    H: Handler<M, S, A>,
{
    type Returned = Ready<()>;
    type Arguments = NoArguments;
    type Arity = UpToEight;
    const CHECKED: () = H::CHECKED;

    fn call_with(&self, _: Self::Arguments) -> Ready<()> {
        ready(())
    }

    fn delegate<'c>(&'c self, incoming: Incoming<'c>, state: &'c S) -> Delegated<'c> {
        Ok(self.handler().call(incoming, state))
    }

    fn options(&self) -> ConsumerOptions {
        self.own_options().clone()
    }

    fn name(&self) -> &'static str {
        self.own_options().name.unwrap_or_else(|| self.handler().name())
    }
}

/// One argument of a handler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler for a queue of `{M}` in a service with state `{S}`: the body is a `Body<{M}>`, the state a `State<{S}>`; give a service its state with `.state(…)`, or implement `FromState<{S}>` for a part of it"
)]
pub trait HandlerArgument<M, S>: Sized + Send {
    /// See [`FromDelivery::IS_THE_DELIVERY`].
    const IS_THE_DELIVERY: bool;
    /// See [`FromDelivery::IS_THE_BODY`].
    const IS_THE_BODY: bool;

    /// See [`FromDelivery::from_delivery`].
    fn take(
        incoming: &mut Incoming<'_>,
        state: &S,
    ) -> impl Future<Output = Result<Self, Failure>> + Send;
}

#[diagnostic::do_not_recommend]
impl<T: FromDelivery<M, S> + Send, M, S> HandlerArgument<M, S> for T {
    const IS_THE_DELIVERY: bool = T::IS_THE_DELIVERY;
    const IS_THE_BODY: bool = T::IS_THE_BODY;

    fn take(
        incoming: &mut Incoming<'_>,
        state: &S,
    ) -> impl Future<Output = Result<Self, Failure>> + Send {
        T::from_delivery(incoming, state)
    }
}

/// A number of arguments that a handler may have.
#[diagnostic::on_unimplemented(
    message = "a handler has at most eight arguments, and this one has more: let one argument hold several, a type of yours that implements `FromDelivery`"
)]
pub trait EnoughRoom {}

#[diagnostic::do_not_recommend]
impl<N: IsAtMostEight> EnoughRoom for N {}

/// See [`EnoughRoom`].
pub trait IsAtMostEight {}

/// As many arguments as a handler may have.
#[derive(Debug)]
pub struct UpToEight;

impl IsAtMostEight for UpToEight {}

/// Stands where a function of fewer than eight arguments has none.
#[derive(Debug)]
pub struct NoArgument;

impl<M, S: Sync> FromDelivery<M, S> for NoArgument {
    async fn from_delivery(_: &mut Incoming<'_>, _: &S) -> Result<Self, Failure> {
        Ok(Self)
    }
}

/// The arguments of a function that has none.
pub(super) type NoArguments = (
    NoArgument,
    NoArgument,
    NoArgument,
    NoArgument,
    NoArgument,
    NoArgument,
    NoArgument,
    NoArgument,
);

/// What an `async fn` returns.
#[diagnostic::on_unimplemented(
    message = "a handler is an `async fn`, but this one returns `{Self}` at once: write `async fn`, or let it return an `async move` block"
)]
pub trait Promise {
    /// What the future comes to.
    type Output;
    /// The future.
    type Future: Future<Output = Self::Output>;

    /// The future.
    fn future(self) -> Self::Future;
}

#[diagnostic::do_not_recommend]
impl<F: Future> Promise for F {
    type Output = F::Output;
    type Future = F;

    fn future(self) -> F {
        self
    }
}

/// A future that may be moved between threads.
#[diagnostic::on_unimplemented(
    message = "the future of this handler is not `Send`: drop what is not `Send` (an `Rc`, a `MutexGuard`) before the next `.await`; `tokio::spawn` of a call of the handler names the value"
)]
pub trait SendFuture: Send {}

#[diagnostic::do_not_recommend]
impl<F: Send> SendFuture for F {}

/// What the future of a handler comes to.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`: it returns `()`, `Outcome`, or a `Result` of one of them with any error, `String` or `anyhow::Error`"
)]
pub trait HandlerResult {
    /// See [`IntoOutcome::into_outcome`].
    fn outcome(self) -> Result<Outcome, Failure>;
}

#[diagnostic::do_not_recommend]
impl<T: IntoOutcome> HandlerResult for T {
    fn outcome(self) -> Result<Outcome, Failure> {
        self.into_outcome()
    }
}

macro_rules! take {
    ($incoming:ident, $state:ident: $($argument:ident),*) => {
        ($(match $argument::take(&mut $incoming, $state).await {
            Ok(argument) => argument,
            Err(failure) => return Handled::Refused(failure),
        },)*)
    };
}

impl<M, S, A, F, A1, A2, A3, A4, A5, A6, A7, A8> Handler<M, S, A> for F
where
    S: Sync,
    F: Function<M, S, A, Arguments = (A1, A2, A3, A4, A5, A6, A7, A8), Arity: EnoughRoom>,
    A1: HandlerArgument<M, S>,
    A2: HandlerArgument<M, S>,
    A3: HandlerArgument<M, S>,
    A4: HandlerArgument<M, S>,
    A5: HandlerArgument<M, S>,
    A6: HandlerArgument<M, S>,
    A7: HandlerArgument<M, S>,
    A8: HandlerArgument<M, S>,
    F::Returned: Promise<Output: HandlerResult>,
    <F::Returned as Promise>::Future: SendFuture,
{
    const CHECKED: () = {
        let deliveries = count([
            A1::IS_THE_DELIVERY,
            A2::IS_THE_DELIVERY,
            A3::IS_THE_DELIVERY,
            A4::IS_THE_DELIVERY,
            A5::IS_THE_DELIVERY,
            A6::IS_THE_DELIVERY,
            A7::IS_THE_DELIVERY,
            A8::IS_THE_DELIVERY,
        ]);
        let bodies = count([
            A1::IS_THE_BODY,
            A2::IS_THE_BODY,
            A3::IS_THE_BODY,
            A4::IS_THE_BODY,
            A5::IS_THE_BODY,
            A6::IS_THE_BODY,
            A7::IS_THE_BODY,
            A8::IS_THE_BODY,
        ]);
        let () = F::CHECKED;
        at_most_one(deliveries, "a handler settles its delivery once: keep one `Delivery`");
        at_most_one(bodies, "a message has one body: keep one `Body`");
    };

    fn call<'c>(&'c self, incoming: Incoming<'c>, state: &'c S) -> HandlerFuture<'c> {
        let mut incoming = match self.delegated(incoming, state) {
            Ok(run) => return run,
            Err(incoming) => incoming,
        };
        Box::pin(async move {
            let arguments = take!(incoming, state: A1, A2, A3, A4, A5, A6, A7, A8);
            if let Err(failure) = incoming.hooks().set_up().await {
                return Handled::Refused(failure);
            }
            Handled::Returned(self.apply(arguments).future().await.outcome())
        })
    }

    fn options(&self) -> ConsumerOptions {
        self.set_up()
    }

    fn name(&self) -> &'static str {
        self.called()
    }
}

const fn count(are: [bool; 8]) -> u8 {
    let [a1, a2, a3, a4, a5, a6, a7, a8] = are;
    a1 as u8 + a2 as u8 + a3 as u8 + a4 as u8 + a5 as u8 + a6 as u8 + a7 as u8 + a8 as u8
}

#[track_caller]
const fn at_most_one(arguments: u8, otherwise: &'static str) {
    assert!(arguments < 2, "{}", otherwise);
}

macro_rules! functions {
    ($(($($argument:ident),*) ($($none:ident),*))+) => {$(
        impl<M, S, F, R, $($argument,)*> Call<M, S, ($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R + Clone + Send + Sync + 'static,
        {
            type Returned = R;
            type Arguments = ($($argument,)* $($none,)*);
            type Arity = UpToEight;

            #[allow(non_snake_case)]
            fn call_with(&self, ($($argument,)* $($none,)*): Self::Arguments) -> R {
                self($($argument),*)
            }
        }
    )+};
}

functions! {
    () (NoArgument, NoArgument, NoArgument, NoArgument, NoArgument, NoArgument, NoArgument, NoArgument)
    (A1) (NoArgument, NoArgument, NoArgument, NoArgument, NoArgument, NoArgument, NoArgument)
    (A1, A2) (NoArgument, NoArgument, NoArgument, NoArgument, NoArgument, NoArgument)
    (A1, A2, A3) (NoArgument, NoArgument, NoArgument, NoArgument, NoArgument)
    (A1, A2, A3, A4) (NoArgument, NoArgument, NoArgument, NoArgument)
    (A1, A2, A3, A4, A5) (NoArgument, NoArgument, NoArgument)
    (A1, A2, A3, A4, A5, A6) (NoArgument, NoArgument)
    (A1, A2, A3, A4, A5, A6, A7) (NoArgument)
    (A1, A2, A3, A4, A5, A6, A7, A8) ()
}

/// Functions that are told that they have too many arguments; they cannot be called.
macro_rules! too_many {
    ($($arity:ident ($($argument:ident),*))+) => {$(
        #[doc = "A number of arguments that no handler has."]
        #[derive(Debug)]
        #[allow(non_camel_case_types)]
        pub struct $arity;

        impl<M, S, F, R, $($argument,)*> Call<M, S, ($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R + Clone + Send + Sync + 'static,
        {
            type Returned = Ready<()>;
            type Arguments = NoArguments;
            type Arity = $arity;

            fn call_with(&self, _: NoArguments) -> Ready<()> {
                ready(())
            }
        }
    )+};
}

too_many! {
    nine (A1, A2, A3, A4, A5, A6, A7, A8, A9)
    ten (A1, A2, A3, A4, A5, A6, A7, A8, A9, A10)
    eleven (A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11)
    twelve (A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12)
}
