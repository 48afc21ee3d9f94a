//! What holds for everything that a broker handle does.

use std::{sync::Arc, time::Duration};

use crate::{
    backoff::Backoff,
    context::Context,
    context::header_codec::{HeaderCodec, PrefixCodec},
    message::Limits,
    message::codec::Codecs,
    tls::Tls,
    transport::{Login, Settings},
};

/// What holds for everything that a broker handle does.
///
/// ```
/// use std::time::Duration;
/// use enoki_core::BrokerOptions;
///
/// let options = BrokerOptions::new().connect_timeout(Duration::from_secs(3));
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    pub(crate) connect_timeout: Duration,
    pub(crate) reach_within: Duration,
    pub(crate) declare_timeout: Duration,
    pub(crate) reconnect: Backoff,
    pub(crate) give_up_after: Duration,
    pub(crate) limits: Limits,
    tls: Tls,
    login: Login,
    pub(crate) codecs: Codecs,
    pub(crate) header_codec: Arc<dyn HeaderCodec>,
    pub(crate) parent_calls: usize,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            reach_within: Duration::from_secs(10),
            declare_timeout: Duration::from_secs(10),
            reconnect: Backoff::new(Duration::from_millis(100), Duration::from_secs(30)),
            give_up_after: Duration::from_secs(300),
            limits: Limits::default(),
            tls: Tls::default(),
            login: Login::default(),
            codecs: Codecs::default(),
            header_codec: Arc::new(PrefixCodec::default()),
            parent_calls: Context::PARENT_CALLS,
        }
    }
}

impl BrokerOptions {
    /// The defaults: 10 seconds to connect and to declare, JSON, nameko's header names.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a connection may take to open, its login included; 10 seconds by default. This bounds
    /// one try.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a broker that cannot be reached is tried again and again before
    /// [`Broker::connect`](crate::Broker::connect) fails; 10 seconds by default, and with 0 there is
    /// one try. A refused login fails at once all the same.
    #[must_use]
    pub fn reach_within(mut self, time: Duration) -> Self {
        self.reach_within = time;
        self
    }

    /// How long a call that changes or reads the topology may take.
    #[must_use]
    pub fn declare_timeout(mut self, timeout: Duration) -> Self {
        self.declare_timeout = timeout;
        self
    }

    /// The pauses between tries to open a connection again; 100 milliseconds at first and 30 seconds at
    /// most by default.
    ///
    /// While a call waits for the connection they are shorter: at most 1.2 seconds where the broker does not
    /// answer, and 5 seconds where it answers and cannot for the time being, unless the longest pause is
    /// shorter than these. Consumers that are refused on an open connection wait by the same rule.
    #[must_use]
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.reconnect = backoff;
        self
    }

    /// How long a connection, consumer or publisher that worked before goes on trying while the broker
    /// gives it no other answer than a refusal that does not pass by itself: a wrong password, a
    /// virtual host or queue that is not there, a queue with other arguments; 5 minutes by default.
    /// Then it fails, and says how long it tried and what the last answer was.
    ///
    /// Brokers that restart, and administrators who change a password, say the same for a while. A
    /// first start believes the first refusal, and a broker that cannot be reached is tried for as
    /// long as it takes.
    #[must_use]
    pub fn give_up_after(mut self, time: Duration) -> Self {
        self.give_up_after = time;
        self
    }

    /// How large the messages may be that publishers send and consumers take.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whom to trust where the URL asks for TLS, and which certificate to show.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// How to log in; by the password of the URL by default.
    #[must_use]
    pub fn login(mut self, login: Login) -> Self {
        self.login = login;
        self
    }

    /// The part of these options that a transport needs, to make one by hand.
    pub fn settings(&self) -> Settings {
        Settings { limits: self.limits, tls: self.tls.clone(), login: self.login }
    }

    /// The encodings that publishers write and consumers accept, unless they have their own.
    #[must_use]
    pub fn codecs(mut self, codecs: Codecs) -> Self {
        self.codecs = codecs;
        self
    }

    /// How the context of calls travels in headers.
    #[must_use]
    pub fn header_codec(mut self, codec: impl HeaderCodec) -> Self {
        self.header_codec = Arc::new(codec);
        self
    }

    /// How many ids of earlier calls travel with a call besides its own; 10 by default. The latest
    /// are kept.
    #[must_use]
    pub fn parent_calls(mut self, calls: usize) -> Self {
        self.parent_calls = calls;
        self
    }
}
