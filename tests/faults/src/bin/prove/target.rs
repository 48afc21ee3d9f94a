//! What a run is made on: a transport, and the broker behind it.

use std::{fmt, str::FromStr};

/// A transport, and the broker behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Memory,
    /// By the scheme of a URL, and the name that `dev/brokers` has for the broker.
    Broker {
        scheme: &'static str,
        broker: &'static str,
    },
}

impl Target {
    const fn broker(scheme: &'static str, broker: &'static str) -> Self {
        Self::Broker { scheme, broker }
    }

    /// Those of a whole run.
    pub(crate) fn usual() -> [Self; 8] {
        ALL
    }

    /// As part of a file's or a queue's name.
    pub(crate) fn slug(self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Broker { scheme, broker } => write!(f, "{scheme}:{broker}"),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ALL.into_iter().find(|target| target.to_string() == text).ok_or_else(|| {
            let all: Vec<_> = ALL.iter().map(ToString::to_string).collect();
            format!("there are {}", all.join(", "))
        })
    }
}

const ALL: [Target; 8] = [
    Target::Memory,
    Target::broker("amqp091", "rabbitmq-3"),
    Target::broker("amqp091", "rabbitmq-4"),
    Target::broker("amqp091", "rabbitmq-4.3"),
    Target::broker("amqp091s", "rabbitmq-4"),
    Target::broker("amqp10", "rabbitmq-4"),
    Target::broker("amqp10", "rabbitmq-4.3"),
    Target::broker("amqp10s", "rabbitmq-4.3"),
];
