//! Consumers whose deliveries the broker fails at.

use std::{error::Error as _, time::Duration};

use crate::error::{Error, ErrorKind};

/// Suspects a consumer whose deliveries end its connection or session again and again.
///
/// RabbitMQ fails on a message that it cannot convert to the consumer's protocol, ends the connection
/// or the AMQP session, and does so again with the next consumer of that queue. Each consumer on that
/// connection is interrupted as often, and the broker does not say which queue it was.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    strikes: u32,
}

impl Suspicion {
    /// A receiver that lived so long ended for this reason.
    pub(super) fn ended(&mut self, reason: &Error, lived: Duration) {
        if lived >= SOON {
            self.strikes = 0;
        } else if is_the_brokers_failure(reason) {
            self.strikes = self.strikes.saturating_add(1);
        }
    }

    /// Whether it has ended so often that it should share a connection with no other.
    pub(super) fn is_strong(&self) -> bool {
        self.strikes >= STRIKES
    }

    /// What to say of the last end.
    pub(super) fn explain(&self, queue: &str, reason: Error) -> Error {
        Error::new(ErrorKind::Connection, "consume")
            .on(format!("queue {queue:?}"))
            .because(format!(
                "the broker failed {} times in a row soon after it began to deliver from it, and may \
                 not be able to convert a message in it to this protocol ({reason})",
                self.strikes
            ))
            .remedy(
                "consume that message over the other protocol, or remove it; this consumer has a \
                 connection of its own meanwhile",
            )
            .caused_by(reason)
    }
}

/// Whether a receiver was lost to what is no end of a network or of a broker that goes down.
fn is_the_brokers_failure(reason: &Error) -> bool {
    let cause = reason.source().and_then(|cause| cause.downcast_ref::<Error>());
    cause.is_some_and(|cause| cause.kind() == ErrorKind::Unexpected)
}

/// How often it may end so in a row.
const STRIKES: u32 = 3;

/// What lived this long was not ended by what the broker delivered first.
const SOON: Duration = Duration::from_secs(10);
