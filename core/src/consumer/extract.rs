//! What a handler may ask for: its arguments come out of the delivery.

use crate::{
    consumer::incoming::Incoming,
    context::Context,
    delivery::{Delivery, Envelope},
    error::{Error, ErrorKind},
    failure::Failure,
    message::payload::Payload,
    outcome::Attempt,
};

/// An argument of a handler, taken out of a delivery from a queue of `M`, in a service with state
/// `S`.
///
/// The toolkit's are [`Body`], [`State`], [`Attempt`], [`Context`], [`Envelope`], [`Delivery`] and
/// [`Provided`](crate::Provided); implement it for arguments of your own.
///
/// ```
/// use enoki_core::{Failure, FromDelivery, Incoming, Outcome};
///
/// struct Region(String);
///
/// impl<M, S: Sync> FromDelivery<M, S> for Region {
///     async fn from_delivery(incoming: &mut Incoming<'_>, _: &S) -> Result<Self, Failure> {
///         match incoming.message()?.headers.get("region").and_then(|value| value.as_str()) {
///             Some(region) => Ok(Self(region.to_owned())),
///             None => Err(Failure::new("it names no region").outcome(Outcome::Reject)),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler for a queue of `{M}` in a service with state `{S}`",
    label = "not an argument for this queue",
    note = "the body of this queue's messages is `Body<{M}>`, the state of this service is `State<{S}>`",
    note = "other arguments: `Attempt`, `Context`, `Envelope`, `Delivery`"
)]
pub trait FromDelivery<M, S>: Sized {
    /// Whether it is the delivery itself, which a handler has one of.
    #[doc(hidden)]
    const IS_THE_DELIVERY: bool = false;

    /// Whether it is the body, which a handler takes once.
    #[doc(hidden)]
    const IS_THE_BODY: bool = false;

    /// Takes the argument out. After a failure the handler is not called.
    ///
    /// What becomes of the delivery then is what the failure says, or else what the consumer's
    /// [`OnError`](crate::OnError) says, as if the handler had failed. An [`Error`] of kind
    /// [`Codec`](ErrorKind::Codec) or [`TooLarge`](ErrorKind::TooLarge) alone means that the message cannot
    /// be decoded: that is rejected, since it would fail again and again.
    fn from_delivery(
        incoming: &mut Incoming<'_>,
        state: &S,
    ) -> impl Future<Output = Result<Self, Failure>> + Send;
}

/// The decoded body, as an argument of a handler; `M` is the type of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body<M>(pub M);

impl<M: Payload, S: Sync> FromDelivery<M, S> for Body<M> {
    const IS_THE_BODY: bool = true;

    async fn from_delivery(incoming: &mut Incoming<'_>, _: &S) -> Result<Self, Failure> {
        let decoded = incoming.delivery()?.decode_with(incoming.codecs());
        decoded.map(Self).map_err(Failure::of_message)
    }
}

/// The state of the service, or a part of it, as an argument of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State<T>(pub T);

impl<M, S: Sync, T: FromState<S>> FromDelivery<M, S> for State<T> {
    async fn from_delivery(_: &mut Incoming<'_>, state: &S) -> Result<Self, Failure> {
        Ok(Self(T::from_state(state)))
    }
}

/// A part of a service's state; the whole is a part of itself.
#[diagnostic::on_unimplemented(
    message = "the state of this service is `{S}`, which has no part `{Self}`",
    note = "give the service its state with `Service::new(…).state(…)`, or implement `FromState<{S}>`"
)]
pub trait FromState<S> {
    /// Takes the part out.
    fn from_state(state: &S) -> Self;
}

impl<S: Clone> FromState<S> for S {
    fn from_state(state: &S) -> Self {
        state.clone()
    }
}

impl<M, S: Sync> FromDelivery<M, S> for Attempt {
    async fn from_delivery(incoming: &mut Incoming<'_>, _: &S) -> Result<Self, Failure> {
        Ok(incoming.delivery()?.attempt())
    }
}

impl<M, S: Sync> FromDelivery<M, S> for Envelope {
    async fn from_delivery(incoming: &mut Incoming<'_>, _: &S) -> Result<Self, Failure> {
        Ok(incoming.delivery()?.envelope().clone())
    }
}

impl<M, S: Sync> FromDelivery<M, S> for Context {
    async fn from_delivery(incoming: &mut Incoming<'_>, _: &S) -> Result<Self, Failure> {
        match Context::current() {
            Some(current) => Ok(current),
            None => Ok(incoming.callee().context(&incoming.message()?.headers)),
        }
    }
}

impl<M, S: Sync> FromDelivery<M, S> for Delivery {
    const IS_THE_DELIVERY: bool = true;

    async fn from_delivery(incoming: &mut Incoming<'_>, _: &S) -> Result<Self, Failure> {
        // The arguments after this one find the same message, without the right to settle it.
        let to_look_at = incoming.delivery()?.without_token();
        let taken = incoming.replace(to_look_at).filter(Delivery::has_token);
        Ok(taken.ok_or_else(|| {
            Error::new(ErrorKind::Configuration, "call a handler")
                .because("another argument of it has taken the delivery already")
        })?)
    }
}
