//! The kinds of faults.

use std::fmt;

use enoki_faults::broker_process::Alarm;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    // To the broker.
    BrokerKilled,
    BrokerFrozen,
    BrokerRestarted,
    ConnectionsClosed,
    ClosedInABurst,
    Alarm(Alarm),
    // To the network.
    Reset,
    ResetInsideAFrame,
    CutAfterBytes,
    Fin,
    HalfClosed,
    BlackHoleToBroker,
    BlackHoleFromBroker,
    Partition,
    Latency,
    Trickle,
    Refusing,
    Hanging,
    // To single messages.
    ConfirmLost,
    ConfirmsCutOff,
    AckLost,
    // To the program and its queues.
    PasswordChanged,
    PermissionsTaken,
    QueueDeleted,
    ConsumerCrashed,
    Unreadable,
    LogPanics,
    // Between the toolkit and the broker in memory.
    Severed,
    PublishingSevered,
    ConsumingSevered,
    SenderEnded,
    ReceiverEnded,
    ReceiverCancelled,
    OutcomesHeld,
    DeliveriesHeld,
}

/// Those that a broker process behind a proxy can have.
pub(crate) const OF_A_BROKER: &[Fault] = &[
    Fault::BrokerKilled,
    Fault::BrokerFrozen,
    Fault::BrokerRestarted,
    Fault::ConnectionsClosed,
    Fault::ClosedInABurst,
    Fault::Alarm(Alarm::Memory),
    Fault::Alarm(Alarm::Disk),
    Fault::Reset,
    Fault::ResetInsideAFrame,
    Fault::CutAfterBytes,
    Fault::Fin,
    Fault::HalfClosed,
    Fault::BlackHoleToBroker,
    Fault::BlackHoleFromBroker,
    Fault::Partition,
    Fault::Latency,
    Fault::Trickle,
    Fault::Refusing,
    Fault::Hanging,
    Fault::ConfirmLost,
    Fault::ConfirmsCutOff,
    Fault::AckLost,
    Fault::PasswordChanged,
    Fault::PermissionsTaken,
    Fault::QueueDeleted,
    Fault::ConsumerCrashed,
    Fault::Unreadable,
    Fault::LogPanics,
];

/// Those that the broker in memory can have.
pub(crate) const IN_MEMORY: &[Fault] = &[
    Fault::ConnectionsClosed,
    Fault::ClosedInABurst,
    Fault::Latency,
    Fault::Refusing,
    Fault::Hanging,
    Fault::ConfirmLost,
    Fault::ConfirmsCutOff,
    Fault::AckLost,
    Fault::QueueDeleted,
    Fault::ConsumerCrashed,
    Fault::LogPanics,
    Fault::Severed,
    Fault::PublishingSevered,
    Fault::ConsumingSevered,
    Fault::SenderEnded,
    Fault::ReceiverEnded,
    Fault::ReceiverCancelled,
    Fault::OutcomesHeld,
    Fault::DeliveriesHeld,
];

/// What a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hits {
    Broker,
    /// Between the program and the broker.
    Way,
    Message,
    /// And its queues.
    Program,
}

impl Fault {
    /// Whether it happens to a certain frame: with TLS only the two ends can read those.
    pub(crate) fn needs_frames(self) -> bool {
        matches!(
            self,
            Self::ResetInsideAFrame | Self::ConfirmLost | Self::ConfirmsCutOff | Self::AckLost
        )
    }

    pub(crate) fn hits(self) -> Hits {
        match self {
            Self::BrokerKilled
            | Self::BrokerFrozen
            | Self::BrokerRestarted
            | Self::ConnectionsClosed
            | Self::ClosedInABurst
            | Self::Alarm(_) => Hits::Broker,
            Self::ConfirmLost
            | Self::ConfirmsCutOff
            | Self::AckLost
            | Self::OutcomesHeld
            | Self::DeliveriesHeld => Hits::Message,
            Self::PasswordChanged
            | Self::PermissionsTaken
            | Self::QueueDeleted
            | Self::ConsumerCrashed
            | Self::Unreadable
            | Self::LogPanics => Hits::Program,
            _ => Hits::Way,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BrokerKilled => "broker killed",
            Self::BrokerFrozen => "broker frozen",
            Self::BrokerRestarted => "broker restarted",
            Self::ConnectionsClosed => "connections closed by the broker",
            Self::ClosedInABurst => "connections closed by the broker, again and again",
            Self::Alarm(Alarm::Memory) => "memory alarm",
            Self::Alarm(Alarm::Disk) => "disk alarm",
            Self::Reset => "reset",
            Self::ResetInsideAFrame => "reset inside a frame",
            Self::CutAfterBytes => "cut after some bytes",
            Self::Fin => "fin",
            Self::HalfClosed => "half closed",
            Self::BlackHoleToBroker => "black hole to the broker",
            Self::BlackHoleFromBroker => "black hole from the broker",
            Self::Partition => "partition",
            Self::Latency => "latency",
            Self::Trickle => "trickle",
            Self::Refusing => "reset, then refused",
            Self::Hanging => "reset, then hanging",
            Self::ConfirmLost => "confirm lost",
            Self::ConfirmsCutOff => "published, then cut off",
            Self::AckLost => "ack lost",
            Self::PasswordChanged => "password changed, and changed back",
            Self::PermissionsTaken => "permissions taken, and given back",
            Self::QueueDeleted => "queue deleted",
            Self::ConsumerCrashed => "consumer crashed",
            Self::Unreadable => "a message it cannot convert",
            Self::LogPanics => "the log panics",
            Self::Severed => "severed",
            Self::PublishingSevered => "publishing severed",
            Self::ConsumingSevered => "consuming severed",
            Self::SenderEnded => "sender ended",
            Self::ReceiverEnded => "receiver ended",
            Self::ReceiverCancelled => "receiver cancelled",
            Self::OutcomesHeld => "outcomes held",
            Self::DeliveriesHeld => "deliveries held",
        })
    }
}
