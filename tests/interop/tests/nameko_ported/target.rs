//! A transport, and the broker behind it.

use std::fmt;

use enoki_interop::{Broker, RABBITMQ_3, RABBITMQ_4, RABBITMQ_4_3, encrypted::Encrypted};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Memory,
    Remote { broker: Broker, scheme: &'static str },
}

impl Target {
    pub(crate) fn all() -> [Self; 6] {
        let remote = |broker, scheme| Self::Remote { broker, scheme };
        [
            Self::Memory,
            remote(RABBITMQ_3, "amqp091"),
            remote(RABBITMQ_4, "amqp091"),
            remote(RABBITMQ_4, "amqp10"),
            remote(RABBITMQ_4_3, "amqp091"),
            remote(RABBITMQ_4_3, "amqp10"),
        ]
    }

    /// Whether it is reached by TCP, so that something can come between.
    pub(crate) fn is_remote(self) -> bool {
        matches!(self, Self::Remote { .. })
    }

    /// Its URL, or the variable that does not tell it.
    pub(crate) fn url(self) -> Result<String, &'static str> {
        match self {
            // One for each test, which shares it with no other.
            Self::Memory => Ok(format!("memory://nameko-ported-{}", uuid::Uuid::now_v7().simple())),
            Self::Remote { broker, scheme } => broker.url(scheme).ok_or(broker.variable),
        }
    }

    /// The same with TLS.
    pub(crate) fn encrypted(self) -> Result<Encrypted, String> {
        match self {
            Self::Memory => Err("there is no network in memory".to_owned()),
            Self::Remote { broker, scheme } => {
                broker.encrypted(scheme).ok_or_else(|| broker.tls_variable())
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Remote { broker, scheme } => write!(f, "{}_by_{scheme}", broker.name),
        }
    }
}
