//! Connections for single consumers.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{Command, Connection, ConnectionOptions, State, closed};
use crate::error::Result;

/// Where a consumer gets a connection that it shares with no other.
#[derive(Debug, Clone)]
pub(crate) struct OwnConnections {
    options: ConnectionOptions,
    /// Those that are in use; `None` when no more are made.
    open: Arc<Mutex<Option<Vec<WeakConnection>>>>,
}

/// A connection that its consumer owns.
#[derive(Debug)]
struct WeakConnection {
    name: &'static str,
    commands: mpsc::WeakSender<Command>,
    state: watch::Receiver<State>,
}

impl WeakConnection {
    fn connection(&self) -> Option<Connection> {
        let commands = self.commands.upgrade()?;
        Some(Connection { name: self.name, commands, state: self.state.clone() })
    }
}

impl OwnConnections {
    pub(crate) fn new(options: ConnectionOptions) -> Self {
        Self { options, open: Arc::new(Mutex::new(Some(Vec::new()))) }
    }

    /// One more connection, not opened yet; it closes when its consumer lets go of it.
    pub(crate) fn connection(&self) -> Result<Connection> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = &mut *open else { return Err(closed()) };
        let connection = Connection::new(self.options.clone());
        open.retain(|other| other.commands.strong_count() > 0);
        open.push(WeakConnection {
            name: connection.name,
            commands: connection.commands.downgrade(),
            state: connection.state.clone(),
        });
        Ok(connection)
    }

    /// Closes all of them, and makes no more.
    pub(crate) async fn close(&self, deadline: Instant) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let connections: Vec<_> =
            open.iter().flatten().filter_map(WeakConnection::connection).collect();
        join_all(connections.iter().map(|connection| connection.close(deadline))).await;
    }
}
