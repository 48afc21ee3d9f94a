//! A TCP relay between a program and a broker, which can do to the bytes what a bad network does,
//! and to single AMQP frames what no network can be asked for.

mod door;
mod flow;
mod frame;
mod pump;
mod relay;
mod rule;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, task::AbortHandle};

use self::rule::{AfterBytes, Waiting};
pub use self::{
    flow::Flow,
    frame::Kind,
    rule::{Act, Armed},
};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the program to the broker.
    ToBroker,
    /// From the broker to the program.
    FromBroker,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::ToBroker, Self::FromBroker];

    /// The other one.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::ToBroker => Self::FromBroker,
            Self::FromBroker => Self::ToBroker,
        }
    }
}

/// What happens to those who connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// They reach the broker.
    Open,
    /// No socket listens: connection refused.
    Refusing,
    /// They are connected, and the proxy connects to no broker.
    Hanging,
}

/// How connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// At once, both sides told by a reset.
    Reset,
    /// Both sides told that no more will come, as if each had closed.
    Fin,
    /// The reader in this direction gets an end of file; the other direction
    /// goes on.
    Half(Direction),
}

/// What has passed a proxy.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    frames: BTreeMap<(Direction, Kind), u64>,
    /// Connections since the start.
    pub accepted: u64,
    /// Connections now.
    pub open: u64,
}

impl Traffic {
    /// How many frames of this kind have arrived in this direction, dropped ones too.
    pub fn frames(&self, direction: Direction, kind: Kind) -> u64 {
        self.frames.get(&(direction, kind)).copied().unwrap_or_default()
    }
}

/// A relay on a port of its own, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    /// What chance decides, such as jitter, follows from this and the number of the connection.
    seed: u64,
    door: watch::Sender<Door>,
    /// The door as it is; what is asked for takes a moment.
    door_is: watch::Sender<Door>,
    to_broker: watch::Sender<Flow>,
    from_broker: watch::Sender<Flow>,
    cuts: watch::Sender<Option<Cut>>,
    rules: Mutex<Vec<Waiting>>,
    after_bytes: Mutex<Vec<AfterBytes>>,
    traffic: watch::Sender<Traffic>,
}

impl Shared {
    fn flow(&self, direction: Direction) -> &watch::Sender<Flow> {
        match direction {
            Direction::ToBroker => &self.to_broker,
            Direction::FromBroker => &self.from_broker,
        }
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn after_bytes(&self) -> MutexGuard<'_, Vec<AfterBytes>> {
        self.after_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a frame, and says what a rule wants done to it.
    fn judge(&self, direction: Direction, kind: Kind) -> Option<Act> {
        let act = rule::judge(&mut self.rules(), direction, kind);
        // Last, so that who waits for the frame finds the rule gone.
        self.traffic.send_modify(|traffic| {
            *traffic.frames.entry((direction, kind)).or_default() += 1;
        });
        act
    }
}

impl Proxy {
    /// A relay to this broker.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        Self::seeded(upstream, 0).await
    }

    /// A relay whose chance, such as jitter, follows from a seed.
    pub async fn seeded(upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let door = door::Listener::bind()?;
        let address = door.address();
        let shared = Arc::new(Shared {
            upstream,
            seed,
            door: watch::Sender::new(Door::Open),
            door_is: watch::Sender::new(Door::Open),
            to_broker: watch::Sender::new(Flow::free()),
            from_broker: watch::Sender::new(Flow::free()),
            cuts: watch::Sender::new(None),
            rules: Mutex::default(),
            after_bytes: Mutex::default(),
            traffic: watch::Sender::new(Traffic::default()),
        });
        let task = tokio::spawn(door.keep(shared.clone())).abort_handle();
        Ok(Self { address, shared, task })
    }

    /// Where to connect instead of to the broker.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The broker's URL with this proxy in the place of its host and port.
    pub fn url(&self, broker: &str) -> String {
        let (scheme, rest) = broker.split_once("://").unwrap_or(("amqp091", broker));
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let login =
            authority.rsplit_once('@').map_or(String::new(), |(login, _)| format!("{login}@"));
        format!("{scheme}://{login}{}{path}", self.address)
    }

    /// Opens or closes the door to new connections, and returns when that has happened. Those
    /// that there are stay.
    pub async fn door(&self, door: Door) {
        let mut door_is = self.shared.door_is.subscribe();
        self.shared.door.send_replace(door);
        let _ = door_is.wait_for(|is| *is == door).await;
    }

    /// How bytes flow in one direction from now on, in every connection.
    pub fn flow(&self, direction: Direction, flow: Flow) {
        self.shared.flow(direction).send_replace(flow);
    }

    /// Lets everything pass again, both ways, and everybody in. Rules stay.
    pub async fn heal(&self) {
        for direction in Direction::BOTH {
            self.flow(direction, Flow::free());
        }
        self.door(Door::Open).await;
    }

    /// Cuts every connection that there is.
    pub fn cut(&self, cut: Cut) {
        self.shared.cuts.send_replace(Some(cut));
    }

    /// Does something to the `nth` frame of a kind from now on, 1 being the next; once.
    pub fn arm(&self, direction: Direction, kind: Kind, nth: u64, act: Act) -> Armed {
        let (waiting, armed) = rule::arm(direction, kind, nth, act);
        self.shared.rules().push(waiting);
        armed
    }

    /// Cuts a connection after so many bytes more in this direction, wherever in a frame that is. All
    /// connections count; the one that carries the next byte is cut, without it.
    pub fn cut_after(&self, direction: Direction, bytes: u64, cut: Cut) -> Armed {
        let (rule, armed) = rule::after_bytes(direction, bytes, cut);
        self.shared.after_bytes().push(rule);
        armed
    }

    /// Forgets the rules that have not come to anything.
    pub fn disarm(&self) {
        self.shared.rules().clear();
        self.shared.after_bytes().clear();
    }

    /// What has passed so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic.borrow().clone()
    }

    /// Waits until this is true of what has passed.
    pub async fn until(&self, is_so: impl FnMut(&Traffic) -> bool) {
        let _ = self.shared.traffic.subscribe().wait_for(is_so).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
