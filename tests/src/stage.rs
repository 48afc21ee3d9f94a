//! The stage of a case: handles on the broker, names of its own, and their removal at its end.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use enoki_core::{
    Broker, BrokerOptions, Capability, ErrorKind, ExchangeKind, ExchangeSpec, Peer, Purpose,
    QueueSpec, Result, ShortStr, Transport,
    transport::{Change, Session},
};
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;

use crate::{
    expect::Failed,
    harness::{Broken, Harness},
};

/// The stage of a case: handles on the broker, names of its own, and their removal at its end.
#[derive(Debug)]
pub(crate) struct Stage {
    harness: Arc<dyn Harness>,
    transport: Arc<Severable>,
    prefix: String,
    made: Mutex<Made>,
}

/// Closed and removed when the case ends.
#[derive(Debug, Default)]
struct Made {
    brokers: Vec<Broker>,
    queues: Vec<ShortStr>,
    exchanges: Vec<ShortStr>,
}

impl Stage {
    pub(crate) async fn open(harness: Arc<dyn Harness>) -> Result<Self> {
        let transport = Arc::new(Severable::new(harness.transport().await?));
        Ok(Self {
            harness,
            transport,
            prefix: format!("conformance.{}", Uuid::now_v7().simple()),
            made: Mutex::default(),
        })
    }

    /// What must work here.
    pub(crate) fn capabilities(&self) -> Vec<Capability> {
        self.harness.capabilities()
    }

    pub(crate) fn can(&self, capability: Capability) -> bool {
        Peer::new(self.harness.name(), "", self.harness.capabilities()).can(capability)
    }

    /// A new handle, with connections of its own.
    pub(crate) async fn broker(&self) -> Result<Broker, Failed> {
        self.broker_with(BrokerOptions::new()).await
    }

    pub(crate) async fn broker_with(&self, options: BrokerOptions) -> Result<Broker, Failed> {
        let broker = Broker::connect_with(self.transport.clone(), options).await?;
        self.made().brokers.push(broker.clone());
        Ok(broker)
    }

    /// A new handle whose sessions can be ended without those of the others.
    pub(crate) async fn severable_broker(&self) -> Result<(Broker, Arc<Severable>), Failed> {
        let transport = Arc::new(Severable::new(self.transport.inner.clone()));
        let broker = Broker::connect_with(transport.clone(), BrokerOptions::new()).await?;
        self.made().brokers.push(broker.clone());
        Ok((broker, transport))
    }

    /// A session as core gets it, for cases about what core hides.
    pub(crate) async fn session(&self) -> Result<Arc<dyn Session>, Failed> {
        let deadline = Instant::now() + Duration::from_secs(10);
        Ok(self.transport.connect(Purpose::Consume, deadline).await?)
    }

    /// A way that leads nowhere; the case has to say that it needs it.
    pub(crate) fn broken(&self, how: Broken) -> Result<Arc<dyn Transport>, Failed> {
        self.harness
            .broken(how)
            .ok_or_else(|| Failed::new(format!("the case does not say that it needs {how:?}")))
    }

    /// A name that no other case and no other run uses.
    pub(crate) fn name(&self, label: &str) -> String {
        format!("{}.{label}", self.prefix)
    }

    /// A queue that no other case uses, and that is removed when the case ends.
    pub(crate) fn queue(&self, label: &str) -> Result<QueueSpec, Failed> {
        let queue = QueueSpec::new(self.name(label))?;
        self.made().queues.push(queue.name.clone());
        Ok(queue)
    }

    /// An exchange that no other case uses, and that is removed when the case ends.
    pub(crate) fn exchange(&self, label: &str, kind: ExchangeKind) -> Result<ExchangeSpec, Failed> {
        let exchange = ExchangeSpec::new(self.name(label), kind)?;
        self.made().exchanges.push(exchange.name.clone());
        Ok(exchange)
    }

    /// Ends every session of this case, behind the back of the handles that use them.
    pub(crate) async fn sever(&self) {
        self.transport.sever().await;
    }

    /// Closes the handles and removes what the case has declared.
    pub(crate) async fn tidy(&self) -> Result<()> {
        let Made { brokers, queues, exchanges } = std::mem::take(&mut *self.made());
        let close = |broker: Broker| async move { broker.close(Duration::from_secs(2)).await };
        futures_util::future::join_all(brokers.into_iter().map(close)).await;
        if queues.is_empty() && exchanges.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let session = self.transport.connect(Purpose::Consume, deadline).await?;
        for queue in queues {
            let delete = Change::DeleteQueue(queue);
            while let Err(error) = session.apply(&delete).await {
                // An exclusive queue goes with its connection, but a moment after it.
                if error.kind() != ErrorKind::Conflict || Instant::now() > deadline {
                    return Err(error);
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        for exchange in exchanges {
            session.apply(&Change::DeleteExchange(exchange)).await?;
        }
        session.close(deadline).await;
        Ok(())
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transport whose sessions can be ended from outside.
#[derive(Debug)]
pub(crate) struct Severable {
    inner: Arc<dyn Transport>,
    sessions: Mutex<Vec<Weak<dyn Session>>>,
}

impl Severable {
    fn new(inner: Arc<dyn Transport>) -> Self {
        Self { inner, sessions: Mutex::default() }
    }

    /// Ends every session, behind the back of the handles that use them.
    pub(crate) async fn sever(&self) {
        let sessions =
            std::mem::take(&mut *self.sessions.lock().unwrap_or_else(PoisonError::into_inner));
        for session in sessions.iter().filter_map(Weak::upgrade) {
            session.close(Instant::now() + Duration::from_secs(1)).await;
        }
    }
}

#[async_trait]
impl Transport for Severable {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn connect(&self, purpose: Purpose, deadline: Instant) -> Result<Arc<dyn Session>> {
        let session = self.inner.connect(purpose, deadline).await?;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.push(Arc::downgrade(&session));
        Ok(session)
    }
}
