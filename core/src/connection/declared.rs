//! What the program declared by hand, as those see it who publish on another connection.

use std::sync::{Arc, Mutex, PoisonError};

use super::ConnectionStatus;
use crate::topology::Topology;

/// What the program declared by hand, and the connection that declares it again when it is back: a
/// temporary queue goes with it.
#[derive(Debug, Clone)]
pub(crate) struct DeclaredByHand {
    topology: Arc<Mutex<Topology>>,
    on: ConnectionStatus,
}

/// What became of what is declared on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// All of it is there, declared by this incarnation of the connection.
    There(u64),
    /// The connection broke, and it may be gone until there is another one.
    Away,
    /// Whatever is there or not, it will not be declared again: the connection is not opened.
    Left,
}

impl DeclaredByHand {
    pub(crate) fn new(topology: Arc<Mutex<Topology>>, on: ConnectionStatus) -> Self {
        Self { topology, on }
    }

    /// Whether, and by which session, it is there.
    pub(crate) fn standing(&self) -> Standing {
        if self.is_empty() { Standing::Left } else { self.on.standing() }
    }

    /// Waits until it is declared again, where it may be gone. Cancel safe.
    pub(crate) async fn until_back(&self) {
        if !self.is_empty() {
            self.on.until_back().await;
        }
    }

    fn is_empty(&self) -> bool {
        let topology = self.topology.lock().unwrap_or_else(PoisonError::into_inner);
        topology.queues().is_empty() && topology.exchanges().is_empty()
    }
}
