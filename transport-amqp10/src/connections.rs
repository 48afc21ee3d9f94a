//! The connections of a session: one, and more when the AMQP sessions that the broker allows on one
//! are all in use. They are one incarnation: when one ends, so do the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use enoki_core::{Error, ErrorKind, Result, ShortStr, transport::deadline};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::{
    connection::{Connection, Ended, Health, REPLY_TIMEOUT, Unbegun},
    error::{self, Cause},
    io::{link_progress::Alarm, stream::Line},
    options::Options,
    session,
    session_pool::Channel,
};

/// The connections of a session.
#[derive(Debug)]
pub(crate) struct Pool {
    options: Arc<Options>,
    health: Arc<Health>,
    alarm: Arc<Alarm>,
    first: Arc<Connection>,
    /// All of them, in the order they were opened.
    connections: Mutex<Vec<Arc<Connection>>>,
    /// Held by the call that adds a connection: when and why the last could not be added.
    adding: tokio::sync::Mutex<Option<(Instant, Error)>>,
    /// Exclusive queues, which the broker keeps for the connection that declared them.
    homes: Mutex<HashMap<ShortStr, Home>>,
}

/// Where an exclusive queue is declared.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) connection: Arc<Connection>,
    /// Kept for its consumer.
    place: Option<OwnedSemaphorePermit>,
}

impl Pool {
    /// With one connection, opened within the deadline.
    pub(crate) async fn open(options: Arc<Options>, deadline: Instant) -> Result<Self> {
        let (health, alarm) = (Arc::new(Health::new(None)), Arc::<Alarm>::default());
        let first = Connection::open(&options, Line::new(&alarm), &health, deadline).await?;
        let first = Arc::new(first);
        let connections = Mutex::new(vec![first.clone()]);
        Ok(Self {
            options,
            health,
            alarm,
            first,
            connections,
            adding: tokio::sync::Mutex::default(),
            homes: Mutex::default(),
        })
    }

    pub(crate) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    pub(crate) fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    pub(crate) fn first(&self) -> &Connection {
        &self.first
    }

    /// All of them, in the order they were opened.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        lock(&self.connections).clone()
    }

    /// An AMQP session for one link, where there is room.
    pub(crate) async fn channel(&self, operation: &'static str, subject: &str) -> Result<Channel> {
        self.find(operation, subject, async |connection| connection.channel().await).await
    }

    /// An AMQP session for a link from this queue, on the connection that may consume from it.
    pub(crate) async fn channel_from(
        &self,
        queue: &ShortStr,
        operation: &'static str,
        subject: &str,
    ) -> Result<Channel> {
        let Some(Home { connection, place }) = self.known_home(queue) else {
            return self.channel(operation, subject).await;
        };
        let channel = match place {
            Some(place) => connection.channel_at(place).await,
            None => connection.channel().await,
        };
        match channel {
            Ok(Some(channel)) => Ok(channel),
            Ok(None) => Err(Error::new(ErrorKind::Refused, operation)
                .on(subject.to_owned())
                .because(
                    "only the connection that declared it may, and all its sessions are in use",
                )
                .remedy(RAISE_SESSIONS)
                .transient(true)),
            Err(unbegun) => Err(self.unbegun(operation, subject, unbegun)),
        }
    }

    /// Where to declare an exclusive queue: where it is, or where there is room for its consumer.
    pub(crate) async fn home(
        &self,
        queue: &ShortStr,
        operation: &'static str,
        subject: &str,
    ) -> Result<Home> {
        if let Some(Home { connection, place }) = self.known_home(queue) {
            let place = place.or_else(|| connection.place());
            return Ok(Home { connection, place });
        }
        let place = async |connection: &Arc<Connection>| {
            let place = connection.place();
            Ok(place.map(|place| Home { connection: connection.clone(), place: Some(place) }))
        };
        self.find(operation, subject, place).await
    }

    /// This exclusive queue is declared there.
    pub(crate) fn settle(&self, queue: ShortStr, home: Home) {
        lock(&self.homes).insert(queue, home);
    }

    /// This queue is gone.
    pub(crate) fn forget(&self, queue: &ShortStr) {
        lock(&self.homes).remove(queue);
    }

    /// The connection that may change this queue: the first, unless it is another's own.
    pub(crate) fn connection_for(&self, queue: Option<&ShortStr>) -> Arc<Connection> {
        let homes = lock(&self.homes);
        let home = queue.and_then(|queue| homes.get(queue));
        home.map_or(&self.first, |home| &home.connection).clone()
    }

    /// Where a queue was declared, and the place that was kept for its consumer.
    fn known_home(&self, queue: &ShortStr) -> Option<Home> {
        let mut homes = lock(&self.homes);
        let home = homes.get_mut(queue)?;
        Some(Home { connection: home.connection.clone(), place: home.place.take() })
    }

    /// Takes what there is on one of the connections, or on one more.
    async fn find<T>(
        &self,
        operation: &'static str,
        subject: &str,
        take: impl AsyncFn(&Arc<Connection>) -> Result<Option<T>, Unbegun>,
    ) -> Result<T> {
        let since = Instant::now();
        loop {
            let connections = self.connections();
            for connection in &connections {
                match take(connection).await {
                    Ok(Some(taken)) => return Ok(taken),
                    Ok(None) => {}
                    Err(unbegun) => return Err(self.unbegun(operation, subject, unbegun)),
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
            if let Some(ended) = &*self.health.borrow() {
                return Err(ended.error(operation, subject.to_owned()));
            }
            let deadline = deadline(REPLY_TIMEOUT);
            let line = Line::new(&self.alarm);
            match Connection::open(&self.options, line, &self.health, deadline).await {
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
    pub(crate) fn unbegun(
        &self,
        operation: &'static str,
        subject: &str,
        unbegun: Unbegun,
    ) -> Error {
        match unbegun {
            Unbegun::Unanswered => error::timed_out(operation, subject),
            Unbegun::Failed(cause) => self.failed(operation, subject, &cause),
        }
    }

    /// The error behind fe2o3-amqp's, which after the end of a connection says only that it is
    /// closed.
    pub(crate) fn failed(&self, operation: &'static str, subject: &str, cause: &Cause) -> Error {
        let ended = self.health.borrow().clone();
        // Known before fe2o3-amqp has come to its end.
        let fault = || {
            let connections = self.connections();
            let fault = connections.iter().find_map(|connection| connection.line().fault())?;
            Some(Ended::Failed(Cause::Lost(fault.to_owned())))
        };
        session::failed(operation, subject, cause, ended.or_else(fault).as_ref())
    }
}

/// All connections are full, and there cannot be one more.
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

/// No lock is held across an await.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const RAISE_SESSIONS: &str = "let the broker allow more connections, or more sessions on each; \
                              RabbitMQ calls that `session_max_per_connection`";
