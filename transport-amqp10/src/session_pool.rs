//! AMQP sessions of one connection: lent to links, and kept for the next link.
//!
//! A link has an AMQP session of its own (docs/design/17-amqp10.md says why). When the link is gone, its
//! session is kept instead of ended, for two reasons:
//!
//! - A session that ends leaves its channel number to the next one. RabbitMQ may take the begin of that next
//!   session for a late frame of the old one, and drop it: the next session then never begins.
//! - A session must not end while a link on it is still attaching. Artemis (2.44) then counts that link
//!   twice, fails, and stops writing on the whole connection.

use std::sync::{Arc, Mutex, PoisonError};

use enoki_core::transport::spawn;
use fe2o3_amqp::session::SessionHandle;
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit, time::timeout};

use crate::{error::Cause, io::socket_state::SocketState, limits::REPLY_TIMEOUT};

/// The AMQP session of one link. When it is dropped it goes back to its pool, or is ended.
///
/// It goes back only if it is reusable and has a permit. The session of a management link has no permit, so
/// it is always ended.
#[derive(Debug)]
pub(crate) struct LinkSession {
    /// `None` only while it is dropped.
    session: Option<PermittedSession>,
    pool: Arc<SessionPool>,
    socket: Arc<SocketState>,
    /// Whether the next link may use the session: no frame of the last link can follow. False from the moment
    /// that the handle is asked for until [`LinkSession::mark_reusable`].
    is_reusable: bool,
}

/// An AMQP session, and the permit that counts it among those of its connection. The session of a management
/// link has none: a place is set aside for it.
#[derive(Debug)]
struct PermittedSession {
    handle: SessionHandle<()>,
    permit: Option<OwnedSemaphorePermit>,
}

impl LinkSession {
    /// The session, to attach a link to.
    pub(crate) fn handle(&mut self) -> Result<&mut SessionHandle<()>, Cause> {
        self.is_reusable = false;
        match &mut self.session {
            Some(session) => Ok(&mut session.handle),
            None => Err(Cause::Local("the session was ended".to_owned())),
        }
    }

    /// The socket of its connection.
    pub(crate) fn socket(&self) -> &SocketState {
        &self.socket
    }

    /// The link is gone, and no frame of it can follow: the next link may use the session.
    pub(crate) fn mark_reusable(&mut self) {
        self.is_reusable = true;
    }
}

impl Drop for LinkSession {
    fn drop(&mut self) {
        match self.session.take() {
            Some(session) if self.is_reusable && session.permit.is_some() => self.pool.put(session),
            Some(session) => end(session),
            None => {}
        }
    }
}

/// Ends a session in a task of its own. The permit is free again once the broker has answered; if the broker
/// does not answer, the permit is lost with the channel.
fn end(PermittedSession { mut handle, permit }: PermittedSession) {
    if Handle::try_current().is_err() {
        return;
    }
    let ending = async move {
        match (timeout(REPLY_TIMEOUT, handle.end()).await, permit) {
            (Err(_), Some(permit)) => permit.forget(),
            (_, permit) => drop(permit),
        }
    };
    spawn("end an AMQP session", ending, drop);
}

/// The sessions of one connection that no link uses. Each has a permit.
#[derive(Debug, Default)]
pub(crate) struct SessionPool(Mutex<Vec<PermittedSession>>);

impl SessionPool {
    /// Lends a session that is not used, if there is one that has not ended.
    pub(crate) fn take(self: &Arc<Self>, socket: &Arc<SocketState>) -> Option<LinkSession> {
        let session = {
            let mut unused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            unused.retain(|session| !session.handle.is_ended());
            unused.pop()?
        };
        Some(self.lend(session, socket))
    }

    /// Lends a session that has just begun.
    pub(crate) fn lend_new(
        self: &Arc<Self>,
        handle: SessionHandle<()>,
        socket: &Arc<SocketState>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> LinkSession {
        self.lend(PermittedSession { handle, permit }, socket)
    }

    fn lend(self: &Arc<Self>, session: PermittedSession, socket: &Arc<SocketState>) -> LinkSession {
        LinkSession {
            session: Some(session),
            pool: self.clone(),
            socket: socket.clone(),
            is_reusable: false,
        }
    }

    fn put(&self, session: PermittedSession) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}
