//! What a case gets: a broker behind a proxy, and names of its own.

use std::{
    error::Error,
    fmt,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use enoki::{
    Broker,
    broker::{BrokerOptions, BrokerUrl},
    topology::{ExchangeKind, ExchangeSpec, QueueSpec},
};
use enoki_faults::{
    broker_process::{BrokerProcess, Unavailable},
    patience::connect_patiently,
    proxy::Proxy,
};

use crate::steps::{CALM, PATIENCE};

/// Whether it held, and if not, why.
pub(crate) type Checked<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a case harms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harms {
    /// Its own connections: the broker may be shared.
    Connections,
    /// The broker, which must be the test's own.
    TheBroker,
}

/// A transport, and the broker behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    scheme: &'static str,
    broker: &'static str,
    variable: &'static str,
}

impl Place {
    /// All that there can be; the newest broker only where there is one.
    pub(crate) fn all() -> Vec<Self> {
        let place = |scheme, broker, variable| Self { scheme, broker, variable };
        let mut places = vec![
            place("amqp091", "rabbitmq-3", "ENOKI_RABBITMQ_3"),
            place("amqp091", "rabbitmq-4", "ENOKI_RABBITMQ_4"),
            place("amqp10", "rabbitmq-4", "ENOKI_RABBITMQ_4"),
        ];
        if std::env::var_os("ENOKI_RABBITMQ_4_3").is_some() {
            places.push(place("amqp091", "rabbitmq-4.3", "ENOKI_RABBITMQ_4_3"));
            places.push(place("amqp10", "rabbitmq-4.3", "ENOKI_RABBITMQ_4_3"));
        }
        places
    }

    /// Whether a machine may be without this one.
    pub(crate) fn is_optional(self) -> bool {
        self.broker == "rabbitmq-4.3"
    }

    /// Kept while something harms the broker: that must not be another case's business. It holds
    /// the broker's process, if that is known to be well.
    pub(crate) fn alone(self) -> MutexGuard<'static, Option<BrokerProcess>> {
        static ALONE: [Mutex<Option<BrokerProcess>>; 3] = [const { Mutex::new(None) }; 3];
        let [three, four, newest] = &ALONE;
        let mutex = match self.broker {
            "rabbitmq-3" => three,
            "rabbitmq-4" => four,
            _ => newest,
        };
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker's process, well, whatever became of it.
    pub(crate) async fn process(self) -> Checked<BrokerProcess> {
        let started = BrokerProcess::start(self.broker, "faults").await;
        let process = started.map_err(|error| match error {
            Unavailable::NotHere(reason) => reason,
            Unavailable::Failed(error) => error.to_string(),
        })?;
        process.recover().await?;
        Ok(process)
    }

    /// The broker's URL, or the variable that does not tell it.
    pub(crate) fn url(self, harms: Harms) -> Result<String, String> {
        let variable = match harms {
            Harms::Connections => self.variable.to_owned(),
            Harms::TheBroker => format!("{}_FAULTS", self.variable),
        };
        let url = std::env::var(&variable).ok().filter(|url| !url.is_empty());
        url.map(|url| url.replacen("amqp091", self.scheme, 1)).ok_or(variable)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.scheme, self.broker)
    }
}

/// A broker behind a proxy, and names of its own.
pub(crate) struct Stage {
    pub(crate) proxy: Proxy,
    url: String,
    process: Option<BrokerProcess>,
    prefix: String,
}

impl Stage {
    pub(crate) async fn open(url: &str, process: Option<BrokerProcess>) -> Checked<Self> {
        let parsed = BrokerUrl::parse(url)?;
        let host = parsed.host().ok_or("the URL names no host")?;
        let address: SocketAddr = tokio::net::lookup_host((host, parsed.port().unwrap_or(5672)))
            .await?
            .next()
            .ok_or("the host has no address")?;
        let proxy = Proxy::start(address).await?;
        let prefix = format!("faults.{}", uuid::Uuid::now_v7().simple());
        Ok(Self { proxy, url: url.to_owned(), process, prefix })
    }

    /// A handle on the broker, by way of the proxy, for what is not about deadlines.
    pub(crate) async fn broker(&self) -> enoki::Result<Broker> {
        self.broker_beating(CALM).await
    }

    /// A handle on the broker, by way of the proxy, with heartbeats so many seconds apart.
    pub(crate) async fn broker_beating(&self, heartbeat: u16) -> enoki::Result<Broker> {
        let mut options = BrokerOptions::new().declare_timeout(PATIENCE);
        // A login that has fallen into a hole is given up as soon as elsewhere; but not where nothing is
        // broken that would hold it up.
        if heartbeat == CALM {
            options = options.connect_timeout(PATIENCE);
        }
        enoki::connect_with(self.url(heartbeat), options).await
    }

    /// The broker's URL, by way of the proxy.
    pub(crate) fn url(&self, heartbeat: u16) -> String {
        format!("{}?heartbeat={heartbeat}", self.proxy.url(&self.url))
    }

    /// The broker's URL with another virtual host, by way of the proxy.
    pub(crate) fn url_of_host(&self, name: &str) -> Checked<String> {
        let url = self.proxy.url(&self.url);
        let (url, _) = url.rsplit_once('/').ok_or("the URL names no virtual host")?;
        Ok(format!("{url}/{name}?heartbeat=10"))
    }

    /// The virtual host.
    pub(crate) fn host(&self) -> Checked<&str> {
        Ok(self.url.rsplit_once('/').ok_or("the URL names no virtual host")?.1)
    }

    /// The broker's URL with another login, by way of the proxy.
    pub(crate) fn url_of_user(&self, name: &str, password: &str) -> Checked<String> {
        let url = self.proxy.url(&self.url);
        let (login, rest) = url.split_once('@').ok_or("the URL names no user")?;
        let (scheme, _) = login.split_once("://").ok_or("the URL has no scheme")?;
        Ok(format!("{scheme}://{name}:{password}@{rest}?heartbeat=10"))
    }

    /// The broker's URL, past the proxy.
    pub(crate) fn direct_url(&self) -> &str {
        &self.url
    }

    /// Whether the protocol is AMQP 0-9-1, where some things are told that AMQP 1.0 has no word for.
    pub(crate) fn is_amqp091(&self) -> bool {
        self.url.starts_with("amqp091")
    }

    /// A handle on the broker, past the proxy: to look at what is there.
    pub(crate) async fn past_the_proxy(&self) -> enoki::Result<Broker> {
        connect_patiently(&self.url).await
    }

    /// The broker itself, to harm it.
    pub(crate) fn process(&self) -> Checked<&BrokerProcess> {
        self.process.as_ref().ok_or_else(|| "the case does not say that it harms the broker".into())
    }

    /// A queue of this case alone; it goes soon after the case.
    pub(crate) fn queue(&self, label: &str) -> enoki::Result<QueueSpec> {
        let mut queue = QueueSpec::new(format!("{}.{label}", self.prefix))?;
        queue.expires = Some(Duration::from_secs(600));
        Ok(queue)
    }

    /// A topic exchange that nothing else uses; the case deletes it.
    pub(crate) fn exchange(&self, label: &str) -> enoki::Result<ExchangeSpec> {
        ExchangeSpec::new(format!("{}.{label}", self.prefix), ExchangeKind::Topic)
    }
}

/// Fails with these words unless it is so.
pub(crate) fn expect(is_so: bool, words: impl Into<String>) -> Checked {
    if is_so { Ok(()) } else { Err(words.into().into()) }
}
