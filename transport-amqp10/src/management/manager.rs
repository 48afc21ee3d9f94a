//! Manages a broker through one connection.

use std::sync::Arc;

use enoki_core::{Peer, Result};
use tokio::time::timeout;

use crate::{
    connection::Connection, connections::Connections, error, limits::REPLY_TIMEOUT,
    management_link::ManagementLink, session_pool::LinkSession,
};

/// Manages a broker through one connection of a session. It matters which one: an exclusive queue belongs to
/// the connection that declared it.
pub(crate) struct Manager<'s> {
    connections: &'s Connections,
    connection: Arc<Connection>,
}

impl<'s> Manager<'s> {
    pub(crate) fn new(connections: &'s Connections, connection: Arc<Connection>) -> Self {
        Self { connections, connection }
    }

    /// The session of the interface.
    pub(crate) fn connections(&self) -> &'s Connections {
        self.connections
    }

    pub(crate) fn peer(&self) -> &'s Peer {
        self.connections.peer()
    }

    /// The AMQP session for a management link on this connection.
    pub(super) async fn session(
        &self,
        operation: &'static str,
        subject: &str,
    ) -> Result<LinkSession> {
        let begun = self.connection.management_session().await;
        begun.map_err(|failure| self.connections.not_begun(operation, subject, failure))
    }

    /// Runs one request on a link that no other request uses meanwhile; runs `open` if there is none.
    ///
    /// A request waits for those before it, which have [`REPLY_TIMEOUT`] each, and then has as long itself.
    pub(super) async fn with_link<T>(
        &self,
        operation: &'static str,
        subject: &str,
        open: impl Future<Output = Result<ManagementLink>>,
        request: impl AsyncFnOnce(&mut ManagementLink) -> Result<T>,
    ) -> Result<T> {
        let mut kept = self.connection.management.lock().await;
        let whole = async {
            // Taken out, so that a request which is given up takes the link with it: its answer may still
            // come.
            let mut link = match kept.take() {
                Some(link) => link,
                None => open.await?,
            };
            let answer = request(&mut link).await;
            if link.is_reusable() {
                *kept = Some(link);
            }
            answer
        };
        timeout(REPLY_TIMEOUT, whole)
            .await
            .unwrap_or_else(|_| Err(error::timed_out(operation, subject)))
    }
}
