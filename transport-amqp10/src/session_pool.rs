//! AMQP sessions, lent to links and kept for the next one.
//!
//! A session that ends leaves its channel to the next, and RabbitMQ may take what arrives on it at once
//! for something that the old one left behind: the next session then never begins. So sessions are
//! ended only where they have to be.
//!
//! And not before a link on them is attached. Artemis counts one that its session's end overtakes twice,
//! fails at that, and from then on writes nothing more on the whole connection.

use std::sync::{Arc, Mutex, PoisonError};

use enoki_core::transport::spawn;
use fe2o3_amqp::session::SessionHandle;
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit, time::timeout};

use crate::{connection::REPLY_TIMEOUT, error::Cause, io::stream::Line};

/// An AMQP session for one link.
#[derive(Debug)]
pub(crate) struct Channel {
    kept: Option<Kept>,
    idle: Arc<Idle>,
    line: Arc<Line>,
    clean: bool,
}

/// An AMQP session, and its place on the connection. The one of the links for changes of the topology
/// has a place of its own.
#[derive(Debug)]
struct Kept {
    handle: SessionHandle<()>,
    place: Option<OwnedSemaphorePermit>,
}

impl Channel {
    /// The session, to attach a link to.
    pub(crate) fn handle(&mut self) -> Result<&mut SessionHandle<()>, Cause> {
        // Whatever comes of it has to be known before the next link may use the session.
        self.clean = false;
        match &mut self.kept {
            Some(kept) => Ok(&mut kept.handle),
            None => Err(Cause::Local("the session was ended".to_owned())),
        }
    }

    /// The socket that it is on.
    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// Says that the link is gone and nothing of it is under way: the next may use the session.
    pub(crate) fn release(&mut self) {
        self.clean = true;
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        match self.kept.take() {
            Some(kept) if self.clean && kept.place.is_some() => self.idle.put(kept),
            Some(kept) => end(kept),
            None => {}
        }
    }
}

/// Ends a session. Its place is free when the broker has agreed.
fn end(Kept { mut handle, place }: Kept) {
    if Handle::try_current().is_err() {
        return;
    }
    let ending = async move {
        match (timeout(REPLY_TIMEOUT, handle.end()).await, place) {
            (Err(_), Some(place)) => place.forget(),
            (_, place) => drop(place),
        }
    };
    spawn("end an AMQP session", ending, drop);
}

/// Sessions that no link uses.
#[derive(Debug, Default)]
pub(crate) struct Idle(Mutex<Vec<Kept>>);

impl Idle {
    /// One that is kept, if there is one that lives.
    pub(crate) fn take(self: &Arc<Self>, line: &Arc<Line>) -> Option<Channel> {
        let kept = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|kept| !kept.handle.is_ended());
            kept.pop()?
        };
        Some(self.lend(kept, line))
    }

    /// A new one.
    pub(crate) fn channel(
        self: &Arc<Self>,
        handle: SessionHandle<()>,
        line: &Arc<Line>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Channel {
        self.lend(Kept { handle, place }, line)
    }

    fn lend(self: &Arc<Self>, kept: Kept, line: &Arc<Line>) -> Channel {
        Channel { kept: Some(kept), idle: self.clone(), line: line.clone(), clean: false }
    }

    fn put(&self, kept: Kept) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
    }
}
