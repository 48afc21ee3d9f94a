//! Publishing, pipelined: frames are written in order and nobody waits for one to be confirmed.

use std::{collections::VecDeque, fmt, future::poll_fn, sync::Arc};

use async_trait::async_trait;
use enoki_core::{
    Error, ErrorKind, Result,
    transport::{Outgoing, PublishOutcome, Sender, SenderOptions, spawn},
};
use lapin::{Channel, options::ConfirmSelectOptions};
use tokio::{sync::watch, time::timeout};

use crate::{
    connection::{Connection, Ended},
    error,
    io::connection_io::ConnectionIo,
    limits::REPLY_TIMEOUT,
    proto::encode,
    publishing::{
        channel::{Closed, PublishChannel},
        unconfirmed::{PUBLISH, target},
    },
};

/// A confirm channel.
pub(crate) struct Amqp091Sender {
    /// Closed when the last clone of it is gone.
    channel: Channel,
    io: Arc<ConnectionIo>,
    publish_channel: Arc<PublishChannel>,
    window: usize,
    ended: watch::Receiver<Option<Ended>>,
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
    /// The channel, for messages that have their outcome. There is nothing wrong with the others.
    ChannelOfOthers(lapin::Error),
    Session(Ended),
}

impl Amqp091Sender {
    /// Opens a channel in confirm mode.
    pub(crate) async fn open(connection: &Connection, sender: SenderOptions) -> Result<Self> {
        let options = connection.options();
        let subject = options.subject();
        let channel = connection.channel(OPEN, &subject).await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        connection.answered(OPEN, &subject, select).await?;
        let channel = channel.keep();
        Ok(Self {
            publish_channel: connection.io().attach(channel.id()),
            channel,
            io: connection.io().clone(),
            window: sender.window.get().into(),
            ended: connection.ended(),
            login: options.user().map(str::to_owned),
            unsent: Vec::new(),
            failed: None,
        })
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

    /// Puts a message behind those before it. `false` if the channel is gone: nothing was taken.
    fn take(&self, outgoing: &Outgoing) -> Result<bool> {
        self.check(outgoing)?;
        let head = encode::head(self.publish_channel.number(), outgoing, self.io.frame_max())?;
        Ok(self.publish_channel.take(outgoing, head))
    }

    fn error(&self, failed: &Failed) -> Error {
        match failed {
            Failed::Channel(error) => closed_by(error),
            Failed::ChannelOfOthers(error) => {
                let reason = closed_by(error);
                Error::new(reason.kind(), "publish")
                    .because(format!(
                        "the broker closed the channel for another message ({reason})"
                    ))
                    .transient(true)
                    .caused_by(reason)
            }
            Failed::Session(ended) => ended.error("publish", String::new()),
        }
    }
}

impl fmt::Debug for Amqp091Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp091Sender")
            .field("publish_channel", &self.publish_channel)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Drop for Amqp091Sender {
    /// Stays for the answers that are under way. If the broker closed the channel for one of those
    /// messages while lapin was closing it from this side, lapin would give up the connection.
    fn drop(&mut self) {
        if !self.publish_channel.is_drained() && tokio::runtime::Handle::try_current().is_ok() {
            let (channel, publish_channel) = (self.channel.clone(), self.publish_channel.clone());
            let waiting = async move {
                let _ =
                    timeout(REPLY_TIMEOUT, poll_fn(|cx| publish_channel.poll_drained(cx))).await;
                drop(channel);
            };
            spawn("close a sender", waiting, drop);
        }
    }
}

#[async_trait]
impl Sender for Amqp091Sender {
    async fn submit(&mut self, messages: &mut VecDeque<Outgoing>) -> Result<()> {
        let mut taken = false;
        // After a failure it takes nothing; `outcomes` says what is known, then that it failed.
        while self.failed.is_none()
            && let Some(outgoing) = messages.front()
            && self.publish_channel.has_room_for(outgoing, self.window)
        {
            match self.take(outgoing) {
                Ok(true) => taken = true,
                Ok(false) => break,
                Err(error) => self.unsent.push((outgoing.id, PublishOutcome::Rejected(error))),
            }
            messages.pop_front();
        }
        if taken {
            self.io.wake();
        }
        Ok(())
    }

    async fn outcomes(&mut self, into: &mut Vec<(u64, PublishOutcome)>) -> Result<()> {
        if !self.unsent.is_empty() {
            into.append(&mut self.unsent);
            return Ok(());
        }
        loop {
            if let Some(failed) = &self.failed {
                return match self.publish_channel.outcomes(into) {
                    true => Ok(()),
                    false => Err(self.error(failed)),
                };
            }
            let Self { publish_channel, ended, .. } = self;
            let closed = tokio::select! {
                biased;
                closed = poll_fn(|cx| publish_channel.poll_outcomes(cx, into)) => closed,
                ended = Ended::wait(ended) => {
                    self.failed = Some(Failed::Session(ended));
                    continue;
                }
            };
            self.failed = match closed {
                None => return Ok(()),
                Some(Closed::ByBroker { error, explained: true }) => {
                    Some(Failed::ChannelOfOthers(error))
                }
                Some(Closed::ByBroker { error, explained: false }) => Some(Failed::Channel(error)),
                // The connection learns the reason slightly later.
                Some(Closed::Here) => Some(Failed::Session(Ended::wait(ended).await)),
            };
        }
    }
}

/// The error of a message that was not sent.
fn refused(outgoing: &Outgoing, kind: ErrorKind) -> Error {
    Error::new(kind, PUBLISH).on(target(&outgoing.exchange))
}

/// The error of a sender whose channel or connection failed.
fn closed_by(error: &lapin::Error) -> Error {
    match error::kind(error) {
        // Nothing that a publisher does can conflict: it is a message that the broker refuses.
        ErrorKind::Conflict => Error::new(ErrorKind::Refused, "publish").because(error.to_string()),
        _ => error::failed("publish", "", error),
    }
}

const OPEN: &str = "open a sender at";
