//! The link that messages are sent on, one at a time.

use std::collections::VecDeque;

use enoki_core::{Error, ErrorKind, transport::PublishOutcome};
use fe2o3_amqp::{
    Sendable, Sender,
    link::{SendError, delivery::DeliveryFut},
    types::messaging::{Data, Outcome},
};
use futures_util::{FutureExt, future::BoxFuture};

use super::unconfirmed::{InFlight, PUBLISH, Unconfirmed};
use crate::error::{Cause, exchange_subject};

/// The link, which takes one message at a time.
#[derive(Default)]
pub(crate) enum Link {
    /// It can take the next message.
    Free(Box<Sender>),
    /// It takes a message as soon as there is credit. The future belongs to the sender and not to the call
    /// that waits, so a message that the link has begun to take is never given up halfway.
    Sending(BoxFuture<'static, Sent>),
    /// It failed. fe2o3-amqp gives up the messages without an answer only when the link is dropped.
    #[default]
    Gone,
}

/// A message that the link took, and what it said.
pub(crate) struct Sent {
    link: Box<Sender>,
    message: Unconfirmed,
    answer: Result<DeliveryFut<Result<Outcome, SendError>>, SendError>,
}

/// A message as bytes, to be sent.
pub(crate) struct Encoded {
    pub(crate) message: Unconfirmed,
    pub(crate) sendable: Sendable<Data>,
}

/// How one step of sending ended.
pub(crate) enum SendStep {
    /// A message was sent.
    Sent(InFlight),
    /// A message was not sent, and has this outcome.
    Unsent(u64, PublishOutcome),
    /// The link failed or was detached.
    Failed(Cause),
}

impl Link {
    pub(crate) fn is_sending(&self) -> bool {
        matches!(self, Self::Sending(_))
    }

    /// Sends the first message that waits, as soon as there is credit; if none waits, waits for the end of
    /// the link. Once the link is gone, it waits for ever.
    ///
    /// Cancel safe: a message that was not sent still waits, or is on its way into the link.
    pub(crate) async fn send_next(&mut self, waiting: &mut VecDeque<Encoded>) -> SendStep {
        *self = match std::mem::take(self) {
            Self::Free(free) => match waiting.pop_front() {
                Some(first) => Self::Sending(send(free, first).boxed()),
                None => Self::Free(free),
            },
            other => other,
        };
        let Sent { link: free, message, answer } = match self {
            Self::Sending(sending) => sending.await,
            Self::Free(free) => return SendStep::Failed(free.on_detach().await.into()),
            Self::Gone => return std::future::pending().await,
        };
        *self = Self::Free(free);
        match answer {
            Ok(answer) => SendStep::Sent(InFlight { message: Some(message), answer }),
            Err(SendError::MessageSizeExceeded(exceeded)) => {
                let error = Error::new(ErrorKind::TooLarge, PUBLISH)
                    .on(exchange_subject(&message.exchange))
                    .because(format!(
                        "{} bytes exceed the broker's limit of {}",
                        exceeded.size, exceeded.max_size
                    ));
                SendStep::Unsent(message.id, PublishOutcome::Rejected(error))
            }
            Err(error) => SendStep::Failed(error.into()),
        }
    }
}

async fn send(mut link: Box<Sender>, Encoded { message, sendable }: Encoded) -> Sent {
    let answer = link.send_batchable_ref(&sendable).await;
    Sent { link, message, answer }
}
