//! All calls through both services on one broker, once; each test looks at one hop of what happened.

use std::{sync::OnceLock, time::Duration};

use enoki::{broker::BrokerOptions, context::PrefixCodec, message::ShortStr};
use enoki_interop::{Broker, Checked};
use tokio::{sync::mpsc, time::timeout};

use super::{
    calls::{Call, calls},
    kitchen::{self, Handled, Names},
    service::{Nameko, Worked},
};

/// Who they were, and on which wire.
pub(crate) struct Story {
    pub(crate) broker: Broker,
    scheme: &'static str,
    /// Of the context's headers, in both services.
    pub(crate) prefix: &'static str,
    told: OnceLock<Result<Told, String>>,
}

/// What happened to each call.
#[derive(Debug)]
pub(crate) struct Told {
    /// The name of nameko's service.
    pub(crate) service: String,
    pub(crate) messages: Vec<Hops>,
    pub(crate) events: Vec<Hops>,
}

/// One call on its way.
#[derive(Debug)]
pub(crate) struct Hops {
    pub(crate) call: Call,
    pub(crate) published: Worked,
    pub(crate) handled: Handled,
    pub(crate) consumed: Worked,
}

impl Story {
    pub(crate) fn new(broker: Broker, scheme: &'static str, prefix: &'static str) -> Self {
        Self { broker, scheme, prefix, told: OnceLock::new() }
    }

    /// How it differs from the others on this broker.
    pub(crate) fn way(&self) -> String {
        match self.prefix {
            "nameko" => self.scheme.to_owned(),
            other => format!("{}::with_the_prefix_{}", self.scheme, other.replace('-', "_")),
        }
    }

    /// Whether our service speaks another protocol than nameko's.
    pub(crate) fn crosses(&self) -> bool {
        self.scheme == "amqp10"
    }

    pub(crate) fn told(&self) -> Result<&Told, String> {
        self.told.get_or_init(|| self.tell()).as_ref().map_err(Clone::clone)
    }

    fn tell(&self) -> Result<Told, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let telling = async { timeout(Duration::from_secs(600), self.telling()).await };
        let told = runtime.block_on(telling).map_err(|_| "it took too long".to_owned())?;
        told.map_err(|error| error.to_string())
    }

    async fn telling(&self) -> Checked<Told> {
        let service = format!("enoki-{}-{}-{}", self.scheme, self.prefix, std::process::id());
        let names = Names { service: service.clone() };
        let url = self.broker.url("amqp091").ok_or("no broker")?;
        let nameko = Nameko::start(&url, &service, self.prefix).await?;
        let url = self.broker.url(self.scheme).ok_or("no broker")?;
        let options =
            BrokerOptions::new().header_codec(PrefixCodec::new(ShortStr::new(self.prefix)?));
        let broker = enoki::connect_with(url, options).await?;
        let told = travel(nameko, &broker, &names).await;
        names.remove(&broker).await?;
        told
    }
}

async fn travel(mut nameko: Nameko, broker: &enoki::Broker, names: &Names) -> Checked<Told> {
    let mut kitchen = kitchen::start(broker.clone(), names).await?;
    let mut told =
        Told { service: names.service.clone(), messages: Vec::new(), events: Vec::new() };
    for call in calls()? {
        kitchen.publish_with(&call.headers)?;
        let published = nameko.run("order", &call).await?;
        let handled = next(&mut kitchen.cooked).await?;
        let consumed = nameko.worked("keep").await?;
        told.messages.push(Hops { call: call.clone(), published, handled, consumed });
        let published = nameko.run("announce", &call).await?;
        let handled = next(&mut kitchen.heard).await?;
        let consumed = nameko.worked("hear").await?;
        told.events.push(Hops { call, published, handled, consumed });
    }
    kitchen.stop().await?;
    nameko.stop().await?;
    Ok(told)
}

async fn next(handled: &mut mpsc::Receiver<Handled>) -> Checked<Handled> {
    let next = timeout(Duration::from_secs(120), handled.recv()).await;
    Ok(next.map_err(|_| "nothing arrived at ours")?.ok_or("ours ended")?)
}
