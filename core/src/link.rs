//! A connection that is opened when somebody needs it, by the one task that owns it.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

use crate::{
    error::{Error, ErrorKind, Result},
    transport::{GRACE, Purpose, Session, Transport},
};

/// A handle on a connection. The task behind it ends when the handles are gone.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
}

#[derive(Debug)]
enum Command {
    Open,
    Close { deadline: Instant },
}

/// A session and which incarnation of the connection it is.
#[derive(Debug, Clone)]
pub(crate) struct Incarnation {
    pub(crate) session: Arc<dyn Session>,
    pub(crate) epoch: u64,
}

impl Incarnation {
    /// Whether the connection has broken. The link's task may not have noticed yet.
    pub(crate) fn has_ended(&self) -> bool {
        self.session.ended().now_or_never().is_some()
    }
}

#[derive(Debug, Clone)]
enum State {
    /// Not open. The reason, if it was or should have been, belongs to this try.
    Down {
        tries: u64,
        reason: Option<Error>,
    },
    Up(Incarnation),
    Closed,
}

impl Link {
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        purpose: Purpose,
        connect_timeout: Duration,
    ) -> Self {
        let (commands, inbox) = mpsc::channel(1);
        let (publish, state) = watch::channel(State::Down { tries: 0, reason: None });
        tokio::spawn(run(transport, purpose, connect_timeout, inbox, publish));
        Self { commands, state }
    }

    /// The current session; opens one if there is none. An error is that of a try that ended after
    /// this call began, never one from before. Cancel safe.
    pub(crate) async fn session(&self, deadline: Instant) -> Result<Incarnation> {
        let mut state = self.state.clone();
        let wait = async {
            let mut seen = None;
            loop {
                let now = state.borrow_and_update().clone();
                match (now, seen) {
                    (State::Up(incarnation), _) if !incarnation.has_ended() => {
                        return Ok(incarnation);
                    }
                    (State::Up(_), _) => {}
                    (State::Down { tries, .. }, None) => {
                        seen = Some(tries);
                        // A full inbox already holds somebody's wish for the same thing.
                        match self.commands.try_send(Command::Open) {
                            Err(mpsc::error::TrySendError::Closed(_)) => return Err(closed()),
                            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
                        }
                    }
                    (State::Down { tries, reason: Some(reason) }, Some(seen)) if tries > seen => {
                        return Err(reason);
                    }
                    (State::Down { .. }, _) => {}
                    (State::Closed, _) => return Err(closed()),
                }
                state.changed().await.map_err(|_| closed())?;
            }
        };
        timeout_at(deadline, wait).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "connect")
                .because("the deadline passed")
                .transient(true))
        })
    }

    /// Closes the connection for good. Twice is once.
    pub(crate) async fn close(&self, deadline: Instant) {
        let mut state = self.state.clone();
        let closing = async {
            if self.commands.send(Command::Close { deadline }).await.is_ok() {
                let _ = state.wait_for(|state| matches!(state, State::Closed)).await;
            }
        };
        // The task itself keeps the deadline; this one is for a task that could not.
        let _ = timeout_at(deadline + GRACE, closing).await;
    }
}

async fn run(
    transport: Arc<dyn Transport>,
    purpose: Purpose,
    connect_timeout: Duration,
    mut inbox: mpsc::Receiver<Command>,
    publish: watch::Sender<State>,
) {
    let mut tries = 0;
    let mut epoch = 0;
    loop {
        match inbox.recv().await {
            Some(Command::Open) => {}
            Some(Command::Close { .. }) | None => break,
        }
        tries += 1;
        let deadline = Instant::now() + connect_timeout;
        let connecting = timeout_at(deadline + GRACE, transport.connect(purpose, deadline));
        let connected = tokio::select! {
            biased;
            connected = connecting => connected.unwrap_or_else(|_| Err(overdue(&*transport))),
            () = unwanted(&mut inbox) => break,
        };
        let session = match connected {
            Ok(session) => session,
            Err(reason) => {
                publish.send_replace(State::Down { tries, reason: Some(reason) });
                continue;
            }
        };
        epoch += 1;
        publish.send_replace(State::Up(Incarnation { session: session.clone(), epoch }));
        match serve(&*session, &mut inbox).await {
            Served::Ended(reason) => {
                tracing::warn!(transport = transport.name(), ?purpose, %reason, "the connection ended");
                publish.send_replace(State::Down { tries, reason: Some(reason) });
            }
            Served::Close(deadline) => {
                // Closed first, so that nobody takes up a session that is on its way out.
                publish.send_replace(State::Closed);
                session.close(deadline).await;
                return;
            }
        }
    }
    publish.send_replace(State::Closed);
}

/// Waits until nobody wants the connection any more. Who wishes for it gets the one under way.
async fn unwanted(inbox: &mut mpsc::Receiver<Command>) {
    while let Some(Command::Open) = inbox.recv().await {}
}

enum Served {
    Ended(Error),
    Close(Instant),
}

async fn serve(session: &dyn Session, inbox: &mut mpsc::Receiver<Command>) -> Served {
    loop {
        tokio::select! {
            reason = session.ended() => return Served::Ended(reason),
            command = inbox.recv() => match command {
                Some(Command::Open) => {}
                Some(Command::Close { deadline }) => return Served::Close(deadline),
                None => return Served::Close(Instant::now() + GRACE),
            },
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "use the broker").because("it was closed")
}

fn overdue(transport: &dyn Transport) -> Error {
    Error::new(ErrorKind::Timeout, "connect")
        .on(format!("by {}", transport.name()))
        .because("the deadline passed")
}
