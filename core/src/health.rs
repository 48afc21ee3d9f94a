//! How connections and consumers are doing.

use std::{fmt, sync::Arc};

use crate::error::Error;

/// How a connection or a consumer is doing.
///
/// ```
/// use enoki::broker::Health;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// let broker = enoki::connect("memory://health").await?;
/// let mut health = broker.health();
/// let now = health.borrow_and_update().clone();
/// assert!(now.is_ready());
/// assert_eq!(now.to_string(), "publishing: ready, consuming: idle");
/// assert!(matches!(now.consuming, Health::Idle), "no call has needed it yet");
/// // `health.changed().await` waits for the next change.
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Health {
    /// Not open, since no call has needed it yet.
    Idle,
    /// About to open for the first time; with why the last try failed, if there was one.
    Connecting {
        /// Why the last try failed.
        reason: Option<Error>,
    },
    /// Open.
    Ready,
    /// Open, but the broker reads nothing from it for the time being: it is short of memory or disk.
    Blocked {
        /// What the broker says about it.
        reason: Arc<str>,
    },
    /// It was open, and is tried again.
    Reconnecting {
        /// Why it ended, or why the last try failed.
        reason: Error,
    },
    /// Over: closed, or failed in a way that no further try would mend.
    Stopped {
        /// Why it failed, if it did.
        reason: Option<Error>,
    },
}

impl Health {
    /// Whether it is open and works.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }

    /// Whether an operator should know: it should work, and does not.
    pub fn is_troubled(&self) -> bool {
        match self {
            Self::Idle | Self::Ready | Self::Connecting { reason: None } => false,
            Self::Connecting { reason: Some(_) }
            | Self::Blocked { .. }
            | Self::Reconnecting { .. } => true,
            Self::Stopped { reason } => reason.is_some(),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle"),
            Self::Connecting { reason: None } => f.write_str("connecting"),
            Self::Connecting { reason: Some(reason) } => write!(f, "connecting ({reason})"),
            Self::Ready => f.write_str("ready"),
            Self::Blocked { reason } => write!(f, "blocked ({reason})"),
            Self::Reconnecting { reason } => write!(f, "reconnecting ({reason})"),
            Self::Stopped { reason: None } => f.write_str("stopped"),
            Self::Stopped { reason: Some(reason) } => write!(f, "stopped ({reason})"),
        }
    }
}

/// How the two connections of a broker handle are doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BrokerHealth {
    /// The connection that publishes.
    pub publishing: Health,
    /// How often the connection that publishes has been opened: 1 until it is opened again after a loss.
    /// A loss that is over before a watcher looks shows here alone.
    pub publishing_opened: u64,
    /// The connection that consumes, and declares.
    pub consuming: Health,
    /// How often the connection that consumes has been opened, like `publishing_opened`.
    pub consuming_opened: u64,
}

impl BrokerHealth {
    pub(crate) const IDLE: Self = Self {
        publishing: Health::Idle,
        publishing_opened: 0,
        consuming: Health::Idle,
        consuming_opened: 0,
    };

    /// Whether at least one of them is open, and none that was needed is not.
    pub fn is_ready(&self) -> bool {
        let fine = |health: &Health| matches!(health, Health::Ready | Health::Idle);
        fine(&self.publishing)
            && fine(&self.consuming)
            && (self.publishing.is_ready() || self.consuming.is_ready())
    }
}

impl fmt::Display for BrokerHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "publishing: {}, consuming: {}", self.publishing, self.consuming)
    }
}

/// How a consumer is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsumerHealth {
    /// Whether deliveries come.
    pub health: Health,
    /// How often it has begun to consume: 1 until the first interruption is over.
    pub subscribed: u64,
    /// How many settlements came too late, since the session that delivered was over. The broker
    /// delivers those messages again.
    pub stale: u64,
}

impl ConsumerHealth {
    pub(crate) const NEW: Self =
        Self { health: Health::Connecting { reason: None }, subscribed: 0, stale: 0 };
}

impl fmt::Display for ConsumerHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} stale", self.health, self.stale)
    }
}
