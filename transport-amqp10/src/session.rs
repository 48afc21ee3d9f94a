//! One connection to the broker.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use enoki_core::{
    Error, ErrorKind, Peer, Result, ShortStr,
    transport::{Change, Found, Receiver, Sender, Session, deadline, later, spawn},
};
use enoki_socket::tls_error;
use fe2o3_amqp::{
    Connection,
    connection::{ConnectionHandle, OpenError},
    session::{BeginError, SessionHandle},
    types::{
        definitions::Fields,
        primitives::{Symbol, Value},
    },
};
use futures_util::future::BoxFuture;
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    artemis::Artemis,
    channel::{Channel, Idle},
    error::{self, Cause},
    management::Management,
    options::Options,
    peer,
    receiver::Amqp10Receiver,
    sender::Amqp10Sender,
    topology,
    wire::{self, FRAME_MAX, Line, OVERHEAD, Stage},
};

/// Opens a session, within the deadline.
pub(crate) async fn open(options: Arc<Options>, deadline: Instant) -> Result<Amqp10Session> {
    let line = Arc::new(Line::default());
    // Whether the deadline passes or the caller goes away: the line ends with this call, unless
    // there is a session.
    let cut = CutOnDrop(Some(line.clone()));
    let began = Instant::now();
    let connection = match timeout_at(deadline, connect(&options, &line)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(refused(&options, error, &line, began.elapsed())),
        Err(_) => return Err(silent(&options, line.stage())),
    };
    let peer = peer::peer(line.greeting(), options.subject())?;
    cut.keep();
    let (commands, inbox) = mpsc::channel(1);
    let health = Arc::new(watch::Sender::new(None));
    let keeping = keep(connection, inbox, line.clone(), health.clone());
    let lost = (line.clone(), health.clone());
    spawn("keep a connection", keeping, move |panicked| {
        let (line, health) = lost;
        end(&health, Ended::Failed(Cause::Lost(panicked.to_string())));
        line.cut();
    });
    Ok(Amqp10Session {
        options,
        peer,
        line,
        health,
        commands,
        idle: Arc::default(),
        management: Mutex::new(None),
        artemis: Mutex::new(None),
    })
}

async fn connect(options: &Options, line: &Arc<Line>) -> Result<ConnectionHandle<()>, OpenError> {
    let wire = wire::open(options, line).await?;
    let hostname = options.hostname();
    let mut properties = Fields::new();
    for (name, value) in [("product", "enoki"), ("version", env!("CARGO_PKG_VERSION"))] {
        properties.insert(Symbol::from(name), Value::String(value.to_owned()));
    }
    Connection::builder()
        .container_id(options.container_id())
        .hostname(Some(hostname.as_str()))
        .sasl_profile(options.login())
        .max_frame_size((FRAME_MAX + OVERHEAD) as u32)
        .idle_time_out(options.idle_timeout())
        .properties(properties)
        .open_with_stream(wire)
        .await
}

/// Why a connection was not opened.
fn refused(options: &Options, error: OpenError, line: &Line, after: Duration) -> Error {
    let by_tls = match &error {
        OpenError::Io(io) => tls_error(io, CONNECT),
        _ => None,
    };
    if let Some(error) = by_tls.or_else(|| line.refusal()) {
        return error.on(options.subject());
    }
    let cause = Cause::from(error);
    if let Some(fault) = line.fault() {
        let unsupported = Error::new(ErrorKind::Unsupported, CONNECT)
            .on(options.subject())
            .because(fault.to_owned());
        return match line.stage() {
            Stage::Unreachable | Stage::Silent | Stage::Answered => {
                unsupported.remedy(options.other_port())
            }
            Stage::LoggedIn | Stage::Opened => unsupported,
        };
    }
    match (&cause, line.stage()) {
        // Brokers that speak only 0-9-1 answer with their own protocol's name, and hang up.
        (Cause::Foreign, _) => error::failed(CONNECT, options.subject(), &cause).remedy(
            "a broker without AMQP 1.0, such as RabbitMQ before 4.0, is reached by amqp091:",
        ),
        (Cause::Lost(_), Stage::Silent) => {
            error::failed(CONNECT, options.subject(), &cause).remedy(options.other_port())
        }
        // Refused logins, by brokers that just hang up.
        (Cause::Lost(_), Stage::Answered) => Error::new(ErrorKind::Denied, CONNECT)
            .on(options.subject())
            .because("the broker hung up during the login, which is how some refuse one")
            .remedy(match options.user() {
                Some(_) => "check user name, password and virtual host",
                None => BY_CERTIFICATE,
            }),
        // So does RabbitMQ, after three seconds of silence, whatever is wrong with the virtual host; a
        // connection that breaks does not wait.
        (Cause::Lost(_), Stage::LoggedIn) if after >= SILENT_REFUSAL => Error::new(
            ErrorKind::Denied,
            CONNECT,
        )
        .on(options.subject())
        .because("the broker accepted the login, and hung up on the virtual host without a word")
        .remedy(
            "check that it exists and is up, that this user may use it, and that no limit of \
                     connections is reached",
        ),
        _ => error::failed(CONNECT, options.subject(), &cause),
    }
}

const BY_CERTIFICATE: &str = "check that the broker knows whom the certificate names";

/// A connection that its deadline ended is one that could not be made; the next try may do better.
fn silent(options: &Options, stage: Stage) -> Error {
    Error::new(ErrorKind::Connection, CONNECT).on(options.subject()).because(match stage {
        Stage::Unreachable => "no connection within the deadline",
        Stage::Silent => "connected, but no AMQP greeting within the deadline",
        Stage::Answered | Stage::LoggedIn | Stage::Opened => {
            "the login was not over within the deadline"
        }
    })
}

/// Cuts a line when the future that wanted it is over without a session.
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

/// One connection to the broker.
pub(crate) struct Amqp10Session {
    options: Arc<Options>,
    peer: Peer,
    line: Arc<Line>,
    health: Arc<watch::Sender<Option<Ended>>>,
    commands: mpsc::Sender<Command>,
    /// AMQP sessions between two links.
    idle: Arc<Idle>,
    /// The links for changes of the topology, between two of them.
    management: Mutex<Option<Management>>,
    artemis: Mutex<Option<Artemis>>,
}

/// What the task that owns the connection is asked for.
#[derive(Debug)]
enum Command {
    Begin(oneshot::Sender<Result<SessionHandle<()>, BeginError>>),
    Close(Instant),
}

impl Amqp10Session {
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// What is known of the connection's end, as it changes.
    pub(crate) fn health(&self) -> watch::Receiver<Option<Ended>> {
        self.health.subscribe()
    }

    /// A name for a link that no other link of this process has.
    pub(crate) fn link_name(&self, kind: &str) -> String {
        format!("enoki-{kind}-{}", LINKS.fetch_add(1, Ordering::Relaxed))
    }

    /// An AMQP session for one link.
    pub(crate) async fn channel(&self, operation: &'static str, subject: &str) -> Result<Channel> {
        if let Some(channel) = self.idle.take() {
            return Ok(channel);
        }
        let (reply, answer) = oneshot::channel();
        let begun = async {
            if self.commands.send(Command::Begin(reply)).await.is_err() {
                return Err(Cause::Lost("the connection ended".to_owned()));
            }
            match answer.await {
                Ok(begun) => begun.map_err(Cause::from),
                Err(_) => Err(Cause::Lost("the connection ended".to_owned())),
            }
        };
        Ok(self.idle.channel(self.answered(operation, subject, begun).await?))
    }

    /// Attaches a link. Where the caller gives up, a task waits for the broker all the same, and then
    /// lets go of the link and its session: see `channel.rs`.
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
        let ended = self.health.borrow().clone();
        // Known before fe2o3-amqp has come to its end.
        let fault = || self.line.fault().map(|fault| Ended::Failed(Cause::Lost(fault.to_owned())));
        failed(operation, subject, cause, ended.or_else(fault).as_ref())
    }

    /// Runs one request on the links to RabbitMQ's management node.
    pub(crate) async fn management<T>(
        &self,
        operation: &'static str,
        subject: &str,
        request: impl AsyncFnOnce(&mut Management) -> Result<T>,
    ) -> Result<T> {
        self.lend(&self.management, operation, subject, request).await
    }

    /// Runs one request on the links to Artemis's management address.
    pub(crate) async fn artemis<T>(
        &self,
        operation: &'static str,
        subject: &str,
        request: impl AsyncFnOnce(&mut Artemis) -> Result<T>,
    ) -> Result<T> {
        self.lend(&self.artemis, operation, subject, request).await
    }

    /// Runs one request on links that nobody else uses meanwhile.
    async fn lend<N: Node, T>(
        &self,
        kept: &Mutex<Option<N>>,
        operation: &'static str,
        subject: &str,
        request: impl AsyncFnOnce(&mut N) -> Result<T>,
    ) -> Result<T> {
        let whole = async {
            let mut kept = kept.lock().await;
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
    async fn open(session: &Amqp10Session, operation: &'static str, subject: &str) -> Result<Self>;

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
        self.line.links.blocked()
    }

    async fn ended(&self) -> Error {
        let mut health = self.health.subscribe();
        let ended = match health.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            Err(_) => None,
        };
        ended
            .unwrap_or_else(|| Ended::Failed(Cause::Lost("the connection ended".to_owned())))
            .error("keep the connection to", self.options.subject())
    }

    async fn close(&self, deadline: Instant) {
        end(&self.health, Ended::Closed);
        let closing = async {
            if self.commands.send(Command::Close(deadline)).await.is_ok() {
                self.line.ended().await;
            }
        };
        let _ = timeout_at(deadline, closing).await;
        self.line.cut();
    }
}

/// Why a connection is over.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    /// This side closed it.
    Closed,
    /// It failed.
    Failed(Cause),
}

impl Ended {
    /// As an error of this operation.
    pub(crate) fn error(&self, operation: &'static str, subject: String) -> Error {
        match self {
            Self::Closed => error::about(Error::new(ErrorKind::Closed, operation), subject)
                .because("the session was closed on this side"),
            Self::Failed(Cause::Ended) => {
                error::about(Error::new(ErrorKind::Connection, operation), subject)
                    .because("the broker closed the connection")
            }
            Self::Failed(cause) => error::failed(operation, subject, cause),
        }
    }
}

/// Owns a connection until it is over.
async fn keep(
    mut connection: ConnectionHandle<()>,
    mut inbox: mpsc::Receiver<Command>,
    line: Arc<Line>,
    health: Arc<watch::Sender<Option<Ended>>>,
) {
    loop {
        let command = tokio::select! {
            biased;
            ended = connection.on_close() => {
                let cause = match line.fault() {
                    Some(fault) => Cause::Lost(fault.to_owned()),
                    None => ended.map_or_else(Cause::from, |()| Cause::Ended),
                };
                end(&health, Ended::Failed(cause));
                line.cut();
                return;
            }
            command = inbox.recv() => command,
        };
        let deadline = match command {
            Some(Command::Begin(reply)) => {
                // See `channel.rs` for why the channel of a session that ended should rest a while, and
                // why there may be no answer. The next try gets another channel.
                if let Some(ended) = line.links.last_end() {
                    tokio::time::sleep_until(later(ended, REST)).await;
                }
                for _ in 0..BEGIN_TRIES {
                    let begin = fe2o3_amqp::Session::begin(&mut connection);
                    if let Ok(begun) = timeout(BEGIN_TIMEOUT, begin).await {
                        // Nobody may be waiting any longer; the session then ends by being dropped.
                        let _ = reply.send(begun);
                        break;
                    }
                }
                continue;
            }
            Some(Command::Close(deadline)) => deadline,
            // A session that nobody closed has nobody left to wait for it either.
            None => deadline(LAST_WORDS),
        };
        end(&health, Ended::Closed);
        let _ = timeout_at(deadline, connection.close()).await;
        line.cut();
        return;
    }
}

/// The first reason is the reason.
fn end(health: &watch::Sender<Option<Ended>>, reason: Ended) {
    health.send_if_modified(|ended| {
        let first = ended.is_none();
        ended.get_or_insert(reason);
        first
    });
}

pub(crate) const CONNECT: &str = "connect to";

/// How long the broker may take to answer a request.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a channel rests between two sessions.
const REST: Duration = Duration::from_millis(50);

/// How long the broker may take to begin an AMQP session, and how often it is asked.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(2);
const BEGIN_TRIES: u32 = 4;

/// How long the end of a connection may take that nobody waits for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long RabbitMQ at least is silent when it refuses a virtual host: three seconds, less what
/// clocks and threads are off.
const SILENT_REFUSAL: Duration = Duration::from_millis(2500);

/// Makes names of links differ.
static LINKS: AtomicU64 = AtomicU64::new(1);
