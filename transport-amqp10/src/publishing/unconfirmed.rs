//! Messages that have no outcome yet, and the outcome that an answer of the broker means.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use enoki_core::{Error, ErrorKind, ShortStr, transport::PublishOutcome};
use fe2o3_amqp::{
    link::{SendError, delivery::DeliveryFut},
    types::{
        definitions,
        messaging::{Outcome, Rejected},
        primitives::{Symbol, Value},
    },
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
            let by = refused_by(&error);
            let cause = Cause::Peer(error);
            let kind = match error::kind(&cause) {
                kind @ (ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::TooLarge) => kind,
                _ => ErrorKind::Refused,
            };
            let refused = Error::new(kind, PUBLISH).on(exchange_subject(&message.exchange));
            PublishOutcome::Rejected(match by {
                Some(by) => refused
                    .because(format!("{by}: {}", error::reason(&cause)))
                    .transient(by.is_transient()),
                None => refused.because(error::reason(&cause)),
            })
        }
        Outcome::Rejected(Rejected { error: None }) | Outcome::Modified(_) => {
            PublishOutcome::Rejected(
                Error::new(ErrorKind::Refused, PUBLISH)
                    .on(exchange_subject(&message.exchange))
                    .because("the broker refused the message, as a full queue does, or one whose node is down"),
            )
        }
    }
}

/// The outcome of a message that no queue is bound for.
pub(crate) fn unrouted(mandatory: bool) -> PublishOutcome {
    if mandatory { PublishOutcome::Unroutable } else { PublishOutcome::Confirmed }
}

/// The queue that refused a message, and why: RabbitMQ says so since 4.3.
#[derive(Debug)]
struct RefusingQueue {
    queue: String,
    why: String,
}

/// The queue that a rejection names.
fn refused_by(error: &definitions::Error) -> Option<RefusingQueue> {
    let info = error.info.as_ref()?;
    let text = |name: &str| match info.get(&Symbol::from(name))? {
        Value::String(text) => Some(text.clone()),
        Value::Symbol(text) => Some(text.as_str().to_owned()),
        _ => None,
    };
    Some(RefusingQueue { queue: text("queue")?, why: text("reason")? })
}

impl RefusingQueue {
    /// Whether the queue may take the message later although no consumer takes one meanwhile: it has no
    /// leader now.
    fn is_transient(&self) -> bool {
        self.why == "unavailable"
    }
}

impl fmt::Display for RefusingQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "queue {:?} refused it ({})", self.queue, self.why)
    }
}

/// The operation, in errors about one message.
pub(crate) const PUBLISH: &str = "publish to";

#[cfg(test)]
mod tests {
    use fe2o3_amqp::types::definitions::AmqpError;

    use super::*;

    /// As RabbitMQ 4.3 rejects.
    #[test]
    fn a_rejection_names_the_queue_and_may_be_transient() {
        let rejected = |why: &str| {
            let mut info = definitions::Fields::default();
            info.insert("queue".into(), Value::String("billing".to_owned()));
            info.insert("reason".into(), Value::Symbol(why.into()));
            definitions::Error::new(AmqpError::ResourceLimitExceeded, None, info)
        };
        let full = refused_by(&rejected("maxlen")).unwrap();
        assert_eq!(full.to_string(), "queue \"billing\" refused it (maxlen)");
        assert!(!full.is_transient());
        assert!(refused_by(&rejected("unavailable")).is_some_and(|by| by.is_transient()));
        let earlier = definitions::Error::new(AmqpError::ResourceLimitExceeded, None, None);
        assert!(refused_by(&earlier).is_none());
    }
}
