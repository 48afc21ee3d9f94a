//! The supervisor of one connection: opened when a call needs it, by the one task that owns it,
//! and opened again whenever it breaks.

mod declared;
mod own;
mod redeclare;
mod refusals;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout_at},
};

use self::redeclare::Redeclaration;
pub(crate) use self::{
    declared::{DeclaredByHand, Standing},
    own::OwnConnections,
    refusals::Refusals,
};
use crate::{
    backoff::{Backoff, Pause, Pauses},
    deadline::{deadline, later},
    declare::report_missing,
    error::{Error, ErrorKind, Result},
    health::{BrokerHealth, Health},
    printable::printable,
    task::{guarded, spawn},
    topology::Topology,
    transport::{GRACE, Purpose, Session, Transport},
};

/// A handle on a connection. The task behind it ends when the handles are gone.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// The transport's, for errors.
    name: &'static str,
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
}

#[derive(Debug)]
enum Command {
    /// A call waits for the connection.
    Open,
    Close {
        deadline: Instant,
    },
}

/// A session and which incarnation of the connection it is.
#[derive(Debug, Clone)]
pub(crate) struct LiveSession {
    pub(crate) session: Arc<dyn Session>,
    pub(crate) epoch: u64,
}

impl LiveSession {
    /// Whether the connection has broken. The link's task may not have noticed yet.
    pub(crate) fn has_ended(&self) -> bool {
        self.session.ended().now_or_never().is_some()
    }

    /// What to make of something that failed on this session. A connection that broke under it is why,
    /// whatever the error was taken for, and the next connection may do better.
    pub(crate) fn judge(&self, error: Error) -> Error {
        if !error.is_transient() && self.has_ended() { error.transient(true) } else { error }
    }
}

#[derive(Debug, Clone)]
enum State {
    /// Not open, and not being opened. The reason, if there is one, is why no further try was made.
    Idle { tries: u64, reason: Option<Error> },
    /// Being opened, try after try. The reason is that of the last one, or of the loss before it.
    Opening { tries: u64, reason: Option<Error> },
    /// Open. It is whole when everything that is declared on each session is there.
    Up { live: LiveSession, blocked: Option<Arc<str>>, is_whole: bool },
    /// Closed by the program; it is not opened again.
    Closed,
}

impl State {
    fn standing(&self) -> Standing {
        match self {
            Self::Up { live, is_whole: true, .. } if !live.has_ended() => {
                Standing::There(live.epoch)
            }
            Self::Up { .. } | Self::Opening { .. } => Standing::Away,
            Self::Idle { .. } | Self::Closed => Standing::Left,
        }
    }
}

/// What a call does while the connection is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Waits for a try that succeeds, unless one fails in a way that no further one would mend.
    Wait,
    /// Gives up as soon as a try has failed, the last one before the call included.
    FailFast,
}

/// What a link needs to know.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionOptions {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) purpose: Purpose,
    pub(crate) connect_timeout: Duration,
    pub(crate) declare_timeout: Duration,
    /// The pauses between tries to open it.
    pub(crate) reconnect: Backoff,
    /// How long a connection that was open before is tried again while it is refused in a way that no
    /// further try would mend.
    pub(crate) give_up_after: Duration,
    /// Declared on each session before it is handed out.
    pub(crate) topology: Arc<Mutex<Topology>>,
    pub(crate) health: Arc<watch::Sender<BrokerHealth>>,
}

impl ConnectionOptions {
    /// Opens a session and declares on it what is declared on each; says what is still to be declared.
    async fn open(&self) -> Result<(Arc<dyn Session>, Redeclaration)> {
        let deadline = deadline(self.connect_timeout);
        let connecting = self.transport.connect(self.purpose, deadline);
        let connected = timeout_at(later(deadline, GRACE), connecting).await;
        let session = connected.unwrap_or_else(|_| Err(overdue(self.transport.name())))?;
        let topology = {
            let topology = self.topology.lock().unwrap_or_else(PoisonError::into_inner);
            topology.clone()
        };
        let mut redeclaration = Redeclaration::of(&topology, self.topology.clone());
        let declaring = async {
            redeclaration.once(&*session).await;
            report_missing(&*session, &topology).await;
        };
        if timeout_at(later(Instant::now(), self.declare_timeout), declaring).await.is_err() {
            tracing::error!("declaring again after a reconnect took too long");
        }
        Ok((session, redeclaration))
    }
}

impl Connection {
    pub(crate) fn new(options: ConnectionOptions) -> Self {
        let (commands, inbox) = mpsc::channel(1);
        let (publish, state) = watch::channel(State::Idle { tries: 0, reason: None });
        let name = options.transport.name();
        let refusals = Refusals::new(options.give_up_after);
        let task = ConnectionTask { options, inbox, state: publish, tries: 0, epoch: 0, refusals };
        spawn(KEEP, task.run(), drop);
        Self { name, commands, state }
    }

    /// The current session; opens one if there is none. An error says why the last try failed, or
    /// that there was none within the deadline; it is transient while the connection is tried again by
    /// itself. Cancel safe.
    pub(crate) async fn session(
        &self,
        deadline: Instant,
        patience: Patience,
    ) -> Result<LiveSession> {
        let waited = timeout_at(deadline, self.wait(patience)).await;
        waited.unwrap_or_else(|_| {
            Err(match &*self.state.borrow() {
                State::Opening { reason: Some(reason), .. } => reason.clone(),
                _ => overdue(self.name),
            })
        })
    }

    async fn wait(&self, patience: Patience) -> Result<LiveSession> {
        let mut state = self.state.clone();
        let mut asked = None;
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Up { live, .. } if !live.has_ended() => {
                    return Ok(live);
                }
                State::Up { .. } => {}
                State::Idle { tries, reason } => match (asked, reason) {
                    (Some(asked), Some(reason)) if tries > asked => return Err(reason),
                    (Some(_), _) => {}
                    (None, _) => {
                        asked = Some(tries);
                        // A full inbox already holds another call's request for the same.
                        if let Err(mpsc::error::TrySendError::Closed(_)) =
                            self.commands.try_send(Command::Open)
                        {
                            return Err(closed());
                        }
                    }
                },
                State::Opening { tries, reason } => {
                    asked.get_or_insert(tries);
                    // It pauses longer while no call waits. A full inbox holds such a wish already.
                    let _ = self.commands.try_send(Command::Open);
                    if let (Patience::FailFast, Some(reason)) = (patience, reason) {
                        return Err(reason);
                    }
                }
                State::Closed => return Err(closed()),
            }
            state.changed().await.map_err(|_| closed())?;
        }
    }

    /// Whether the program closed it.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(*self.state.borrow(), State::Closed)
    }

    /// The state alone, which keeps no connection open.
    pub(crate) fn status(&self) -> ConnectionStatus {
        ConnectionStatus(self.state.clone())
    }

    /// Closes the connection, and opens it no more. Idempotent.
    pub(crate) async fn close(&self, deadline: Instant) {
        let mut state = self.state.clone();
        let closing = async {
            if self.commands.send(Command::Close { deadline }).await.is_ok() {
                let _ = state.wait_for(|state| matches!(state, State::Closed)).await;
            }
        };
        // The task itself keeps the deadline; this one is for a task that could not.
        let _ = timeout_at(later(deadline, GRACE), closing).await;
    }
}

/// How a connection is doing, for those who only look.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionStatus(watch::Receiver<State>);

impl ConnectionStatus {
    /// What became of what is declared on it.
    fn standing(&self) -> Standing {
        State::standing(&self.0.borrow())
    }

    /// Waits while it is away. Cancel safe.
    async fn until_back(&self) {
        let mut state = self.0.clone();
        // An error means that its task is gone, and opens it no more.
        let _ = state.wait_for(|state| state.standing() != Standing::Away).await;
    }

    /// Why what was sent has no outcome yet, as far as the connection knows.
    pub(crate) fn trouble(&self) -> Option<String> {
        match &*self.0.borrow() {
            State::Up { blocked: Some(reason), .. } => {
                Some(format!("the broker blocks the connection: {reason}"))
            }
            State::Idle { reason: Some(reason), .. }
            | State::Opening { reason: Some(reason), .. } => {
                Some(format!("the connection is down: {reason}"))
            }
            _ => None,
        }
    }
}

/// The task that owns a connection.
struct ConnectionTask {
    options: ConnectionOptions,
    inbox: mpsc::Receiver<Command>,
    state: watch::Sender<State>,
    tries: u64,
    epoch: u64,
    refusals: Refusals,
}

/// How the time between a wish for the connection and its end went.
enum Exit {
    /// No further try would succeed: none is made until the next call.
    Failed(Error),
    /// No handle needs it any more.
    Closed,
}

impl ConnectionTask {
    /// A panic below costs the session, like a connection that breaks.
    async fn run(mut self) {
        let mut pauses = Pauses::new(self.options.reconnect);
        let mut is_wanted = false;
        loop {
            let since = Instant::now();
            let Err(panicked) = guarded(KEEP, self.serve_all(is_wanted)).await else { break };
            is_wanted = true;
            self.set(State::Opening { tries: self.tries, reason: Some(panicked.transient(true)) });
            if self.pause(pauses.after_a_session_of(since.elapsed())).await.is_none() {
                break;
            }
        }
        self.set(State::Closed);
    }

    /// Opens the connection whenever a handle asks for it, until the last handle is gone.
    async fn serve_all(&mut self, mut is_wanted: bool) {
        while is_wanted || matches!(self.inbox.recv().await, Some(Command::Open)) {
            is_wanted = false;
            match self.keep_open().await {
                Exit::Failed(reason) => {
                    tracing::error!(
                        transport = self.options.transport.name(),
                        purpose = ?self.options.purpose, %reason,
                        "the connection cannot be opened; not tried again by itself"
                    );
                    self.set(State::Idle { tries: self.tries, reason: Some(reason) });
                }
                Exit::Closed => return,
            }
        }
    }

    /// Opens the connection, and again whenever it breaks.
    async fn keep_open(&mut self) -> Exit {
        let mut pauses = Pauses::new(self.options.reconnect);
        self.set(State::Opening { tries: self.tries, reason: None });
        loop {
            self.tries += 1;
            let (reason, pause) = match self.open().await {
                None => return Exit::Closed,
                Some(Err(reason)) => {
                    let pause = pauses.after_a_failed_try(&reason);
                    let reason = self.refusals.judge(reason);
                    if !reason.is_transient() {
                        return Exit::Failed(reason);
                    }
                    (reason, pause)
                }
                Some(Ok((session, redeclaration))) => {
                    self.refusals.accepted();
                    let since = Instant::now();
                    let Some(reason) = self.serve(session, redeclaration).await else {
                        return Exit::Closed;
                    };
                    (reason.transient(true), pauses.after_a_session_of(since.elapsed()))
                }
            };
            tracing::warn!(
                transport = self.options.transport.name(),
                purpose = ?self.options.purpose, tries = self.tries, %reason, wait = ?pause.idle,
                "no connection; tried again later, and sooner when a call waits for it"
            );
            self.set(State::Opening { tries: self.tries, reason: Some(reason) });
            if self.pause(pause).await.is_none() {
                return Exit::Closed;
            }
        }
    }

    /// Waits before the next try: not as long from the moment on that a call waits for it. `None` when
    /// the connection is to close.
    async fn pause(&mut self, pause: Pause) -> Option<()> {
        let began = Instant::now();
        let wanted = tokio::select! {
            () = sleep_until(later(began, pause.idle)) => return Some(()),
            command = self.inbox.recv() => matches!(command, Some(Command::Open)),
        };
        if !wanted {
            return None;
        }
        tokio::select! {
            () = sleep_until(later(began, pause.wanted)) => Some(()),
            () = unwanted(&mut self.inbox) => None,
        }
    }

    /// One try. `None` when no handle needs it any more.
    async fn open(&mut self) -> Option<Result<(Arc<dyn Session>, Redeclaration)>> {
        tokio::select! {
            biased;
            opened = self.options.open() => Some(opened),
            () = unwanted(&mut self.inbox) => None,
        }
    }

    /// Lends the session out until it ends; says why it did, or `None` when it was to close.
    async fn serve(
        &mut self,
        session: Arc<dyn Session>,
        mut redeclaration: Redeclaration,
    ) -> Option<Error> {
        self.epoch += 1;
        let mut blocked = session.blocked();
        let mut is_whole = redeclaration.is_over();
        let redeclaring = redeclaration.rest(&*session);
        tokio::pin!(redeclaring);
        let live = LiveSession { session: session.clone(), epoch: self.epoch };
        loop {
            let reason =
                blocked.borrow_and_update().as_deref().map(|reason| printable(reason).into());
            self.set(State::Up { live: live.clone(), blocked: reason, is_whole });
            let deadline = tokio::select! {
                reason = session.ended() => return Some(reason),
                Ok(()) = blocked.changed() => continue,
                () = &mut redeclaring, if !is_whole => {
                    is_whole = true;
                    continue;
                }
                deadline = closing(&mut self.inbox) => deadline,
            };
            // Closed first, so that no call gets a session that is being closed.
            self.set(State::Closed);
            session.close(deadline).await;
            return None;
        }
    }

    fn set(&self, state: State) {
        let health = match &state {
            State::Idle { reason: None, .. } => Health::Idle,
            State::Idle { reason, .. } => Health::Stopped { reason: reason.clone() },
            State::Opening { reason: Some(reason), .. } if self.epoch > 0 => {
                Health::Reconnecting { reason: reason.clone() }
            }
            State::Opening { reason, .. } => Health::Connecting { reason: reason.clone() },
            State::Up { blocked: Some(reason), .. } => Health::Blocked { reason: reason.clone() },
            State::Up { blocked: None, .. } => Health::Ready,
            State::Closed => Health::Stopped { reason: None },
        };
        self.options.health.send_modify(|both| match self.options.purpose {
            Purpose::Publish => (both.publishing, both.publishing_opened) = (health, self.epoch),
            Purpose::Consume => (both.consuming, both.consuming_opened) = (health, self.epoch),
        });
        self.state.send_replace(state);
    }
}

/// Waits until no handle needs the connection any more. A call that needs it gets the one under way.
async fn unwanted(inbox: &mut mpsc::Receiver<Command>) {
    closing(inbox).await;
}

/// Waits for the wish to close, or for the last handle to go, and says until when closing may take.
async fn closing(inbox: &mut mpsc::Receiver<Command>) -> Instant {
    loop {
        match inbox.recv().await {
            Some(Command::Open) => {}
            Some(Command::Close { deadline }) => return deadline,
            None => return deadline(GRACE),
        }
    }
}

/// What the task of a connection does, for errors.
const KEEP: &str = "keep a connection";

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "use the broker").because("it was closed")
}

fn overdue(transport: &str) -> Error {
    Error::new(ErrorKind::Timeout, "connect")
        .on(format!("by {transport}"))
        .because("the deadline passed")
}
