//! One connection to the broker: opened, asked, watched, and closed. The session, its sender, its receivers and
//! its topology are made of it.

mod pending_channel;
mod refusal;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use enoki_amqp::{Options, PeerProperties};
use enoki_core::{
    Error, ErrorKind, Result,
    transport::{deadline, printable, spawn},
};
use futures_util::StreamExt;
use lapin::{Channel, Event, protocol::constants::REPLY_SUCCESS};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};

pub(crate) use self::pending_channel::PendingChannel;
use crate::{
    error,
    io::{connection_io::ConnectionIo, open::open},
    limits::REPLY_TIMEOUT,
};

/// One connection to the broker.
pub(crate) struct Connection {
    options: Arc<Options>,
    client: lapin::Connection,
    io: Arc<ConnectionIo>,
    /// Why the connection has ended, once it has. The first reason stays.
    ended: Arc<watch::Sender<Option<Ended>>>,
    /// Why the broker reads nothing from this connection, while it does not (`connection.blocked`).
    blocked: watch::Receiver<Option<Arc<str>>>,
    /// The task that follows lapin's events. It ends with the connection, and is the only one that sets `blocked`.
    watcher: AbortHandle,
    /// The channel for requests, between two requests; a request takes it out, and puts it back if it was answered.
    /// Publishers and consumers have channels of their own, since a refused request closes its channel.
    request_channel: Mutex<Option<Channel>>,
}

impl Connection {
    /// Opens a connection, within the deadline. Dropping the future closes the socket.
    pub(crate) async fn open(options: Arc<Options>, deadline: Instant) -> Result<Self> {
        let (client, io) = connect(&options, deadline).await?;
        let events = client.events_listener();
        let ended = Arc::new(watch::Sender::new(None));
        let (block, blocked) = watch::channel(None);
        let status = client.status().clone();
        let watching = watch_over(events, status, io.clone(), ended.clone(), block);
        let lost = (io.clone(), ended.clone());
        let watcher = spawn("watch a connection", watching, move |_| {
            let (io, ended) = lost;
            end(&ended, Ended::Lost);
            io.cut();
        });
        Ok(Self {
            options,
            client,
            io,
            ended,
            blocked,
            watcher: watcher.abort_handle(),
            request_channel: Mutex::new(None),
        })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// What lapin and this side share of the socket.
    pub(crate) fn io(&self) -> &Arc<ConnectionIo> {
        &self.io
    }

    /// The product and version that the broker named.
    pub(crate) fn peer_properties(&self) -> PeerProperties {
        self.io.socket().peer_properties()
    }

    /// Why the broker reads nothing from this connection, as it changes.
    pub(crate) fn blocked(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.blocked.clone()
    }

    /// Why the connection has ended, once it has.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.subscribe()
    }

    /// Closes the connection, and cuts it at the deadline.
    pub(crate) async fn close(&self, deadline: Instant) {
        end(&self.ended, Ended::Closed);
        // A broker that blocks the connection does not read this either.
        let _ = timeout_at(deadline, self.client.close(REPLY_SUCCESS, "OK".into())).await;
        self.io.cut();
    }

    /// A new channel.
    pub(crate) async fn channel(
        &self,
        operation: &'static str,
        subject: &str,
    ) -> Result<PendingChannel> {
        let opened = self.answered(operation, subject, self.client.create_channel()).await;
        opened.map(PendingChannel::new)
    }

    /// Waits for an answer of the broker, for [`REPLY_TIMEOUT`] at most.
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

    /// An error of this operation. After the end of a connection lapin says only that it is closed; then the error has the
    /// reason of that end.
    pub(crate) fn failed(
        &self,
        operation: &'static str,
        subject: &str,
        error: &lapin::Error,
    ) -> Error {
        match (error.kind(), &*self.ended.borrow()) {
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

    /// Runs one request on a channel that no other request uses.
    pub(crate) async fn request<T>(
        &self,
        operation: &'static str,
        subject: &str,
        request: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
    ) -> Result<T> {
        let kept = self.request_channel.lock().unwrap_or_else(PoisonError::into_inner).take();
        let channel = match kept.filter(|channel| channel.status().connected()) {
            Some(channel) => PendingChannel::new(channel),
            None => self.channel(operation, subject).await?,
        };
        let answer = self.answered(operation, subject, request(&channel)).await;
        // After a refusal the broker closes the channel; after a timeout the answer may still come on it.
        if answer.is_ok() {
            *self.request_channel.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(channel.keep());
        }
        answer
    }

    /// Runs one request on a connection of its own, since the broker may answer it by closing the connection.
    pub(crate) async fn request_apart<T>(
        &self,
        operation: &'static str,
        subject: &str,
        request: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
    ) -> Result<T> {
        let deadline = deadline(REPLY_TIMEOUT);
        let (client, io) = connect(&self.options, deadline).await?;
        let _cut = CutOnDrop(Some(io));
        let channel = self.answered(operation, subject, client.create_channel()).await?;
        let answer = self.answered(operation, subject, request(&channel)).await;
        let _ = timeout(EXPLANATION, client.close(REPLY_SUCCESS, "OK".into())).await;
        answer
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("broker", &self.options.subject())
            .field("ended", &*self.ended.borrow())
            .finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.watcher.abort();
        // Without `close` there is no one to wait for the broker's answer.
        self.io.cut();
    }
}

/// Opens a connection of lapin's, and the socket below it, within the deadline.
async fn connect(
    options: &Options,
    deadline: Instant,
) -> Result<(lapin::Connection, Arc<ConnectionIo>)> {
    let io = Arc::new(ConnectionIo::new(options.max_body));
    // If the deadline passes, or the caller drops this future, the socket is closed. Otherwise lapin would keep its
    // thread and the socket.
    let cut = CutOnDrop(Some(io.clone()));
    let opening = open(options, &io);
    let connection = match timeout_at(deadline, opening).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(refusal::refused(options, &error, io.socket().stage())),
        Err(_) => return Err(refusal::silent(options, io.socket().stage())),
    };
    cut.keep();
    Ok((connection, io))
}

/// Cuts a connection that is still being opened, unless [`keep`](Self::keep) was called.
struct CutOnDrop(Option<Arc<ConnectionIo>>);

impl CutOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(io) = &self.0 {
            io.cut();
        }
    }
}

/// Why a connection has ended.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    /// This side closed it.
    Closed,
    /// It failed.
    Failed(lapin::Error),
    /// lapin let go of the socket without a reason.
    Lost,
}

impl Ended {
    /// Waits until the connection has ended. Cancel safe.
    pub(crate) async fn wait(ended: &mut watch::Receiver<Option<Self>>) -> Self {
        let found = ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        found.unwrap_or(Self::Lost)
    }

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

/// Follows a connection until it has ended. It is the only listener, since lapin splits its events among listeners.
async fn watch_over(
    events: impl futures_util::Stream<Item = Event>,
    status: lapin::ConnectionStatus,
    io: Arc<ConnectionIo>,
    ended: Arc<watch::Sender<Option<Ended>>>,
    blocked: watch::Sender<Option<Arc<str>>>,
) {
    tokio::pin!(events);
    let lost = async {
        io.socket().ended().await;
        // lapin may tell the reason slightly later.
        tokio::time::sleep(EXPLANATION).await;
    };
    tokio::pin!(lost);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = &mut lost => None,
        };
        match event {
            // The broker closed a channel; the sender or receiver that has the channel learns it there.
            Some(Event::Error(_)) if status.connected() => {}
            Some(Event::Error(error)) => return end(&ended, Ended::Failed(error)),
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(reason = %printable(&*reason), "the broker blocks this connection");
                blocked.send_replace(Some(reason.into()));
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("the broker no longer blocks this connection");
                blocked.send_replace(None);
            }
            Some(_) => {}
            None => return end(&ended, Ended::Lost),
        }
    }
}

/// Sets the reason of the end, if there is none yet.
fn end(ended: &watch::Sender<Option<Ended>>, reason: Ended) {
    ended.send_if_modified(|ended| {
        let first = ended.is_none();
        ended.get_or_insert(reason);
        first
    });
}

/// How long lapin may take to tell the reason of an end, and the broker to answer `connection.close`.
const EXPLANATION: Duration = Duration::from_millis(200);
