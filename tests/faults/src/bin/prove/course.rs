//! What a run is made on: a transport, and the broker behind it.

use std::{fmt, str::FromStr};

/// A transport, and the broker behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    Memory,
    Amqp091(&'static str),
    Amqp10(&'static str),
}

impl Course {
    /// Those of a whole run.
    pub(crate) fn usual() -> [Self; 6] {
        ALL
    }

    /// As part of a file's or a queue's name.
    pub(crate) fn slug(self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Amqp091(broker) => write!(f, "amqp091:{broker}"),
            Self::Amqp10(broker) => write!(f, "amqp10:{broker}"),
        }
    }
}

impl FromStr for Course {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ALL.into_iter().find(|course| course.to_string() == text).ok_or_else(|| {
            let all: Vec<_> = ALL.iter().map(ToString::to_string).collect();
            format!("there are {}", all.join(", "))
        })
    }
}

const ALL: [Course; 6] = [
    Course::Memory,
    Course::Amqp091("rabbitmq-3"),
    Course::Amqp091("rabbitmq-4"),
    Course::Amqp091("rabbitmq-4.3"),
    Course::Amqp10("rabbitmq-4"),
    Course::Amqp10("rabbitmq-4.3"),
];
