//! AMQP sessions, lent to links and kept for the next one.
//!
//! A session that ends leaves its channel to the next, and RabbitMQ may take what arrives on it at once
//! for something that the old one left behind: the next session then never begins. So sessions are
//! ended only where they have to be.
//!
//! And not before a link on them is attached. Artemis counts one that its session's end overtakes twice,
//! fails at that, and from then on writes nothing more on the whole connection.

use std::sync::{Arc, Mutex, PoisonError};

use fe2o3_amqp::session::SessionHandle;

use crate::error::Cause;

/// An AMQP session for one link.
#[derive(Debug)]
pub(crate) struct Channel {
    handle: Option<SessionHandle<()>>,
    idle: Arc<Idle>,
    clean: bool,
}

impl Channel {
    /// The session, to attach a link to.
    pub(crate) fn handle(&mut self) -> Result<&mut SessionHandle<()>, Cause> {
        // Whatever comes of it has to be known before the next link may use the session.
        self.clean = false;
        self.handle.as_mut().ok_or_else(|| Cause::Local("the session was ended".to_owned()))
    }

    /// Says that the link is gone and nothing of it is under way: the next may use the session.
    pub(crate) fn release(&mut self) {
        self.clean = true;
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take()
            && self.clean
        {
            self.idle.put(handle);
        }
    }
}

/// Sessions that no link uses.
#[derive(Debug, Default)]
pub(crate) struct Idle(Mutex<Vec<SessionHandle<()>>>);

impl Idle {
    /// One that is kept, if there is one that lives.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Channel> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|handle| !handle.is_ended());
        kept.pop().map(|handle| self.channel(handle))
    }

    /// A new one.
    pub(crate) fn channel(self: &Arc<Self>, handle: SessionHandle<()>) -> Channel {
        Channel { handle: Some(handle), idle: self.clone(), clean: false }
    }

    fn put(&self, handle: SessionHandle<()>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(handle);
        }
    }
}

/// How many sessions are kept; the others end.
const KEPT: usize = 8;
