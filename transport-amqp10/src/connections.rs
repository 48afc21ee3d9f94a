//! The connections of one session of the interface: one, and more when the AMQP sessions that the broker
//! allows on one are all in use. They are one incarnation: when one ends, so do the others.
//!
//! docs/design/17-amqp10.md says why each link has an AMQP session of its own, and what that costs.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use enoki_amqp::Options;
use enoki_core::{
    Error, ErrorKind, Peer, Result, ShortStr,
    transport::{deadline, spawn},
};
use fe2o3_amqp::session::SessionHandle;
use futures_util::future::BoxFuture;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, timeout},
};

use crate::{
    connection::{self, BeginFailure, Connection, EndState, Ended},
    error::{self, Cause},
    io::{blocked::BlockedConnections, socket_state::SocketState},
    limits::REPLY_TIMEOUT,
    peer,
    session_pool::LinkSession,
};

/// The connections of a session.
///
/// `first` is `connections[0]`; connections are added and never removed, since all of them end together. An
/// exclusive queue is in `exclusive` from its declaration until it is deleted through this session.
#[derive(Debug)]
pub(crate) struct Connections {
    options: Arc<Options>,
    peer: Peer,
    end_state: Arc<EndState>,
    blocked: Arc<BlockedConnections>,
    first: Arc<Connection>,
    /// In the order in which they were opened.
    connections: Mutex<Vec<Arc<Connection>>>,
    /// Held by the call that adds a connection: when the last could not be added, and why.
    adding: tokio::sync::Mutex<Option<(Instant, Error)>>,
    /// Exclusive queues, each with the connection that declared it and alone may use it.
    exclusive: Mutex<HashMap<ShortStr, ExclusiveQueue>>,
}

/// The connection that an exclusive queue belongs to.
#[derive(Debug)]
pub(crate) struct ExclusiveQueue {
    pub(crate) connection: Arc<Connection>,
    /// Set aside for the session of its consumer.
    permit: Option<OwnedSemaphorePermit>,
}

impl Connections {
    /// Opens the first, within the deadline.
    pub(crate) async fn open(options: Arc<Options>, deadline: Instant) -> Result<Self> {
        let end_state = Arc::new(EndState::new(None));
        let blocked = Arc::<BlockedConnections>::default();
        let socket = SocketState::new(&blocked);
        let first = Arc::new(Connection::open(&options, socket, &end_state, deadline).await?);
        let peer = peer::peer(first.socket().peer_properties(), options.subject())?;
        let connections = Mutex::new(vec![first.clone()]);
        Ok(Self {
            options,
            peer,
            end_state,
            blocked,
            first,
            connections,
            adding: tokio::sync::Mutex::default(),
            exclusive: Mutex::default(),
        })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// The broker behind all of them.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Why they have ended, once they have.
    pub(crate) fn end_state(&self) -> &EndState {
        &self.end_state
    }

    /// Why the broker takes no messages, as it changes.
    pub(crate) fn blocked(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.blocked.reason()
    }

    /// All of them, in the order in which they were opened.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        lock(&self.connections).clone()
    }

    /// A name for a link that no other link of this process has.
    pub(crate) fn link_name(&self, kind: &str) -> String {
        format!("enoki-{kind}-{}", LINKS.fetch_add(1, Ordering::Relaxed))
    }

    /// Attaches a link. If the caller drops this future, a task still waits for the broker, and then drops
    /// the link and its session: a session must not end while a link is attaching (`session_pool.rs`).
    pub(crate) async fn attach<L, E>(
        &self,
        operation: &'static str,
        subject: &str,
        mut session: LinkSession,
        attach: impl for<'s> FnOnce(&'s mut SessionHandle<()>) -> BoxFuture<'s, Result<L, E>>
        + Send
        + 'static,
    ) -> Result<(L, LinkSession)>
    where
        L: Send + 'static,
        E: Into<Cause> + 'static,
    {
        let attaching = timeout(REPLY_TIMEOUT, async {
            let link = attach(session.handle()?).await.map_err(Into::into)?;
            Ok::<_, Cause>((link, session))
        });
        match spawn(operation, attaching, drop).await {
            Ok(Some(Ok(attached))) => {
                attached.map_err(|cause| self.failed(operation, subject, &cause))
            }
            Ok(Some(Err(_))) => Err(error::timed_out(operation, subject)),
            Ok(None) | Err(_) => Err(self.failed(operation, subject, &Cause::Ended)),
        }
    }

    /// Waits for an answer of the broker, at most [`REPLY_TIMEOUT`].
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

    /// An AMQP session for one link, on the first connection that has room.
    pub(crate) async fn session(
        &self,
        operation: &'static str,
        subject: &str,
    ) -> Result<LinkSession> {
        self.find(operation, subject, async |connection| connection.session().await).await
    }

    /// An AMQP session for a link from this queue, on the connection that may consume from it.
    pub(crate) async fn session_from(
        &self,
        queue: &ShortStr,
        operation: &'static str,
        subject: &str,
    ) -> Result<LinkSession> {
        let Some(ExclusiveQueue { connection, permit }) = self.declared(queue) else {
            return self.session(operation, subject).await;
        };
        let session = match permit {
            Some(permit) => connection.session_with(permit).await,
            None => connection.session().await,
        };
        match session {
            Ok(Some(session)) => Ok(session),
            Ok(None) => Err(Error::new(ErrorKind::Refused, operation)
                .on(subject.to_owned())
                .because(
                    "only the connection that declared it may, and all AMQP sessions of that \
                     connection are in use",
                )
                .remedy(RAISE_SESSIONS)
                .transient(true)),
            Err(failure) => Err(self.not_begun(operation, subject, failure)),
        }
    }

    /// Where to declare an exclusive queue: where it is declared already, or where there is room for its
    /// consumer.
    pub(crate) async fn place_for(
        &self,
        queue: &ShortStr,
        operation: &'static str,
        subject: &str,
    ) -> Result<ExclusiveQueue> {
        if let Some(ExclusiveQueue { connection, permit }) = self.declared(queue) {
            let permit = permit.or_else(|| connection.permit());
            return Ok(ExclusiveQueue { connection, permit });
        }
        let reserve = async |connection: &Arc<Connection>| {
            let permit = connection.permit();
            Ok(permit.map(|permit| ExclusiveQueue {
                connection: connection.clone(),
                permit: Some(permit),
            }))
        };
        self.find(operation, subject, reserve).await
    }

    /// Notes where an exclusive queue was declared.
    pub(crate) fn set_declared(&self, queue: ShortStr, place: ExclusiveQueue) {
        lock(&self.exclusive).insert(queue, place);
    }

    /// Notes that a queue was deleted.
    pub(crate) fn set_deleted(&self, queue: &ShortStr) {
        lock(&self.exclusive).remove(queue);
    }

    /// The connection that may change this queue: for an exclusive queue the one that declared it, else the
    /// first.
    pub(crate) fn connection_for(&self, queue: Option<&ShortStr>) -> Arc<Connection> {
        let exclusive = lock(&self.exclusive);
        let declared = queue.and_then(|queue| exclusive.get(queue));
        declared.map_or(&self.first, |declared| &declared.connection).clone()
    }

    /// Where an exclusive queue was declared; takes the permit that was set aside for its consumer.
    fn declared(&self, queue: &ShortStr) -> Option<ExclusiveQueue> {
        let mut exclusive = lock(&self.exclusive);
        let declared = exclusive.get_mut(queue)?;
        Some(ExclusiveQueue {
            connection: declared.connection.clone(),
            permit: declared.permit.take(),
        })
    }

    /// Takes something from the first connection that has it, and opens one more if none has.
    async fn find<T>(
        &self,
        operation: &'static str,
        subject: &str,
        take: impl AsyncFn(&Arc<Connection>) -> Result<Option<T>, BeginFailure>,
    ) -> Result<T> {
        let since = Instant::now();
        loop {
            let connections = self.all();
            for connection in &connections {
                match take(connection).await {
                    Ok(Some(taken)) => return Ok(taken),
                    Ok(None) => {}
                    Err(failure) => return Err(self.not_begun(operation, subject, failure)),
                }
            }
            let mut failed = self.adding.lock().await;
            // Another call may have added one, or found out that it cannot be done.
            if lock(&self.connections).len() > connections.len() {
                continue;
            }
            if let Some((at, error)) = &*failed
                && *at >= since
            {
                return Err(full(operation, subject, connections.len(), error));
            }
            if let Some(ended) = &*self.end_state.borrow() {
                return Err(ended.error(operation, subject.to_owned()));
            }
            let deadline = deadline(REPLY_TIMEOUT);
            let socket = SocketState::new(&self.blocked);
            match Connection::open(&self.options, socket, &self.end_state, deadline).await {
                Ok(added) => {
                    lock(&self.connections).push(Arc::new(added));
                }
                Err(error) => {
                    let told = full(operation, subject, connections.len(), &error);
                    *failed = Some((Instant::now(), error));
                    return Err(told);
                }
            }
        }
    }

    /// The error of an operation whose AMQP session did not begin.
    pub(crate) fn not_begun(
        &self,
        operation: &'static str,
        subject: &str,
        failure: BeginFailure,
    ) -> Error {
        match failure {
            BeginFailure::Unanswered => error::timed_out(operation, subject),
            BeginFailure::Failed(cause) => self.failed(operation, subject, &cause),
        }
    }

    /// The error of an operation, with the reason for the end of the connection where it has ended.
    pub(crate) fn failed(&self, operation: &'static str, subject: &str, cause: &Cause) -> Error {
        let ended = self.end_state.borrow().clone();
        // This side knows it before fe2o3-amqp has ended.
        let fault = || {
            let all = self.all();
            let fault = all.iter().find_map(|connection| connection.socket().fault())?;
            Some(Ended::Failed(Cause::Lost(fault.to_owned())))
        };
        connection::failed(operation, subject, cause, ended.or_else(fault).as_ref())
    }
}

/// The error where all connections are full and one more could not be opened.
fn full(operation: &'static str, subject: &str, connections: usize, error: &Error) -> Error {
    let kind = match error.is_transient() {
        true => error.kind(),
        false => ErrorKind::Refused,
    };
    let connections = match connections {
        1 => "the connection".to_owned(),
        more => format!("each of {more} connections"),
    };
    Error::new(kind, operation)
        .on(subject.to_owned())
        .because(format!(
            "all AMQP sessions that the broker allows on {connections} are in use, and another \
             connection could not be opened ({error})"
        ))
        .remedy(RAISE_SESSIONS)
        .transient(error.is_transient())
        .caused_by(error.clone())
}

/// A lock that is never held across an await, nor by code that could panic halfway through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const RAISE_SESSIONS: &str = "let the broker allow more connections, or more sessions on each; \
                              RabbitMQ calls that `session_max_per_connection`";

/// Makes the names of links differ.
static LINKS: AtomicU64 = AtomicU64::new(1);
