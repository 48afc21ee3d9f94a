//! A sender: it takes messages in their order, without waiting for the confirm of one before it takes the next.

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
    error::{self, exchange_subject},
    io::connection_io::ConnectionIo,
    limits::REPLY_TIMEOUT,
    proto::encode,
    publishing::{
        channel::{Closed, PublishChannel},
        unconfirmed::PUBLISH,
    },
};

/// A channel in confirm mode (`confirm.select`, an extension of RabbitMQ).
pub(crate) struct Amqp091Sender {
    /// lapin's handle of the channel. lapin closes the channel when the last clone of it is dropped.
    channel: Channel,
    io: Arc<ConnectionIo>,
    /// The messages and outcomes of that channel, which the task of `io` shares.
    messages: Arc<PublishChannel>,
    /// How many messages may be without an outcome that was told; at least 1.
    window: usize,
    /// Why the connection has ended, once it has.
    ended: watch::Receiver<Option<Ended>>,
    /// The login, which the broker compares with the user id of messages, if it is known here.
    login: Option<String>,
    /// Outcomes of messages that were refused here and never written.
    unsent: Vec<(u64, PublishOutcome)>,
    /// Why it takes no message any more. Outcomes that are known are still told before that.
    failed: Option<Failed>,
}

/// Why a sender has failed; each call tells it again.
#[derive(Debug, Clone)]
enum Failed {
    /// The broker closed the channel.
    Channel(lapin::Error),
    /// The broker closed the channel for certain messages, which have their outcomes. The others may be sent again.
    ChannelOfOthers(lapin::Error),
    /// The connection has ended.
    Connection(Ended),
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
            messages: connection.io().attach(channel.id()),
            channel,
            io: connection.io().clone(),
            window: sender.window.get().into(),
            ended: connection.ended(),
            login: options.user().map(str::to_owned),
            unsent: Vec::new(),
            failed: None,
        })
    }

    /// Refuses a message that the broker would answer by closing the channel, on which other messages have no answer yet.
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
                .because("a mandatory message needs a message id: the broker names a message that it returns by nothing else"));
        }
        Ok(())
    }

    /// Takes a message. `false` if the channel is closed: then it was not taken.
    fn take(&self, outgoing: &Outgoing) -> Result<bool> {
        self.check(outgoing)?;
        let head = encode::head(self.messages.number(), outgoing, self.io.frame_max())?;
        Ok(self.messages.take(outgoing, head))
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
            Failed::Connection(ended) => ended.error("publish", String::new()),
        }
    }
}

impl fmt::Debug for Amqp091Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp091Sender")
            .field("messages", &self.messages)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Drop for Amqp091Sender {
    /// Keeps the channel until the broker has answered each message. If the broker closed the channel for one of them while
    /// lapin closes it from this side, lapin would give up the connection.
    fn drop(&mut self) {
        if !self.messages.is_drained() && tokio::runtime::Handle::try_current().is_ok() {
            let (channel, messages) = (self.channel.clone(), self.messages.clone());
            let waiting = async move {
                let _ = timeout(REPLY_TIMEOUT, poll_fn(|cx| messages.poll_drained(cx))).await;
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
        // After a failure it takes nothing; `outcomes` tells the known outcomes, then the failure.
        while self.failed.is_none()
            && let Some(outgoing) = messages.front()
            && self.messages.has_room_for(outgoing, self.window)
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
                return match self.messages.outcomes(into) {
                    true => Ok(()),
                    false => Err(self.error(failed)),
                };
            }
            let Self { messages, ended, .. } = self;
            let closed = tokio::select! {
                biased;
                closed = poll_fn(|cx| messages.poll_outcomes(cx, into)) => closed,
                ended = Ended::wait(ended) => {
                    self.failed = Some(Failed::Connection(ended));
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
                Some(Closed::Here) => Some(Failed::Connection(Ended::wait(ended).await)),
            };
        }
    }
}

/// The error of a message that is not sent.
fn refused(outgoing: &Outgoing, kind: ErrorKind) -> Error {
    Error::new(kind, PUBLISH).on(exchange_subject(&outgoing.exchange))
}

/// The error of a sender whose channel or connection failed.
fn closed_by(error: &lapin::Error) -> Error {
    match error::kind(error) {
        // A publish declares nothing that could conflict: the broker refused a message.
        ErrorKind::Conflict => Error::new(ErrorKind::Refused, "publish").because(error.to_string()),
        _ => error::failed("publish", "", error),
    }
}

const OPEN: &str = "open a sender at";
