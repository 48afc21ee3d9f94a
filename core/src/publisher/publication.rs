//! A message about to be published.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

use super::{Confirm, Confirmed, Inner, mandatory};
use crate::{
    broker_options::BrokerOptions,
    context::Context,
    deadline::deadline,
    error::{Error, Result},
    message::value::{Table, Timestamp, Value},
    message::{Message, check_header_name},
    publisher::pipeline::{QueuedMessage, Reply},
    publisher::retry::RetryPolicy,
    required,
    short_str::ShortStr,
    topology::ExchangeKind,
    topology::route::{RouteSpec, check_key},
};

/// A message about to be published, with what is its own: it wins over what the publisher has for
/// all of them.
///
/// Made by [`Publisher::message`](super::Publisher::message).
#[must_use = "it is only published by `publish` or `enqueue`"]
pub struct Publication<'p, M> {
    pub(super) publisher: &'p Inner,
    pub(super) exchange: ShortStr,
    pub(super) kind: ExchangeKind,
    pub(super) key: ShortStr,
    /// The route's; all others win over them.
    pub(super) headers: Table,
    pub(super) mandatory: bool,
    pub(super) timeout: Duration,
    pub(super) retry: RetryPolicy,
    pub(super) message: Message,
    pub(super) of: PhantomData<fn(M)>,
}

macro_rules! text_properties {
    ($($(#[$doc:meta])+ $name:ident),+ $(,)?) => {$(
        $(#[$doc])+
        pub fn $name(mut self, $name: impl TryInto<ShortStr, Error: Into<Error>>) -> Result<Self> {
            self.message.properties.$name = Some($name.try_into().map_err(Into::into)?);
            Ok(self)
        }
    )+};
}

impl<M> Publication<'_, M> {
    text_properties! {
        /// The id; unique to the message, also over retries.
        message_id,
        /// What this message answers.
        correlation_id,
        /// The queue that answers go to.
        reply_to,
        /// The application's name for this sort of message.
        kind,
        /// The application that publishes.
        app_id,
        /// The login that publishes; brokers refuse any other than the connection's own.
        user_id,
        /// How the body is encoded on top of its type. Says so only; the body is sent as it is.
        content_encoding,
    }

    /// Another route than the publisher's, with its key and its headers.
    ///
    /// Nothing of it is declared by this: its exchange is there, by
    /// [`PublisherOptions::declare`](super::PublisherOptions::declare) or
    /// [`Broker::declare`](crate::Broker::declare), or the message fails. On AMQP 0-9-1 a missing
    /// exchange ends the channel, so what else is on its way by this publisher is
    /// [`Indeterminate`](crate::ErrorKind::Indeterminate) then.
    pub fn route(self, route: impl Into<RouteSpec<M>>) -> Self {
        let RouteSpec { exchange, kind, key, headers, .. } = route.into();
        Self { exchange, kind, key, headers, ..self }
    }

    /// The routing key.
    pub fn key(mut self, key: impl TryInto<ShortStr, Error: Into<Error>>) -> Result<Self> {
        self.key = key.try_into().map_err(Into::into)?;
        Ok(self)
    }

    /// A header; wins over the publisher's of the same name. A name that brokers set or act on is refused.
    pub fn header(
        mut self,
        name: impl TryInto<ShortStr, Error: Into<Error>>,
        value: impl Into<Value>,
    ) -> Result<Self> {
        let name = name.try_into().map_err(Into::into)?;
        check_header_name(&name)?;
        self.message.headers.set(name, value);
        Ok(self)
    }

    /// When the message was made.
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.message.properties.timestamp = Some(timestamp);
        self
    }

    /// How long it may wait in a queue.
    pub fn expiration(mut self, expiration: Duration) -> Self {
        self.message.properties.expiration = Some(expiration);
        self
    }

    /// The higher the sooner, on queues that have priorities. A replicated queue of RabbitMQ has them
    /// without being asked: two from 4.0 on (more than 4, or not), and from 4.3 on all from 0 to 31, where
    /// none counts as 4.
    pub fn priority(mut self, priority: u8) -> Self {
        self.message.properties.priority = Some(priority);
        self
    }

    /// Whether it survives a restart of the broker, in a durable queue.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.message.properties.persistent = persistent;
        self
    }

    /// Whether it is an error that no queue is bound for it.
    pub fn mandatory(mut self, mandatory: bool) -> Self {
        self.mandatory = mandatory;
        self
    }

    /// How long it may take from the call to its outcome.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whether it is published again when the connection breaks or the broker refuses it, how often,
    /// and when. How long to wait for the next connection stays the publisher's.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Publishes and waits for the outcome, like [`Publisher::publish`](super::Publisher::publish).
    pub async fn publish(self) -> Result<Confirmed> {
        self.enqueue().await?.await
    }

    /// Hands over and tells the outcome later, like [`Publisher::enqueue`](super::Publisher::enqueue).
    pub async fn enqueue(self) -> Result<Confirm> {
        let publisher = self.publisher;
        let deadline = deadline(self.timeout);
        let (reply, outcome) = oneshot::channel();
        let (message_id, message) = self.into_queued(deadline, Reply::One(reply))?;
        let confirm = Confirm::new(
            outcome,
            message_id,
            message.exchange.clone(),
            publisher.pipeline.window().clone(),
            deadline,
        );
        publisher.pipeline.send(message).await?;
        Ok(confirm)
    }

    /// Adds the context and the id, and checks what no wire could carry: the message with its id, ready to be
    /// sent.
    pub(super) fn into_queued(
        mut self,
        deadline: Instant,
        reply: Reply,
    ) -> Result<(ShortStr, QueuedMessage)> {
        let inner = self.publisher;
        check_key(&self.kind, &self.exchange, &self.key)?;
        if self.mandatory {
            let route = &inner.route;
            let is_its_route = self.exchange == route.exchange && self.key == route.key;
            let is_sure = inner.options.mandatory && is_its_route;
            mandatory::check(inner.connections.peer(), &self.exchange, is_sure)?;
        }
        if !self.headers.is_empty() {
            self.headers.merge(std::mem::take(&mut self.message.headers));
            self.message.headers = self.headers;
        }
        // Read now, not when the publisher was made: the handler may have changed it.
        if let Some(context) = Context::current() {
            let BrokerOptions { header_codec, limits, .. } = inner.connections.options();
            match limits.nested_headers {
                true => header_codec.encode(&context, &mut self.message.headers)?,
                false => header_codec.encode_flat(&context, &mut self.message.headers)?,
            }
        }
        required::expiration(inner.connections.peer(), self.message.properties.expiration)?;
        self.message.check(&inner.connections.options().limits)?;
        // As the wires carry it, so that it arrives equal on all of them.
        if let Some(millis) = self.message.properties.expiration_millis() {
            self.message.properties.expiration = Some(Duration::from_millis(millis.into()));
        }
        let id = match &self.message.properties.message_id {
            Some(id) => id.clone(),
            None => message_id(),
        };
        self.message.properties.message_id = Some(id.clone());
        let message = QueuedMessage {
            exchange: self.exchange,
            routing_key: self.key,
            mandatory: self.mandatory,
            message: Arc::new(self.message),
            retry: self.retry,
            deadline,
            reply,
        };
        Ok((id, message))
    }
}

/// Unique, and in the order of time.
fn message_id() -> ShortStr {
    let mut text = Uuid::encode_buffer();
    ShortStr::within_limit(Uuid::now_v7().hyphenated().encode_lower(&mut text))
}

impl<M> fmt::Debug for Publication<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication")
            .field("exchange", &self.exchange)
            .field("key", &self.key)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}
