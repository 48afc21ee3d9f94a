//! One connection to the broker.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use enoki_core::{
    Error, ErrorKind, Peer, Result, ShortStr,
    transport::{Change, Found, Receiver, Sender, Session, deadline, printable, spawn},
};
use enoki_socket::tls_error;
use futures_util::StreamExt;
use lapin::{Channel, Event, protocol::constants::REPLY_SUCCESS};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    channel::Tentative,
    error,
    guard::Broken,
    line::{Line, Stage},
    options::Options,
    peer,
    receiver::Amqp091Receiver,
    sender::Amqp091Sender,
    socket, topology,
};

/// Opens a session, within the deadline.
pub(crate) async fn open(options: Arc<Options>, deadline: Instant) -> Result<Amqp091Session> {
    let (connection, line) = connect(&options, deadline).await?;
    let events = connection.events_listener();
    let health = Arc::new(watch::Sender::new(Health::default()));
    let (block, blocked) = watch::channel(None);
    let status = connection.status().clone();
    let watching = watch_over(events, status, line.clone(), health.clone(), block);
    let lost = (line.clone(), health.clone());
    let watcher = spawn("watch a connection", watching, move |_| {
        let (line, health) = lost;
        end(&health, Ended::Lost);
        line.cut();
    });
    Ok(Amqp091Session {
        peer: peer::peer(line.greeting()),
        options,
        connection,
        line,
        health,
        blocked,
        watcher: watcher.abort_handle(),
        admin: Mutex::new(None),
    })
}

/// Opens a connection of lapin's and the line below it, within the deadline.
async fn connect(options: &Options, deadline: Instant) -> Result<(lapin::Connection, Arc<Line>)> {
    let line = Arc::new(Line::new(options.max_body));
    // Whether the deadline passes or the caller goes away: the line ends with this call, unless
    // there is a connection. lapin would keep its thread and the socket.
    let cut = CutOnDrop(Some(line.clone()));
    let opening = socket::open(options, &line);
    let connection = match timeout_at(deadline, opening).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(refused(options, &error, line.stage())),
        Err(_) => return Err(silent(options, line.stage())),
    };
    cut.keep();
    Ok((connection, line))
}

/// Why a connection was not opened.
fn refused(options: &Options, error: &lapin::Error, stage: Stage) -> Error {
    if let lapin::ErrorKind::IOError(io) = error.kind()
        && let Some(error) = tls_error(io, CONNECT)
    {
        return error.on(options.subject());
    }
    let refused = error::failed(CONNECT, options.subject(), error);
    match (stage, error.kind()) {
        (_, lapin::ErrorKind::IOError(io)) if Broken::within(io).is_some() => {
            let unsupported = Error::new(ErrorKind::Unsupported, CONNECT)
                .on(options.subject())
                .caused_by(error.clone());
            match stage {
                Stage::Unreachable | Stage::Silent => unsupported
                    .because("what answered does not speak AMQP 0-9-1")
                    .remedy(options.other_port()),
                Stage::Greeted | Stage::Answered => unsupported.because(io.to_string()),
            }
        }
        // Brokers that do not know `authentication_failure_close` just hang up.
        (Stage::Greeted, lapin::ErrorKind::IOError(_)) => Error::new(ErrorKind::Denied, CONNECT)
            .on(options.subject())
            .because("the broker hung up during the login, which is how some refuse one")
            .remedy(who(options))
            .caused_by(error.clone()),
        (Stage::Silent, lapin::ErrorKind::IOError(_)) => refused.remedy(options.other_port()),
        (_, lapin::ErrorKind::IOError(io)) if io.kind() == std::io::ErrorKind::TimedOut => {
            silent(options, stage)
        }
        (_, lapin::ErrorKind::ParsingError(_)) => Error::new(ErrorKind::Unsupported, CONNECT)
            .on(options.subject())
            .because("what answered does not speak AMQP 0-9-1")
            .caused_by(error.clone()),
        (_, lapin::ErrorKind::ProtocolError(reply)) if reply.get_id() == 403 => {
            refused.remedy(who(options))
        }
        _ => refused,
    }
}

/// What may be wrong when a login is refused.
fn who(options: &Options) -> &'static str {
    match options.user() {
        Some(_) => "check user name and password",
        None => {
            "check that the broker takes logins by certificate (EXTERNAL; RabbitMQ has a plugin for it), \
             and knows whom this one names"
        }
    }
}

/// A connection that its deadline ended is one that could not be made; the next try may do better.
fn silent(options: &Options, stage: Stage) -> Error {
    Error::new(ErrorKind::Connection, CONNECT).on(options.subject()).because(match stage {
        Stage::Unreachable => "no connection within the deadline",
        Stage::Silent => "connected, but no AMQP greeting within the deadline",
        Stage::Greeted | Stage::Answered => "the login was not over within the deadline",
    })
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

/// One connection to the broker.
pub(crate) struct Amqp091Session {
    options: Arc<Options>,
    connection: lapin::Connection,
    line: Arc<Line>,
    health: Arc<watch::Sender<Health>>,
    /// Why the broker reads nothing from this connection for the time being, if it said so.
    blocked: watch::Receiver<Option<Arc<str>>>,
    watcher: AbortHandle,
    peer: Peer,
    /// A channel for changes of the topology, between two of them. Publishers and consumers have
    /// channels of their own, since a refused declaration closes the one it came on.
    admin: Mutex<Option<Channel>>,
}

impl Amqp091Session {
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// What is known of the connection, as it changes.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// A new channel.
    pub(crate) async fn channel(
        &self,
        operation: &'static str,
        subject: &str,
    ) -> Result<Tentative> {
        let opened = self.answered(operation, subject, self.connection.create_channel()).await;
        opened.map(Tentative::new)
    }

    /// Waits for an answer of the broker, and not longer than [`REPLY_TIMEOUT`].
    pub(crate) async fn answered<T>(
        &self,
        operation: &'static str,
        subject: &str,
        answer: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T> {
        match timeout(REPLY_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(operation, subject, &error)),
            Err(_) => Err(self.timed_out(operation, subject)),
        }
    }

    /// The error behind lapin's, which after the end of a connection says only that it is closed.
    pub(crate) fn failed(
        &self,
        operation: &'static str,
        subject: &str,
        error: &lapin::Error,
    ) -> Error {
        match (error.kind(), &self.health.borrow().ended) {
            (lapin::ErrorKind::InvalidConnectionState(_), Some(ended))
            | (lapin::ErrorKind::InvalidChannelState(..), Some(ended)) => {
                ended.error(operation, subject.to_owned())
            }
            _ => error::failed(operation, subject, error),
        }
    }

    fn timed_out(&self, operation: &'static str, subject: &str) -> Error {
        let timed_out = error::timed_out(operation, subject);
        match &*self.blocked.borrow() {
            Some(reason) => {
                timed_out.because(format!("the broker blocks this connection: {reason}"))
            }
            None => timed_out,
        }
    }

    /// Runs one request on a channel that nobody else uses.
    pub(crate) async fn request<T>(
        &self,
        operation: &'static str,
        subject: &str,
        request: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
    ) -> Result<T> {
        let kept = self.admin.lock().unwrap_or_else(PoisonError::into_inner).take();
        let channel = match kept.filter(|channel| channel.status().connected()) {
            Some(channel) => Tentative::new(channel),
            None => self.channel(operation, subject).await?,
        };
        let answer = self.answered(operation, subject, request(&channel)).await;
        // After a refusal the broker closes the channel; after a timeout its answer may yet come.
        if answer.is_ok() {
            *self.admin.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.keep());
        }
        answer
    }

    /// Runs one request on a connection of its own, for what may cost the connection.
    pub(crate) async fn request_apart<T>(
        &self,
        operation: &'static str,
        subject: &str,
        request: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
    ) -> Result<T> {
        let deadline = deadline(REPLY_TIMEOUT);
        let (connection, line) = connect(&self.options, deadline).await?;
        let _cut = CutOnDrop(Some(line));
        let channel = self.answered(operation, subject, connection.create_channel()).await?;
        let answer = self.answered(operation, subject, request(&channel)).await;
        let _ = timeout(LAST_WORDS, connection.close(REPLY_SUCCESS, "OK".into())).await;
        answer
    }
}

impl fmt::Debug for Amqp091Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp091Session")
            .field("broker", &self.options.subject())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Drop for Amqp091Session {
    fn drop(&mut self) {
        self.watcher.abort();
        // A session that nobody closed has nobody left to wait for it either.
        self.line.cut();
    }
}

#[async_trait]
impl Session for Amqp091Session {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    async fn apply(&self, change: &Change) -> Result<Found> {
        topology::apply(self, change).await
    }

    async fn sender(&self, window: usize) -> Result<Box<dyn Sender>> {
        let subject = self.options.subject();
        let channel = self.channel("open a sender at", &subject).await?;
        self.answered("open a sender at", &subject, channel.confirm_select(Default::default()))
            .await?;
        let login = self.options.user().map(str::to_owned);
        let (line, health) = (self.line.clone(), self.health.subscribe());
        Ok(Box::new(Amqp091Sender::new(channel.keep(), line, health, login, window)))
    }

    async fn receiver(&self, queue: &ShortStr, prefetch: u16) -> Result<Box<dyn Receiver>> {
        Ok(Box::new(Amqp091Receiver::open(self, queue, prefetch).await?))
    }

    fn blocked(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.blocked.clone()
    }

    async fn ended(&self) -> Error {
        let mut health = self.health.subscribe();
        let ended = match health.wait_for(|health| health.ended.is_some()).await {
            Ok(health) => health.ended.clone(),
            Err(_) => None,
        };
        ended.unwrap_or(Ended::Lost).error("keep the connection to", self.options.subject())
    }

    async fn close(&self, deadline: Instant) {
        end(&self.health, Ended::Closed);
        // While the broker blocks the connection not even this gets through.
        let _ = timeout_at(deadline, self.connection.close(REPLY_SUCCESS, "OK".into())).await;
        self.line.cut();
    }
}

/// What is known of a session's connection and channels.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    /// Why it is over, once it is.
    pub(crate) ended: Option<Ended>,
    /// Why the broker last closed a channel. It does not say which: whoever waits looks at theirs.
    pub(crate) channel_error: Option<lapin::Error>,
}

/// Why a connection is over.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    /// This side closed it.
    Closed,
    /// It failed.
    Failed(lapin::Error),
    /// lapin let go of the socket and gave no reason.
    Lost,
}

impl Ended {
    /// As an error of this operation.
    pub(crate) fn error(&self, operation: &'static str, subject: String) -> Error {
        match self {
            Self::Closed => error::about(Error::new(ErrorKind::Closed, operation), subject)
                .because("the session was closed on this side"),
            Self::Failed(error) => error::failed(operation, subject, error),
            Self::Lost => error::about(Error::new(ErrorKind::Connection, operation), subject)
                .because("the connection was lost"),
        }
    }
}

/// Follows a connection until it is over. The only listener: lapin splits events among them.
async fn watch_over(
    events: impl futures_util::Stream<Item = Event>,
    status: lapin::ConnectionStatus,
    line: Arc<Line>,
    health: Arc<watch::Sender<Health>>,
    blocked: watch::Sender<Option<Arc<str>>>,
) {
    tokio::pin!(events);
    let lost = async {
        line.ended().await;
        // lapin says why, if it knows, a moment later.
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::pin!(lost);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = &mut lost => None,
        };
        match event {
            Some(Event::Error(error)) if status.connected() => {
                health.send_modify(|health| health.channel_error = Some(error));
            }
            Some(Event::Error(error)) => return end(&health, Ended::Failed(error)),
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(reason = %printable(&*reason), "the broker blocks this connection");
                blocked.send_replace(Some(reason.into()));
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("the broker no longer blocks this connection");
                blocked.send_replace(None);
            }
            Some(_) => {}
            None => return end(&health, Ended::Lost),
        }
    }
}

/// The first reason is the reason.
fn end(health: &watch::Sender<Health>, reason: Ended) {
    health.send_if_modified(|health| {
        let first = health.ended.is_none();
        health.ended.get_or_insert(reason);
        first
    });
}

const CONNECT: &str = "connect to";

/// How long the broker may take to answer a request.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of a connection may take to be explained.
const LAST_WORDS: Duration = Duration::from_millis(200);
