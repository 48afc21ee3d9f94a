//! What the program declared by hand, on each new connection again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::sleep;

use crate::{
    declare::{apply, changes},
    topology::Topology,
    transport::{Change, Session},
};

/// What is still to be declared on one session.
pub(crate) struct Redeclaration {
    changes: Vec<Change>,
    /// What the program wants by now: it may have deleted some of it meanwhile.
    wanted: Arc<Mutex<Topology>>,
}

impl Redeclaration {
    /// Everything of this topology.
    pub(crate) fn of(topology: &Topology, wanted: Arc<Mutex<Topology>>) -> Self {
        Self { changes: changes(topology).collect(), wanted }
    }

    /// Declares each. One thing that cannot be any more keeps nothing else back; what may be later
    /// stays for [`Redeclaration::rest`].
    pub(crate) async fn once(&mut self, session: &dyn Session) {
        let mut at = 0;
        while let Some(change) = self.changes.get(at) {
            match apply(session, change).await {
                Ok(_) => drop(self.changes.remove(at)),
                // The next session begins anew.
                Err(_) if session.ended().now_or_never().is_some() => return,
                // What comes later may fail for want of what came before.
                Err(error) if error.is_transient() || at > 0 => {
                    tracing::warn!(%error, "not declared again yet; tried again later");
                    at += 1;
                }
                Err(error) => {
                    tracing::error!(%error, "not declared again after a reconnect");
                    self.changes.remove(at);
                }
            }
        }
    }

    /// Whether nothing is left to declare.
    pub(crate) fn is_over(&self) -> bool {
        self.changes.is_empty()
    }

    /// Declares what is left, as long as it takes: a broker may hold on to an exclusive queue for a
    /// moment, and the node of another may be down.
    pub(crate) async fn rest(&mut self, session: &dyn Session) {
        let mut wait = FIRST;
        while !self.is_over() {
            sleep(wait).await;
            wait = LONGEST.min(wait * 2);
            {
                let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
                let wanted: Vec<_> = changes(&wanted).collect();
                self.changes.retain(|change| wanted.contains(change));
            }
            self.once(session).await;
        }
    }
}

/// How long to wait before the next try of what could not be declared, at first and in the end.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);
