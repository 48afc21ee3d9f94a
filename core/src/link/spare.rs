//! Connections for single consumers.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{Command, Link, LinkOptions, State, closed};
use crate::error::Result;

/// Where a consumer gets a connection that it shares with no other.
#[derive(Debug, Clone)]
pub(crate) struct Spare {
    options: LinkOptions,
    /// Those that are in use; `None` when no more are made.
    open: Arc<Mutex<Option<Vec<Unowned>>>>,
}

/// A link that its consumer owns.
#[derive(Debug)]
struct Unowned {
    name: &'static str,
    commands: mpsc::WeakSender<Command>,
    state: watch::Receiver<State>,
}

impl Unowned {
    fn link(&self) -> Option<Link> {
        let commands = self.commands.upgrade()?;
        Some(Link { name: self.name, commands, state: self.state.clone() })
    }
}

impl Spare {
    pub(crate) fn new(options: LinkOptions) -> Self {
        Self { options, open: Arc::new(Mutex::new(Some(Vec::new()))) }
    }

    /// One more connection, not opened yet; it closes when its consumer lets go of it.
    pub(crate) fn connection(&self) -> Result<Link> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = &mut *open else { return Err(closed()) };
        let link = Link::new(self.options.clone());
        open.retain(|other| other.commands.strong_count() > 0);
        open.push(Unowned {
            name: link.name,
            commands: link.commands.downgrade(),
            state: link.state.clone(),
        });
        Ok(link)
    }

    /// Closes all of them for good, and makes no more.
    pub(crate) async fn close(&self, deadline: Instant) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let links: Vec<_> = open.iter().flatten().filter_map(Unowned::link).collect();
        join_all(links.iter().map(|link| link.close(deadline))).await;
    }
}
