//! Messages that have no outcome yet, and the outcome that an answer of the broker means.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use enoki_core::{Error, ErrorKind, ShortStr, transport::PublishOutcome};
use fe2o3_amqp::{
    link::{SendError, delivery::DeliveryFut},
    types::messaging::{Outcome, Rejected},
};

use crate::error::{self, Cause, exchange_subject};

/// The facts about a message that its outcome depends on.
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    pub(crate) id: u64,
    pub(crate) mandatory: bool,
    pub(crate) exchange: ShortStr,
    pub(crate) routing_key: ShortStr,
}

/// A message that was sent. Resolves to the broker's answer, or to the reason why none will come.
pub(crate) struct InFlight {
    /// `None` once it was taken out: by the answer, or because the link failed.
    pub(crate) message: Option<Unconfirmed>,
    pub(crate) answer: DeliveryFut<Result<Outcome, SendError>>,
}

impl Future for InFlight {
    type Output = (Option<Unconfirmed>, Result<Outcome, SendError>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(cx));
        Poll::Ready((self.message.take(), answer))
    }
}

/// The outcome of a message, by the broker's answer (§3.4).
pub(crate) fn outcome_of(message: &Unconfirmed, answer: Outcome) -> PublishOutcome {
    match answer {
        Outcome::Accepted(_) => PublishOutcome::Confirmed,
        Outcome::Released(_) => unrouted(message.mandatory),
        Outcome::Rejected(Rejected { error: Some(error) }) => {
            let by = error::refused_by(&error);
            let cause = Cause::Peer(error);
            let kind = match error::kind(&cause) {
                kind @ (ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::TooLarge) => kind,
                _ => ErrorKind::Refused,
            };
            let refused = Error::new(kind, PUBLISH).on(exchange_subject(&message.exchange));
            PublishOutcome::Rejected(match by {
                Some(by) => refused
                    .because(format!("{by}: {}", error::reason(&cause)))
                    .transient(by.passes()),
                None => refused.because(error::reason(&cause)),
            })
        }
        Outcome::Rejected(Rejected { error: None }) | Outcome::Modified(_) => {
            PublishOutcome::Rejected(
                Error::new(ErrorKind::Refused, PUBLISH)
                    .on(exchange_subject(&message.exchange))
                    .because("the broker refused the message, as a full queue does"),
            )
        }
    }
}

/// The outcome of a message that no queue is bound for.
pub(crate) fn unrouted(mandatory: bool) -> PublishOutcome {
    if mandatory { PublishOutcome::Unroutable } else { PublishOutcome::Confirmed }
}

/// The operation, in errors about one message.
pub(crate) const PUBLISH: &str = "publish to";
