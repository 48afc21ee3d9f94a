//! The connections of one broker, and what everything that uses them has to know: below the broker
//! handle, its publishers and its consumers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::{
    broker_options::BrokerOptions,
    capability::Peer,
    connection::{Connection, ConnectionOptions, DeclaredByHand, OwnConnections, Patience},
    deadline::{deadline, later},
    declare::declare,
    error::{Error, ErrorKind, Result},
    health::BrokerHealth,
    short_str::ShortStr,
    topology::{Topology, unique_name},
    transport::{GRACE, Purpose, Session, Transport},
};

/// One connection for publishing and one for consuming, so that a broker which stops publishers does
/// not stop acknowledgements with them.
#[derive(Debug)]
pub(crate) struct Connections {
    transport: Arc<dyn Transport>,
    publishing: Connection,
    consuming: Connection,
    /// For consumers that cost the others their connection.
    own_connections: OwnConnections,
    peer: Peer,
    options: BrokerOptions,
    /// Tells this handle's temporary queues from those of every other handle.
    suffix: String,
    /// What the program declared by hand. The consuming connection declares it again when it is opened
    /// again.
    declared: Arc<Mutex<Topology>>,
    health: watch::Receiver<BrokerHealth>,
}

impl Connections {
    /// Opens the connection that publishes. The other one is opened when it is needed first.
    pub(crate) async fn open(
        transport: Arc<dyn Transport>,
        options: BrokerOptions,
    ) -> Result<Self> {
        let (tell, health) = watch::channel(BrokerHealth::IDLE);
        let tell = Arc::new(tell);
        let declared = Arc::new(Mutex::new(Topology::new()));
        let connection = |purpose, topology, health| ConnectionOptions {
            transport: transport.clone(),
            purpose,
            connect_timeout: options.connect_timeout,
            declare_timeout: options.declare_timeout,
            reconnect: options.reconnect,
            give_up_after: options.give_up_after,
            topology,
            health,
        };
        let publishing =
            Connection::new(connection(Purpose::Publish, Arc::default(), tell.clone()));
        // Temporary queues belong to the connection that consumes.
        let consuming =
            Connection::new(connection(Purpose::Consume, declared.clone(), tell.clone()));
        // Their health is their consumer's.
        let untold = Arc::new(watch::Sender::new(BrokerHealth::IDLE));
        let own_connections =
            OwnConnections::new(connection(Purpose::Consume, Arc::default(), untold));
        let reached = async {
            if options.reach_within.is_zero() {
                let one_try = later(deadline(options.connect_timeout), GRACE);
                publishing.session(one_try, Patience::FailFast).await
            } else {
                publishing.session(deadline(options.reach_within), Patience::Wait).await
            }
        };
        let began = Instant::now();
        let reached = reached.await.map_err(|error| unreached(error, began.elapsed()))?;
        Ok(Self {
            peer: reached.session.peer().clone(),
            transport,
            publishing,
            consuming,
            own_connections,
            options,
            suffix: Uuid::now_v7().simple().to_string(),
            declared,
            health,
        })
    }

    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(crate) fn options(&self) -> &BrokerOptions {
        &self.options
    }

    pub(crate) fn health(&self) -> watch::Receiver<BrokerHealth> {
        self.health.clone()
    }

    pub(crate) fn publishing(&self) -> &Connection {
        &self.publishing
    }

    pub(crate) fn consuming(&self) -> &Connection {
        &self.consuming
    }

    pub(crate) fn own_connections(&self) -> &OwnConnections {
        &self.own_connections
    }

    /// What the program declared by hand, to look at and to change.
    pub(crate) fn declared(&self) -> MutexGuard<'_, Topology> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, as a publisher sees it.
    pub(crate) fn declared_by_hand(&self) -> DeclaredByHand {
        DeclaredByHand::new(self.declared.clone(), self.consuming.status())
    }

    /// The topology with this handle's suffix on the names of its temporary queues.
    pub(crate) fn localize(&self, topology: &Topology) -> Result<Topology> {
        topology.clone().localize(&self.suffix)
    }

    /// The name of a queue, with this handle's suffix where it is a temporary one.
    pub(crate) fn whole_name(&self, name: ShortStr, unique: bool) -> Result<ShortStr> {
        if unique { unique_name(&name, &self.suffix) } else { Ok(name) }
    }

    /// Until when a call that declares may take: a connection may have to be opened first.
    pub(crate) fn declare_by(&self) -> Instant {
        later(deadline(self.options.connect_timeout), self.options.declare_timeout)
    }

    /// Does something on the consuming connection, within the time for declaring.
    pub(crate) async fn with_session<T, F>(
        &self,
        work: impl FnOnce(Arc<dyn Session>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let deadline = self.declare_by();
        let working = async {
            let live = self.consuming.session(deadline, Patience::Wait).await?;
            let worked = work(live.session.clone()).await;
            worked.map_err(|error| live.judge(error))
        };
        timeout_at(deadline, working).await.unwrap_or_else(|_| Err(overdue()))
    }

    /// Declares what a publisher needs, on the connection that publishes. What the program declared by
    /// hand comes first, so that the topology may name it.
    pub(crate) async fn declare_for_publisher(&self, topology: &Topology) -> Result<()> {
        let declare_by = self.declare_by();
        let by_hand = self.declared_by_hand();
        let declaring = async {
            // Not for the whole time: this publisher may not need it.
            let soon = deadline(self.options.connect_timeout);
            let _ = timeout_at(soon, by_hand.until_back()).await;
            let live = self.publishing.session(declare_by, Patience::Wait).await?;
            let declared = declare(&*live.session, topology).await;
            declared.map_err(|error| live.judge(error))
        };
        timeout_at(declare_by, declaring).await.unwrap_or_else(|_| Err(overdue()))
    }

    /// Closes all connections, at most until the deadline.
    pub(crate) async fn close(&self, deadline: Instant) {
        tokio::join!(
            self.publishing.close(deadline),
            self.consuming.close(deadline),
            self.own_connections.close(deadline),
        );
    }
}

/// Says how long a broker was tried that could not be reached, and what to look at.
fn unreached(error: Error, tried: Duration) -> Error {
    if !error.is_transient() {
        return error;
    }
    error
        .and(&format!("tried for {tried:.1?}"))
        .or_remedy("does the broker run, and are host and port its own? `BrokerOptions::reach_within` says how long to try")
}

fn overdue() -> Error {
    Error::new(ErrorKind::Timeout, "declare").because("the deadline passed")
}
