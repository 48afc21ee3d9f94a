//! What holds for every message of a publisher.

use std::{num::NonZeroU16, time::Duration};

use crate::{
    error::{Error, ErrorKind, Result},
    message::codec::Codecs,
    message::value::Table,
    message::{Properties, check_header_name},
    publisher::retry::RetryPolicy,
    short_str::ShortStr,
    topology::Topology,
};

/// What holds for every message of a publisher, unless the call says otherwise.
///
/// ```
/// use std::time::Duration;
/// use enoki_core::PublisherOptions;
///
/// let options = PublisherOptions::new().window(512).expiration(Duration::from_secs(60));
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    pub(super) mandatory: bool,
    pub(super) properties: Properties,
    pub(super) headers: Table,
    pub(super) codecs: Option<Codecs>,
    pub(crate) window: u16,
    pub(super) timeout: Duration,
    pub(crate) declare: Topology,
    pub(crate) retry: RetryPolicy,
    pub(crate) fail_fast: bool,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            mandatory: true,
            properties: Properties::default(),
            headers: Table::new(),
            codecs: None,
            window: 256,
            timeout: Duration::from_secs(30),
            declare: Topology::new(),
            retry: RetryPolicy::default(),
            fail_fast: false,
        }
    }
}

macro_rules! text_properties {
    ($($(#[$doc:meta])+ $name:ident),+ $(,)?) => {$(
        $(#[$doc])+
        #[must_use]
        pub fn $name(mut self, $name: ShortStr) -> Self {
            self.properties.$name = Some($name);
            self
        }
    )+};
}

impl PublisherOptions {
    /// The defaults: persistent, mandatory, a window of 256 messages, 30 seconds for each.
    pub fn new() -> Self {
        Self::default()
    }

    /// A message that no queue is bound for is no error: it is confirmed, and gone.
    ///
    /// A publisher without this option is mandatory. To a broker that does not report such messages
    /// ([`Capability::UnroutableDetection`](crate::Capability)) it publishes to one queue by its
    /// name, which has to be there whenever the publisher connects; anything else is refused.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.mandatory = false;
        self
    }

    /// Messages do not survive a restart of the broker, not even in a durable queue.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.properties.persistent = false;
        self
    }

    /// How long messages wait in a queue, at most.
    #[must_use]
    pub fn expiration(mut self, expiration: Duration) -> Self {
        self.properties.expiration = Some(expiration);
        self
    }

    /// The priority of messages, on queues that have priorities.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.properties.priority = Some(priority);
        self
    }

    text_properties! {
        /// The name of the application, on each message.
        app_id,
        /// The application's name for this sort of message.
        kind,
        /// The queue that answers go to.
        reply_to,
        /// What these messages answer.
        correlation_id,
        /// The login that publishes; brokers refuse any other than the connection's own.
        user_id,
        /// How bodies are encoded on top of their type. Says so only; bodies are sent as they are.
        content_encoding,
    }

    /// Headers for each message; a call's own win over them, and the context over both. The publisher is
    /// refused where brokers set or act on one of the names.
    #[must_use]
    pub fn headers(mut self, headers: Table) -> Self {
        self.headers = headers;
        self
    }

    /// The encoding of bodies; the broker handle's by default.
    #[must_use]
    pub fn codecs(mut self, codecs: Codecs) -> Self {
        self.codecs = Some(codecs);
        self
    }

    /// How many messages may be without an outcome, 1 to 65,535; 256 by default. This is what
    /// bounds the memory of a publisher, and what makes it wait.
    #[must_use]
    pub fn window(mut self, messages: u16) -> Self {
        self.window = messages;
        self
    }

    /// How long a message may take from the call to its outcome; 30 seconds by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What else to declare before publishing, for instance the queue that is to get the messages.
    /// Not a temporary queue: those belong to the connection that consumes.
    #[must_use]
    pub fn declare(mut self, topology: Topology) -> Self {
        self.declare = topology;
        self
    }

    /// Which messages are published again when the connection breaks, how often, and when.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// While there is no connection, messages fail at once with the reason. By default they wait
    /// for the next connection, as many as the window has room for, until their deadline.
    #[must_use]
    pub fn fail_fast(mut self) -> Self {
        self.fail_fast = true;
        self
    }

    /// Refuses what cannot be, and returns the window.
    pub(crate) fn check(&self) -> Result<NonZeroU16> {
        let window = NonZeroU16::new(self.window).ok_or_else(|| {
            Error::new(ErrorKind::Configuration, "make a publisher")
                .because("a window of 0 has no room for a message")
                .remedy("1 to 65535; 256 is the default")
        })?;
        self.headers.iter().try_for_each(|(name, _)| check_header_name(name))?;
        Ok(window)
    }
}
