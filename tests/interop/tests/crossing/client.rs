//! Who publishes or consumes.

use std::fmt;

use enoki::message::Message;
use enoki_interop::Checked;

use super::{foreign, ours};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Amqp091,
    Amqp10,
}

impl Protocol {
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::Amqp091 => "amqp091",
            Self::Amqp10 => "amqp10",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// This toolkit.
    Ours(Protocol),
    /// py-amqp or Qpid Proton.
    Foreign(Protocol),
}

impl Client {
    pub(crate) fn protocol(self) -> Protocol {
        let (Self::Ours(protocol) | Self::Foreign(protocol)) = self;
        protocol
    }

    /// Publishes to the queue by its name, in order, each confirmed and routed.
    pub(crate) async fn publish(self, url: &str, queue: &str, messages: &[Message]) -> Checked {
        match self {
            Self::Ours(_) => ours::publish(url, queue, messages).await,
            Self::Foreign(protocol) => foreign::publish(protocol, url, queue, messages).await,
        }
    }

    /// Takes so many messages, in order, and acknowledges them.
    pub(crate) async fn consume(
        self,
        url: &str,
        queue: &str,
        count: usize,
    ) -> Checked<Vec<Message>> {
        match self {
            Self::Ours(_) => ours::consume(url, queue, count).await,
            Self::Foreign(protocol) => foreign::consume(protocol, url, queue, count).await,
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours(Protocol::Amqp091) => "enoki by amqp091",
            Self::Ours(Protocol::Amqp10) => "enoki by amqp10",
            Self::Foreign(Protocol::Amqp091) => "py-amqp",
            Self::Foreign(Protocol::Amqp10) => "Proton",
        })
    }
}
