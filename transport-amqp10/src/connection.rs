//! One connection to the broker: opened, lent out in AMQP sessions, and closed.
//!
//! A session of the interface has one of them, and more when its links need more AMQP sessions than the
//! broker allows on one connection: see `connections.rs`.

mod refusal;

use std::{fmt, sync::Arc, time::Duration};

use enoki_amqp::Options;
use enoki_core::{
    Error, ErrorKind, Result,
    transport::{deadline, later, spawn},
};
use fe2o3_amqp::{
    connection::ConnectionHandle,
    session::{BeginError, SessionHandle},
};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    error::{self, Cause},
    io::{
        open,
        socket_state::{CutOnDrop, SocketState},
    },
    limits::{LAST_CHANNEL, REPLY_TIMEOUT},
    management_link::ManagementLink,
    session_pool::{LinkSession, SessionPool},
};

/// Why the connections of a session have ended, once they have. All of them share one, since they end
/// together.
pub(crate) type EndState = watch::Sender<Option<Ended>>;

/// One connection to the broker.
///
/// The permits of `free_sessions` and the AMQP sessions that have one are together as many as the broker
/// allows, less one that is set aside for the management link, and less those whose channel was lost with an
/// answer.
pub(crate) struct Connection {
    socket: Arc<SocketState>,
    /// To the task that owns the connection.
    begins: mpsc::Sender<BeginRequest>,
    /// AMQP sessions that no link uses. They keep their permits.
    pool: Arc<SessionPool>,
    /// How many more AMQP sessions may begin, besides that of the management link.
    free_sessions: Arc<Semaphore>,
    /// The links for changes of the topology, between two changes. A change takes them out and puts them
    /// back.
    pub(crate) management: Mutex<Option<ManagementLink>>,
}

/// A request for an AMQP session. The answer is `None` when the broker does not answer.
type BeginRequest = oneshot::Sender<Option<Result<SessionHandle<()>, BeginError>>>;

impl Connection {
    /// Opens a connection, within the deadline. When it ends, so does the session, and the other way round.
    pub(crate) async fn open(
        options: &Options,
        socket: SocketState,
        end_state: &Arc<EndState>,
        deadline: Instant,
    ) -> Result<Self> {
        let socket = Arc::new(socket);
        // If the deadline passes, or the caller drops this future, the socket is closed.
        let cut = CutOnDrop::new(&socket);
        let began = Instant::now();
        let client = match timeout_at(deadline, open::open(options, &socket)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                return Err(refusal::refused(options, error, &socket, began.elapsed()));
            }
            Err(_) => return Err(refusal::silent(options, socket.stage())),
        };
        cut.keep();
        let (begins, inbox) = mpsc::channel(1);
        // Channels are numbered from 0, so that this is one less than there are: the one for the management
        // link.
        let free_sessions = usize::from(socket.last_channel().min(LAST_CHANNEL));
        let free_sessions = Arc::new(Semaphore::new(free_sessions));
        let running = run(client, inbox, socket.clone(), end_state.clone(), free_sessions.clone());
        let lost = (socket.clone(), end_state.clone());
        spawn("keep a connection", running, move |panicked| {
            let (socket, end_state) = lost;
            set_ended(&end_state, Ended::Failed(Cause::Lost(panicked.to_string())));
            socket.cut();
        });
        Ok(Self {
            socket,
            begins,
            pool: Arc::default(),
            free_sessions,
            management: Mutex::new(None),
        })
    }

    pub(crate) fn socket(&self) -> &Arc<SocketState> {
        &self.socket
    }

    /// The permit for one AMQP session, to be used later; `None` when all are given out.
    pub(crate) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.free_sessions.clone().try_acquire_owned().ok()
    }

    /// An AMQP session for one link; `None` when the connection is full.
    pub(crate) async fn session(&self) -> Result<Option<LinkSession>, BeginFailure> {
        if let Some(session) = self.pool.take(&self.socket) {
            return Ok(Some(session));
        }
        match self.permit() {
            Some(permit) => self.session_with(permit).await,
            None => Ok(None),
        }
    }

    /// An AMQP session for one link, by a permit that the caller has.
    pub(crate) async fn session_with(
        &self,
        permit: OwnedSemaphorePermit,
    ) -> Result<Option<LinkSession>, BeginFailure> {
        match self.begin().await {
            Ok(handle) => Ok(Some(self.pool.lend_new(handle, &self.socket, Some(permit)))),
            // The broker allows fewer than it said.
            Err(BeginFailure::Failed(Cause::Limit)) => {
                permit.forget();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The AMQP session of the management link. One is set aside for it, so it takes no permit.
    pub(crate) async fn management_session(&self) -> Result<LinkSession, BeginFailure> {
        Ok(self.pool.lend_new(self.begin().await?, &self.socket, None))
    }

    async fn begin(&self) -> Result<SessionHandle<()>, BeginFailure> {
        let (reply, answer) = oneshot::channel();
        let lost = || BeginFailure::Failed(Cause::Lost("the connection ended".to_owned()));
        self.begins.send(reply).await.map_err(|_| lost())?;
        match answer.await {
            Ok(Some(begun)) => begun.map_err(|error| BeginFailure::Failed(error.into())),
            Ok(None) => Err(BeginFailure::Unanswered),
            Err(_) => Err(lost()),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("socket", &self.socket)
            .field("free_sessions", &self.free_sessions.available_permits())
            .finish_non_exhaustive()
    }
}

/// Why an AMQP session did not begin.
#[derive(Debug)]
pub(crate) enum BeginFailure {
    /// The broker did not answer in time. The connection lives.
    Unanswered,
    /// The broker refused it, or the connection ended.
    Failed(Cause),
}

/// Why the connections of a session have ended.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    /// This side closes them. A connection may wait for the broker's answer until then.
    Closed(Instant),
    /// One of them failed.
    Failed(Cause),
}

impl Ended {
    /// As an error of this operation.
    pub(crate) fn error(&self, operation: &'static str, subject: String) -> Error {
        match self {
            Self::Closed(_) => error::about(Error::new(ErrorKind::Closed, operation), subject)
                .because("the session was closed on this side"),
            Self::Failed(Cause::Ended) => {
                error::about(Error::new(ErrorKind::Connection, operation), subject)
                    .because("the broker closed the connection")
            }
            Self::Failed(cause) => error::failed(operation, subject, cause),
        }
    }

    /// Until when a connection that lives may take to close.
    fn deadline(&self) -> Instant {
        match self {
            Self::Closed(deadline) => *deadline,
            Self::Failed(_) => deadline(CLOSE_TIMEOUT),
        }
    }
}

/// The error of an operation. Where the connection ended, its end is the reason: fe2o3-amqp then says only
/// that the connection is closed.
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

/// Notes why the session has ended. The first reason stays.
pub(crate) fn set_ended(end_state: &EndState, reason: Ended) {
    end_state.send_if_modified(|ended| {
        let first = ended.is_none();
        ended.get_or_insert(reason);
        first
    });
}

/// Owns a connection until it has ended: begins AMQP sessions on it, and closes it when the session of the
/// interface ends or is dropped.
async fn run(
    mut client: ConnectionHandle<()>,
    mut inbox: mpsc::Receiver<BeginRequest>,
    socket: Arc<SocketState>,
    end_state: Arc<EndState>,
    free_sessions: Arc<Semaphore>,
) {
    let mut ended = end_state.subscribe();
    let deadline = loop {
        let reply = tokio::select! {
            biased;
            closed = client.on_close() => {
                let cause = match socket.fault() {
                    Some(fault) => Cause::Lost(fault.to_owned()),
                    None => closed.map_or_else(Cause::from, |()| Cause::Ended),
                };
                set_ended(&end_state, Ended::Failed(cause));
                socket.cut();
                return;
            }
            deadline = wait_ended(&mut ended) => break deadline,
            reply = inbox.recv() => reply,
        };
        // No caller is left to wait for a session that is dropped without being closed.
        let Some(reply) = reply else { break deadline(CLOSE_TIMEOUT) };
        if reply.is_closed() {
            continue;
        }
        // Closing does not wait for an answer that may never come.
        tokio::select! {
            biased;
            deadline = wait_ended(&mut ended) => break deadline,
            begun = begin(&mut client, &socket, &free_sessions) => drop(reply.send(begun)),
        }
    };
    set_ended(&end_state, Ended::Closed(deadline));
    let _ = timeout_at(deadline, client.close()).await;
    socket.cut();
}

/// Waits until the session has ended, and returns until when this connection may take to close.
async fn wait_ended(ended: &mut watch::Receiver<Option<Ended>>) -> Instant {
    match ended.wait_for(Option::is_some).await {
        Ok(ended) => ended.as_ref().map_or_else(Instant::now, Ended::deadline),
        Err(_) => deadline(CLOSE_TIMEOUT),
    }
}

/// Begins an AMQP session; `None` when the broker does not answer.
///
/// After a session ended, RabbitMQ may lose a begin on its channel (`session_pool.rs` says how). So the
/// channel rests first, and if there is no answer all the same, the next try gets another channel. On a
/// channel that was not used before, the answer is only slow, and one try waits for it.
async fn begin(
    client: &mut ConnectionHandle<()>,
    socket: &SocketState,
    free_sessions: &Semaphore,
) -> Option<Result<SessionHandle<()>, BeginError>> {
    let (tries, patience) = match socket.last_session_end() {
        Some(ended) if ended.elapsed() < RECENT => {
            sleep_until(later(ended, REST)).await;
            (BEGIN_TRIES, REPLY_TIMEOUT / BEGIN_TRIES)
        }
        _ => (1, REPLY_TIMEOUT),
    };
    for _ in 0..tries {
        if let Ok(begun) = timeout(patience, fe2o3_amqp::Session::begin(client)).await {
            return Some(begun);
        }
        // fe2o3-amqp keeps the channel of a begin that was not answered, so there is one less.
        free_sessions.forget_permits(1);
    }
    None
}

/// How long a channel rests between two sessions.
const REST: Duration = Duration::from_millis(50);

/// For how long after the end of a session an answer that does not come may be lost, and not slow.
const RECENT: Duration = Duration::from_secs(5);

/// How often the broker is asked for an AMQP session where an answer may be lost.
const BEGIN_TRIES: u32 = 4;

/// How long a connection may take to close when no caller chose a deadline.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
