//! Publishing, pipelined: frames are written in order and nobody waits for one to be confirmed.

mod attribution;
mod ready;
mod window;

use std::{collections::VecDeque, fmt, future::poll_fn, task::Poll};

use async_trait::async_trait;
use enoki_core::{
    Error, ErrorKind, Result,
    transport::{Outgoing, PublishOutcome, Sender},
};
use lapin::Channel;
use tokio::sync::watch;

use self::window::Window;
use crate::{
    error,
    session::{Ended, Health},
};

/// A confirm channel.
pub(crate) struct Amqp091Sender {
    window: Window,
    health: watch::Receiver<Health>,
    /// The login, which the broker compares with the user id of messages, if it is known here.
    login: Option<String>,
    /// Outcomes of messages that were never sent.
    unsent: Vec<(u64, PublishOutcome)>,
    failed: Option<Failed>,
}

/// Why a sender is of no use any more; can be told again.
#[derive(Debug, Clone)]
enum Failed {
    Channel(lapin::Error),
    Session(Ended),
}

impl Amqp091Sender {
    pub(crate) fn new(
        channel: Channel,
        health: watch::Receiver<Health>,
        login: Option<String>,
        window: usize,
    ) -> Self {
        Self {
            window: Window::new(channel, window.max(1)),
            health,
            login,
            unsent: Vec::new(),
            failed: None,
        }
    }

    /// What the broker would answer by closing the channel, with everything under way on it.
    fn check(&self, outgoing: &Outgoing) -> Result<()> {
        let properties = &outgoing.message.properties;
        if let (Some(user), Some(login)) = (&properties.user_id, &self.login)
            && *user != login.as_str()
        {
            return Err(refused(outgoing, ErrorKind::Denied).because(format!(
                "its user id is {:?}, and the broker takes only the login's own, {:?}",
                user.as_str(),
                login
            )));
        }
        if outgoing.mandatory && properties.message_id.is_none() {
            return Err(refused(outgoing, ErrorKind::Unexpected)
                .because("a mandatory message needs a message id to be told from others"));
        }
        Ok(())
    }

    /// What the state of the session says about an idle channel.
    fn look_at_session(&mut self) {
        if self.failed.is_some() {
            return;
        }
        let health = self.health.borrow_and_update();
        self.failed = match (&health.ended, &health.channel_error) {
            (Some(ended), _) => Some(Failed::Session(ended.clone())),
            (None, Some(error)) if !self.window.is_open() => Some(Failed::Channel(error.clone())),
            _ => None,
        };
    }

    fn error(&self, failed: &Failed) -> Error {
        match failed {
            Failed::Channel(error) => closed_by(error),
            Failed::Session(ended) => ended.error("publish", String::new()),
        }
    }
}

impl fmt::Debug for Amqp091Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp091Sender")
            .field("window", &self.window)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Sender for Amqp091Sender {
    async fn submit(&mut self, messages: &mut VecDeque<Outgoing>) -> Result<()> {
        // After a failure it takes nothing; `outcomes` says what is known, then that it failed.
        while self.failed.is_none()
            && let Some(outgoing) = messages.front()
            && self.window.has_room_for(outgoing)
        {
            let checked = self.check(outgoing).and_then(|()| self.window.send(outgoing));
            match checked {
                Ok(true) => {}
                // The channel is gone, and lapin took nothing.
                Ok(false) => break,
                Err(error) => self.unsent.push((outgoing.id, PublishOutcome::Rejected(error))),
            }
            messages.pop_front();
        }
        Ok(())
    }

    async fn outcomes(&mut self, into: &mut Vec<(u64, PublishOutcome)>) -> Result<()> {
        let before = into.len();
        into.append(&mut self.unsent);
        loop {
            if let Some(failed) = &self.failed
                && into.len() == before
            {
                return Err(self.error(failed));
            }
            let Self { window, health, .. } = self;
            let answered = poll_fn(|cx| {
                let failed = window.drain(cx.waker(), into);
                match (failed, into.len() > before) {
                    (None, false) => Poll::Pending,
                    (failed, _) => Poll::Ready(failed),
                }
            });
            let failed = tokio::select! {
                biased;
                failed = answered => failed,
                _ = health.changed() => None,
            };
            match failed {
                Some(error) => {
                    window.abandon(&error, into);
                    self.failed.get_or_insert(Failed::Channel(error));
                }
                None if into.len() == before => self.look_at_session(),
                None => {}
            }
            if into.len() > before {
                return Ok(());
            }
        }
    }
}

/// The error of a message that was not sent.
fn refused(outgoing: &Outgoing, kind: ErrorKind) -> Error {
    Error::new(kind, PUBLISH).on(window::target(&outgoing.exchange))
}

/// The error of a sender whose channel or connection failed.
fn closed_by(error: &lapin::Error) -> Error {
    match error::kind(error) {
        // Nothing that a publisher does can conflict: it is a message that the broker refuses.
        ErrorKind::Conflict => Error::new(ErrorKind::Refused, "publish")
            .because(error.to_string())
            .caused_by(error.clone()),
        _ => error::failed("publish", "", error),
    }
}

const PUBLISH: &str = "publish to";
