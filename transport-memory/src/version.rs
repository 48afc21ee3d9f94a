//! Which broker a broker in memory is like.

use std::fmt;

use enoki_core::Capability;

/// The broker that a broker in memory is like: its capabilities, its refusals, its order of messages.
///
/// A URL names it, `memory://shop?as=rabbitmq-4.0`; without a name it is the newest. Each is what that
/// broker is over AMQP 0-9-1, where it can least. What it refuses over AMQP 1.0 alone, such as a binding
/// by a list, is not refused in memory.
///
/// ```
/// use enoki_transport_memory::Version;
///
/// assert_eq!(Version::default().as_str(), "rabbitmq-4.3");
/// assert_eq!(Version::named("rabbitmq-3.10"), Some(Version::RabbitMq3_10));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Version {
    /// RabbitMQ 3.10, over AMQP 0-9-1.
    RabbitMq3_10,
    /// RabbitMQ 4.0, over AMQP 0-9-1.
    RabbitMq4_0,
    /// RabbitMQ 4.3, over AMQP 0-9-1.
    #[default]
    RabbitMq4_3,
    /// Like RabbitMQ 4.3, with every capability that this crate has, which no broker has: attempts are
    /// counted on every queue, and `RetryAfter` waits in every queue. For tests of transports and of
    /// the toolkit, and not of programs.
    Reference,
}

impl Version {
    /// All of them, the oldest first.
    pub const ALL: &[Self] =
        &[Self::RabbitMq3_10, Self::RabbitMq4_0, Self::RabbitMq4_3, Self::Reference];

    /// The name in a URL: `rabbitmq-4.3`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RabbitMq3_10 => "rabbitmq-3.10",
            Self::RabbitMq4_0 => "rabbitmq-4.0",
            Self::RabbitMq4_3 => "rabbitmq-4.3",
            Self::Reference => "reference",
        }
    }

    /// The one of this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|version| version.as_str() == name)
    }

    pub(crate) const fn behaviour(self) -> &'static Behaviour {
        match self {
            Self::RabbitMq3_10 => &RABBITMQ_3_10,
            Self::RabbitMq4_0 => &RABBITMQ_4_0,
            Self::RabbitMq4_3 => &RABBITMQ_4_3,
            Self::Reference => &REFERENCE,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// In what versions differ. Each line was measured on the broker itself.
#[derive(Debug)]
pub(crate) struct Behaviour {
    /// Whether attempts are counted on classic queues, too; a delivery limit needs the count.
    pub(crate) counts_on_classic_queues: bool,
    /// Whether what is released counts as an attempt.
    pub(crate) counts_released: bool,
    /// Whether a message that is requeued for later waits in the broker.
    pub(crate) delays: bool,
    /// How a replicated queue tells priorities apart.
    pub(crate) priorities: Priorities,
    /// How a headers exchange compares.
    pub(crate) comparison: Comparison,
}

/// How a replicated queue tells priorities apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priorities {
    /// Not at all.
    None,
    /// From 5 on before the others, of which every third delivery takes one that is older.
    Two,
    /// Each from 0 to 31 for itself, the highest first; none is 4.
    Strict,
}

/// How a headers exchange compares a header with what a binding asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Numbers and times by their value.
    ByValue,
    /// A number equals one of its own type; a time in a message equals nothing.
    ByType,
}

const RABBITMQ_3_10: Behaviour = Behaviour {
    counts_on_classic_queues: false,
    counts_released: true,
    delays: false,
    priorities: Priorities::None,
    comparison: Comparison::ByValue,
};

const RABBITMQ_4_0: Behaviour =
    Behaviour { priorities: Priorities::Two, comparison: Comparison::ByType, ..RABBITMQ_3_10 };

const RABBITMQ_4_3: Behaviour =
    Behaviour { counts_released: false, priorities: Priorities::Strict, ..RABBITMQ_4_0 };

const REFERENCE: Behaviour =
    Behaviour { counts_on_classic_queues: true, delays: true, ..RABBITMQ_4_3 };

impl Behaviour {
    /// What a program may ask for.
    pub(crate) fn capabilities(&self) -> Vec<Capability> {
        let mut capabilities = ALWAYS.to_vec();
        if self.counts_on_classic_queues {
            capabilities.push(Capability::DeliveryCount);
        }
        if !self.counts_released {
            capabilities.push(Capability::UncountedRelease);
        }
        if self.delays {
            capabilities.extend([Capability::DelayedRequeue, Capability::ReplicatedDelayedRequeue]);
        }
        capabilities
    }
}

const ALWAYS: &[Capability] = &[
    Capability::Exchanges,
    Capability::UnroutableDetection,
    Capability::Queues,
    Capability::MessageCount,
    Capability::ConsumerCount,
    Capability::AutoDeleteQueues,
    Capability::DeliveryLimit,
    Capability::PlaceKept,
    Capability::ReplicatedDeliveryCount,
    Capability::RedeliveredFlag,
    Capability::DeadLetter,
    Capability::Expiry,
    Capability::LengthLimit,
    Capability::Priority,
    Capability::ReplicatedQueues,
    Capability::ExclusiveQueues,
    Capability::SingleActiveConsumer,
    Capability::NestedHeaders,
    Capability::VirtualTime,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_found_by_its_name() {
        for version in Version::ALL {
            assert_eq!(Version::named(version.as_str()), Some(*version));
        }
        assert_eq!(Version::named("rabbitmq-4"), None);
    }
}
