//! Any transport, with a layer in between: what the proxy does to bytes, done to the interface
//! between the toolkit and a transport. So the broker in memory has faults, too.

mod receiver;
mod sender;
mod session;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use enoki::{
    Error, ErrorKind, Result,
    transport::{Purpose, Session, Transport},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use self::session::Interposed;

/// What happens to those who connect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// They reach the broker.
    #[default]
    Open,
    /// They are refused at once.
    Refused,
    /// They wait until their deadline.
    Hanging,
}

/// What is broken at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct State {
    reach: Reach,
    /// No outcome of a publish gets through; they wait.
    outcomes_held: bool,
    /// No delivery gets through; they wait.
    deliveries_held: bool,
    /// This many outcomes from now on vanish.
    outcomes_to_drop: u64,
    /// This many settlements from now on vanish.
    settlements_to_drop: u64,
    /// Every outcome and delivery comes this much later.
    delay: Duration,
}

/// A transport with a layer in between that can break. Clones are the same.
#[derive(Clone)]
pub struct Between {
    inner: Arc<dyn Transport>,
    control: Arc<Control>,
}

#[derive(Debug, Default)]
struct Control {
    state: watch::Sender<State>,
    sessions: Mutex<Vec<(Purpose, Weak<Interposed>)>>,
    /// Counts the ends of senders and receivers that were asked for.
    sender_ends: watch::Sender<u64>,
    receiver_ends: watch::Sender<u64>,
    receiver_cancels: watch::Sender<u64>,
}

impl Between {
    /// Nothing is broken yet.
    pub fn new(inner: Arc<dyn Transport>) -> Self {
        Self { inner, control: Arc::default() }
    }

    /// What happens to those who connect from now on.
    pub fn reach(&self, reach: Reach) {
        self.control.state.send_modify(|state| state.reach = reach);
    }

    /// Holds back the outcomes of publishes, or lets them through.
    pub fn hold_outcomes(&self, held: bool) {
        self.control.state.send_modify(|state| state.outcomes_held = held);
    }

    /// Holds back deliveries, or lets them through.
    pub fn hold_deliveries(&self, held: bool) {
        self.control.state.send_modify(|state| state.deliveries_held = held);
    }

    /// Has so many outcomes vanish.
    pub fn drop_outcomes(&self, count: u64) {
        self.control.state.send_modify(|state| state.outcomes_to_drop = count);
    }

    /// Has so many settlements vanish.
    pub fn drop_settlements(&self, count: u64) {
        self.control.state.send_modify(|state| state.settlements_to_drop = count);
    }

    /// Has outcomes and deliveries come later.
    pub fn delay(&self, delay: Duration) {
        self.control.state.send_modify(|state| state.delay = delay);
    }

    /// Waits until nothing is left to vanish.
    pub async fn dropped(&self) {
        let none_left = |state: &State| state.outcomes_to_drop + state.settlements_to_drop == 0;
        let _ = self.control.state.subscribe().wait_for(none_left).await;
    }

    /// Ends the sessions for these purposes, as if the network had.
    pub async fn sever(&self, purposes: &[Purpose]) {
        let sessions: Vec<_> = self
            .control
            .sessions()
            .iter()
            .filter(|(purpose, _)| purposes.contains(purpose))
            .filter_map(|(_, session)| session.upgrade())
            .collect();
        for session in sessions {
            session.sever().await;
        }
    }

    /// Ends every sender, and leaves the sessions.
    pub fn end_senders(&self) {
        self.control.sender_ends.send_modify(|ends| *ends += 1);
    }

    /// Ends every receiver as if its channel had ended, and leaves the sessions.
    pub fn end_receivers(&self) {
        self.control.receiver_ends.send_modify(|ends| *ends += 1);
    }

    /// Ends every receiver as if the broker had cancelled it.
    pub fn cancel_receivers(&self) {
        self.control.receiver_cancels.send_modify(|ends| *ends += 1);
    }

    /// Nothing is broken any more.
    pub fn heal(&self) {
        self.control.state.send_replace(State::default());
    }
}

impl Control {
    fn sessions(&self) -> MutexGuard<'_, Vec<(Purpose, Weak<Interposed>)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes at most so many of what is to vanish.
    fn take(&self, of: fn(&mut State) -> &mut u64, at_most: usize) -> usize {
        let mut taken = 0;
        self.state.send_if_modified(|state| {
            let left = of(state);
            taken = (*left).min(at_most as u64);
            *left -= taken;
            taken > 0
        });
        usize::try_from(taken).unwrap_or(usize::MAX)
    }

    /// When what has come just now may come through.
    fn due(&self) -> Instant {
        Instant::now() + self.state.borrow().delay
    }

    /// Waits until what is due then may come through. Cancel safe.
    async fn pass(&self, due: Instant, held: fn(&State) -> bool) {
        sleep_until(due).await;
        let _ = self.state.subscribe().wait_for(|state| !held(state)).await;
    }
}

#[async_trait]
impl Transport for Between {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn connect(&self, purpose: Purpose, deadline: Instant) -> Result<Arc<dyn Session>> {
        let refused = |reason: &'static str| {
            Err(Error::new(ErrorKind::Connection, "connect").because(reason))
        };
        let reach = self.control.state.borrow().reach;
        match reach {
            Reach::Open => {}
            Reach::Refused => return refused("a test refuses it"),
            Reach::Hanging => {
                sleep_until(deadline).await;
                return refused("a test lets it hang");
            }
        }
        let session = self.inner.connect(purpose, deadline).await?;
        let session = Arc::new(Interposed::new(session, self.control.clone()));
        let mut sessions = self.control.sessions();
        sessions.retain(|(_, session)| session.strong_count() > 0);
        sessions.push((purpose, Arc::downgrade(&session)));
        Ok(session)
    }
}

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Between").field("inner", &self.inner).finish_non_exhaustive()
    }
}
