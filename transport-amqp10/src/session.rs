//! One incarnation of a connection to the broker, and what is opened on it.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use enoki_core::{
    Error, Peer, Result, ShortStr,
    transport::{Change, Found, Receiver, Sender, Session, spawn},
};
use fe2o3_amqp::session::SessionHandle;
use futures_util::future::{BoxFuture, join_all};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    connection::{Connection, Ended, REPLY_TIMEOUT, end},
    connections::Pool,
    error::{self, Cause},
    management::{artemis::Artemis, rabbitmq::Management},
    options::Options,
    peer,
    receiver::Amqp10Receiver,
    sender::Amqp10Sender,
    session_pool::Channel,
    topology,
};

/// Opens a session, within the deadline.
pub(crate) async fn open(options: Arc<Options>, deadline: Instant) -> Result<Amqp10Session> {
    let pool = Pool::open(options.clone(), deadline).await?;
    let peer = peer::peer(pool.first().line().greeting(), options.subject())?;
    Ok(Amqp10Session { options, peer, pool })
}

/// One incarnation of a connection to the broker, which may be several: see `connections.rs`.
pub(crate) struct Amqp10Session {
    options: Arc<Options>,
    peer: Peer,
    pool: Pool,
}

impl Amqp10Session {
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What is known of the session's end, as it changes.
    pub(crate) fn health(&self) -> watch::Receiver<Option<Ended>> {
        self.pool.health().subscribe()
    }

    /// A name for a link that no other link of this process has.
    pub(crate) fn link_name(&self, kind: &str) -> String {
        format!("enoki-{kind}-{}", LINKS.fetch_add(1, Ordering::Relaxed))
    }

    /// Attaches a link. Where the caller gives up, a task waits for the broker all the same, and then
    /// lets go of the link and its session: see `session_pool.rs`.
    pub(crate) async fn attach<L, E>(
        &self,
        operation: &'static str,
        subject: &str,
        mut channel: Channel,
        attach: impl for<'s> FnOnce(&'s mut SessionHandle<()>) -> BoxFuture<'s, Result<L, E>>
        + Send
        + 'static,
    ) -> Result<(L, Channel)>
    where
        L: Send + 'static,
        E: Into<Cause> + 'static,
    {
        let attaching = timeout(REPLY_TIMEOUT, async {
            let link = attach(channel.handle()?).await.map_err(Into::into)?;
            Ok::<_, Cause>((link, channel))
        });
        match spawn(operation, attaching, drop).await {
            Ok(Some(Ok(attached))) => {
                attached.map_err(|cause| self.failed(operation, subject, &cause))
            }
            Ok(Some(Err(_))) => Err(error::timed_out(operation, subject)),
            Ok(None) | Err(_) => Err(self.failed(operation, subject, &Cause::Ended)),
        }
    }

    /// Waits for an answer of the broker, and not longer than [`REPLY_TIMEOUT`].
    pub(crate) async fn answered<T, E: Into<Cause>>(
        &self,
        operation: &'static str,
        subject: &str,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        match timeout(REPLY_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(operation, subject, &error.into())),
            Err(_) => Err(error::timed_out(operation, subject)),
        }
    }

    /// The error behind fe2o3-amqp's, which after the end of a connection says only that it is
    /// closed.
    pub(crate) fn failed(&self, operation: &'static str, subject: &str, cause: &Cause) -> Error {
        self.pool.failed(operation, subject, cause)
    }

    /// Where to make changes to this queue, or to what is no queue.
    pub(crate) fn at(&self, queue: Option<&ShortStr>) -> At<'_> {
        At { session: self, connection: self.pool.connection_for(queue) }
    }
}

/// A session, and the one of its connections that a change of the topology is made on: exclusive queues
/// belong to the connection that declared them.
pub(crate) struct At<'s> {
    session: &'s Amqp10Session,
    connection: Arc<Connection>,
}

impl Deref for At<'_> {
    type Target = Amqp10Session;

    fn deref(&self) -> &Amqp10Session {
        self.session
    }
}

impl<'s> At<'s> {
    pub(crate) fn new(session: &'s Amqp10Session, connection: Arc<Connection>) -> Self {
        Self { session, connection }
    }

    /// An AMQP session for links to what manages the broker.
    pub(crate) async fn channel(&self, operation: &'static str, subject: &str) -> Result<Channel> {
        let begun = self.connection.channel_for_node().await;
        begun.map_err(|unbegun| self.pool.unbegun(operation, subject, unbegun))
    }

    /// Runs one request on the links to RabbitMQ's management node.
    pub(crate) async fn management<T>(
        &self,
        operation: &'static str,
        subject: &str,
        request: impl AsyncFnOnce(&mut Management) -> Result<T>,
    ) -> Result<T> {
        self.lend(&self.connection.management, operation, subject, request).await
    }

    /// Runs one request on the links to Artemis's management address.
    pub(crate) async fn artemis<T>(
        &self,
        operation: &'static str,
        subject: &str,
        request: impl AsyncFnOnce(&mut Artemis) -> Result<T>,
    ) -> Result<T> {
        self.lend(&self.connection.artemis, operation, subject, request).await
    }

    /// Runs one request on links that nobody else uses meanwhile.
    async fn lend<N: Node, T>(
        &self,
        kept: &Mutex<Option<N>>,
        operation: &'static str,
        subject: &str,
        request: impl AsyncFnOnce(&mut N) -> Result<T>,
    ) -> Result<T> {
        // Those before it have this long, too, each for its own.
        let mut kept = kept.lock().await;
        let whole = async {
            // Taken out: after a request that was given up its answer may yet come.
            let mut node = match kept.take() {
                Some(node) => node,
                None => N::open(self, operation, subject).await?,
            };
            let answer = request(&mut node).await;
            if node.is_sound() {
                *kept = Some(node);
            }
            answer
        };
        timeout(REPLY_TIMEOUT, whole)
            .await
            .unwrap_or_else(|_| Err(error::timed_out(operation, subject)))
    }
}

/// Links to what manages a broker.
pub(crate) trait Node: Sized {
    async fn open(at: &At<'_>, operation: &'static str, subject: &str) -> Result<Self>;

    /// Whether another request may follow.
    fn is_sound(&self) -> bool;
}

/// The error of an operation, told by the end of the connection where that is why.
pub(crate) fn failed(
    operation: &'static str,
    subject: &str,
    cause: &Cause,
    ended: Option<&Ended>,
) -> Error {
    match (cause, ended) {
        (Cause::Ended | Cause::Lost(_) | Cause::Local(_), Some(ended)) => {
            ended.error(operation, subject.to_owned())
        }
        _ => error::failed(operation, subject, cause),
    }
}

impl fmt::Debug for Amqp10Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp10Session")
            .field("broker", &self.options.subject())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Session for Amqp10Session {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    async fn apply(&self, change: &Change) -> Result<Found> {
        topology::apply(self, change).await
    }

    async fn sender(&self, window: usize) -> Result<Box<dyn Sender>> {
        Ok(Box::new(Amqp10Sender::open(self, window).await?))
    }

    async fn receiver(&self, queue: &ShortStr, prefetch: u16) -> Result<Box<dyn Receiver>> {
        Ok(Box::new(Amqp10Receiver::open(self, queue, prefetch).await?))
    }

    fn blocked(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.pool.alarm().reason()
    }

    async fn ended(&self) -> Error {
        let mut health = self.health();
        let ended = match health.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            Err(_) => None,
        };
        ended
            .unwrap_or_else(|| Ended::Failed(Cause::Lost("the connection ended".to_owned())))
            .error("keep the connection to", self.options.subject())
    }

    async fn close(&self, deadline: Instant) {
        end(self.pool.health(), Ended::Closed(deadline));
        let connections = self.pool.connections();
        let closing = connections.iter().map(|connection| connection.line().ended());
        let _ = timeout_at(deadline, join_all(closing)).await;
        connections.iter().for_each(|connection| connection.line().cut());
    }
}

/// Makes names of links differ.
static LINKS: AtomicU64 = AtomicU64::new(1);
