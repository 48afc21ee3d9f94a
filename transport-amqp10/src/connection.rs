//! One connection to the broker: opened, lent out in AMQP sessions, and closed.
//!
//! A session of the interface has one of them, and more when its links need more AMQP sessions than
//! the broker lets one connection have: see `connections.rs`.

mod refusal;

use std::{fmt, sync::Arc, time::Duration};

use enoki_core::{
    Error, ErrorKind, Result,
    transport::{deadline, later, spawn},
};
use fe2o3_amqp::{
    Connection as Client,
    connection::{ConnectionHandle, OpenError},
    session::{BeginError, SessionHandle},
    types::{
        definitions::Fields,
        primitives::{Symbol, Value},
    },
};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    error::{self, Cause},
    io::stream::{self, FRAME_MAX, Line},
    management::{artemis::Artemis, rabbitmq::Management},
    options::Options,
    proto::inbound::OVERHEAD,
    session_pool::{Channel, Idle},
};

/// Why the connections of a session are over, once they are: they end together.
pub(crate) type Health = watch::Sender<Option<Ended>>;

/// One connection to the broker.
pub(crate) struct Connection {
    line: Arc<Line>,
    begins: mpsc::Sender<Begin>,
    /// AMQP sessions between two links.
    idle: Arc<Idle>,
    /// How many more AMQP sessions there may be, besides the one of the links for changes of the
    /// topology.
    room: Arc<Semaphore>,
    /// The links for changes of the topology, between two of them.
    pub(crate) management: Mutex<Option<Management>>,
    pub(crate) artemis: Mutex<Option<Artemis>>,
}

/// A wish for an AMQP session; `None` is sent when the broker does not answer.
type Begin = oneshot::Sender<Option<Result<SessionHandle<()>, BeginError>>>;

impl Connection {
    /// Opens one, within the deadline. It ends with the health, and the health with it.
    pub(crate) async fn open(
        options: &Options,
        line: Line,
        health: &Arc<Health>,
        deadline: Instant,
    ) -> Result<Self> {
        let line = Arc::new(line);
        // Whether the deadline passes or the caller goes away: the line ends with this call, unless
        // there is a connection.
        let cut = CutOnDrop(Some(line.clone()));
        let began = Instant::now();
        let client = match timeout_at(deadline, connect(options, &line)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(refusal::refused(options, error, &line, began.elapsed())),
            Err(_) => return Err(refusal::silent(options, line.stage())),
        };
        cut.keep();
        let (begins, inbox) = mpsc::channel(1);
        // One of the channels, which begin with 0, is for the changes of the topology.
        let room = usize::from(line.last_channel().min(LAST_CHANNEL));
        let room = Arc::new(Semaphore::new(room));
        let keeping = keep(client, inbox, line.clone(), health.clone(), room.clone());
        let lost = (line.clone(), health.clone());
        spawn("keep a connection", keeping, move |panicked| {
            let (line, health) = lost;
            end(&health, Ended::Failed(Cause::Lost(panicked.to_string())));
            line.cut();
        });
        Ok(Self {
            line,
            begins,
            idle: Arc::default(),
            room,
            management: Mutex::new(None),
            artemis: Mutex::new(None),
        })
    }

    /// The socket.
    pub(crate) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Room for one link, to be used later.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }

    /// An AMQP session for one link; `None` where there can be no more of them.
    pub(crate) async fn channel(&self) -> Result<Option<Channel>, Unbegun> {
        if let Some(channel) = self.idle.take(&self.line) {
            return Ok(Some(channel));
        }
        match self.place() {
            Some(place) => self.channel_at(place).await,
            None => Ok(None),
        }
    }

    /// The same, where room was found before.
    pub(crate) async fn channel_at(
        &self,
        place: OwnedSemaphorePermit,
    ) -> Result<Option<Channel>, Unbegun> {
        match self.begin().await {
            Ok(handle) => Ok(Some(self.idle.channel(handle, &self.line, Some(place)))),
            // The broker lets fewer begin than it said.
            Err(Unbegun::Failed(Cause::Limit)) => {
                place.forget();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The AMQP session of the links for changes of the topology. There is always room for it.
    pub(crate) async fn channel_for_node(&self) -> Result<Channel, Unbegun> {
        Ok(self.idle.channel(self.begin().await?, &self.line, None))
    }

    async fn begin(&self) -> Result<SessionHandle<()>, Unbegun> {
        let (reply, answer) = oneshot::channel();
        let lost = || Unbegun::Failed(Cause::Lost("the connection ended".to_owned()));
        self.begins.send(reply).await.map_err(|_| lost())?;
        match answer.await {
            Ok(Some(begun)) => begun.map_err(|error| Unbegun::Failed(error.into())),
            Ok(None) => Err(Unbegun::Unanswered),
            Err(_) => Err(lost()),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("line", &self.line)
            .field("room", &self.room.available_permits())
            .finish_non_exhaustive()
    }
}

/// Why there is no AMQP session.
#[derive(Debug)]
pub(crate) enum Unbegun {
    /// The broker did not answer in time. The connection lives.
    Unanswered,
    /// It was refused, or the connection ended.
    Failed(Cause),
}

async fn connect(options: &Options, line: &Arc<Line>) -> Result<ConnectionHandle<()>, OpenError> {
    let wire = stream::open(options, line).await?;
    let hostname = options.hostname();
    let mut properties = Fields::new();
    for (name, value) in [("product", "enoki"), ("version", env!("CARGO_PKG_VERSION"))] {
        properties.insert(Symbol::from(name), Value::String(value.to_owned()));
    }
    Client::builder()
        .container_id(options.container_id())
        .hostname(Some(hostname.as_str()))
        .sasl_profile(options.login())
        .max_frame_size((FRAME_MAX + OVERHEAD) as u32)
        .channel_max(LAST_CHANNEL)
        .idle_time_out(options.idle_timeout())
        .properties(properties)
        .open_with_stream(wire)
        .await
}

/// Cuts a line when the future that wanted it is over without a connection.
struct CutOnDrop(Option<Arc<Line>>);

impl CutOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(line) = &self.0 {
            line.cut();
        }
    }
}

/// Why a session's connections are over.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    /// This side closes them, politely until then.
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
            Self::Failed(_) => deadline(LAST_WORDS),
        }
    }
}

/// Owns a connection until it is over.
async fn keep(
    mut client: ConnectionHandle<()>,
    mut inbox: mpsc::Receiver<Begin>,
    line: Arc<Line>,
    health: Arc<Health>,
    room: Arc<Semaphore>,
) {
    let mut over = health.subscribe();
    let deadline = loop {
        let reply = tokio::select! {
            biased;
            ended = client.on_close() => {
                let cause = match line.fault() {
                    Some(fault) => Cause::Lost(fault.to_owned()),
                    None => ended.map_or_else(Cause::from, |()| Cause::Ended),
                };
                end(&health, Ended::Failed(cause));
                line.cut();
                return;
            }
            deadline = is_over(&mut over) => break deadline,
            reply = inbox.recv() => reply,
        };
        // No caller is left to wait for a session that is dropped without being closed.
        let Some(reply) = reply else { break deadline(LAST_WORDS) };
        if reply.is_closed() {
            continue;
        }
        // Closing does not wait for an answer that may never come.
        tokio::select! {
            biased;
            deadline = is_over(&mut over) => break deadline,
            begun = begin(&mut client, &line, &room) => drop(reply.send(begun)),
        }
    };
    end(&health, Ended::Closed(deadline));
    let _ = timeout_at(deadline, client.close()).await;
    line.cut();
}

/// Waits until the session is over, and says until when this connection may take to close.
async fn is_over(over: &mut watch::Receiver<Option<Ended>>) -> Instant {
    match over.wait_for(Option::is_some).await {
        Ok(ended) => ended.as_ref().map_or_else(Instant::now, Ended::deadline),
        Err(_) => deadline(LAST_WORDS),
    }
}

/// Begins an AMQP session; `None` when the broker does not answer. See `session_pool.rs` for why the
/// channel of a session that ended a moment ago rests a while, and why there may all the same be no
/// answer: the next try gets another channel. On a channel that is new the answer is only slow.
async fn begin(
    client: &mut ConnectionHandle<()>,
    line: &Line,
    room: &Semaphore,
) -> Option<Result<SessionHandle<()>, BeginError>> {
    let (tries, patience) = match line.links.last_end() {
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
        // fe2o3-amqp gives its channel to no other session.
        room.forget_permits(1);
    }
    None
}

/// The first reason is the reason.
pub(crate) fn end(health: &Health, reason: Ended) {
    health.send_if_modified(|ended| {
        let first = ended.is_none();
        ended.get_or_insert(reason);
        first
    });
}

/// How long the broker may take to answer a request.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// The channels that this side allows, at least as many as RabbitMQ does.
const LAST_CHANNEL: u16 = 255;

/// How long a channel rests between two sessions, and until when it may be the reason for an answer
/// that does not come.
const REST: Duration = Duration::from_millis(50);
const RECENT: Duration = Duration::from_secs(5);

/// How often the broker is asked for an AMQP session, where an answer may be lost.
const BEGIN_TRIES: u32 = 4;

/// How long the end of a connection may take that no caller waits for.
const LAST_WORDS: Duration = Duration::from_secs(1);
