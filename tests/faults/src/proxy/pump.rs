//! One direction of one connection.

use std::{collections::VecDeque, future::pending, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{Act, Cut, Direction, Flow, Shared, frame::Splitter, rule};

/// What the two directions of a connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Line {
    to_broker: watch::Sender<State>,
    from_broker: watch::Sender<State>,
}

/// What became of one direction of one connection.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    held: bool,
    half_closed: bool,
}

impl Line {
    fn of(&self, direction: Direction) -> &watch::Sender<State> {
        match direction {
            Direction::ToBroker => &self.to_broker,
            Direction::FromBroker => &self.from_broker,
        }
    }

    /// Ends one direction, politely.
    pub(super) fn half_close(&self, direction: Direction) {
        self.of(direction).send_modify(|state| state.half_closed = true);
    }
}

/// Moves bytes in one direction: frame by frame in, and out when they are due.
pub(super) struct Pump<'l> {
    shared: &'l Shared,
    line: &'l Line,
    direction: Direction,
    random: fastrand::Rng,
    splitter: Splitter,
    queue: VecDeque<(Instant, Item)>,
    queued: usize,
    /// What comes now vanishes.
    dropping: bool,
}

enum Item {
    Bytes(Bytes),
    Cut(Cut),
    /// Nothing passes from here on.
    Stop,
    /// No more will come.
    End,
}

impl<'l> Pump<'l> {
    pub(super) fn new(
        shared: &'l Shared,
        line: &'l Line,
        direction: Direction,
        connection: u64,
    ) -> Self {
        let seed = shared.seed ^ (connection << 1 | u64::from(direction == Direction::ToBroker));
        Self {
            shared,
            line,
            direction,
            random: fastrand::Rng::with_seed(seed),
            splitter: Splitter::new(direction),
            queue: VecDeque::new(),
            queued: 0,
            dropping: false,
        }
    }

    /// Runs until this direction has ended, or the connection is to be cut.
    pub(super) async fn run(
        mut self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
    ) -> Result<(), Cut> {
        let mut flow = self.shared.flow(self.direction).subscribe();
        let mut state = self.line.of(self.direction).subscribe();
        let mut buffer = BytesMut::with_capacity(READ);
        let mut open = true;
        loop {
            let (now, is) = (*flow.borrow_and_update(), *state.borrow_and_update());
            if is.half_closed {
                let _ = to.shutdown().await;
                return discard(from).await;
            }
            let due = self.queue.front().map(|(due, _)| *due).filter(|_| !now.held && !is.held);
            tokio::select! {
                biased;
                _ = flow.changed() => {}
                _ = state.changed() => {}
                () = at(due) => match self.queue.pop_front() {
                    Some((_, Item::Bytes(bytes))) => {
                        self.queued = self.queued.saturating_sub(bytes.len());
                        write(&mut to, &bytes, flow.clone()).await?;
                    }
                    Some((_, Item::Cut(Cut::Half(direction)))) => self.line.half_close(direction),
                    Some((_, Item::Cut(cut))) => return Err(cut),
                    Some((_, Item::Stop)) => {
                        self.line.of(self.direction).send_modify(|state| state.held = true);
                    }
                    Some((_, Item::End)) => {
                        let _ = to.shutdown().await;
                        return Ok(());
                    }
                    None => {}
                },
                read = from.read_buf(&mut buffer), if open && self.queued < LIMIT => {
                    let bytes = read.map_err(|_| Cut::Reset)?;
                    open = bytes > 0;
                    self.splitter.feed(&buffer);
                    buffer.clear();
                    self.take_in(now);
                    if !open {
                        let rest = self.splitter.rest();
                        self.pass(rest, now);
                        self.push(Item::End, now);
                    }
                }
            }
        }
    }

    fn take_in(&mut self, flow: Flow) {
        while let Some((kind, frame)) = self.splitter.next() {
            let act = self.shared.judge(self.direction, kind);
            match act {
                None | Some(Act::Pass) => self.pass(frame, flow),
                Some(Act::Drop) => {}
                Some(Act::DropRest) => self.dropping = true,
                Some(Act::HoldAnswers) => {
                    // Before the frame goes out: its answer cannot be here yet.
                    let answers = self.direction.opposite();
                    self.line.of(answers).send_modify(|state| state.held = true);
                    self.pass(frame, flow);
                }
                Some(Act::Hold) => {
                    self.push(Item::Stop, flow);
                    self.pass(frame, flow);
                }
                Some(Act::Cut(cut)) => self.push(Item::Cut(cut), flow),
                Some(Act::CutInside(cut)) => {
                    self.pass(frame.slice(..frame.len() / 2), flow);
                    self.push(Item::Cut(cut), flow);
                }
            }
        }
    }

    fn pass(&mut self, bytes: Bytes, flow: Flow) {
        if self.dropping || bytes.is_empty() {
            return;
        }
        let cut = rule::count(&mut self.shared.after_bytes(), self.direction, bytes.len());
        let passing = cut.map_or(bytes.len(), |(passing, _)| passing);
        self.queued += passing;
        self.push(Item::Bytes(bytes.slice(..passing)), flow);
        if let Some((_, cut)) = cut {
            self.push(Item::Cut(cut), flow);
            self.dropping = true;
        }
    }

    fn push(&mut self, item: Item, flow: Flow) {
        let jitter = Duration::from_secs_f64(flow.jitter.as_secs_f64() * 2.0 * self.random.f64());
        let due = Instant::now() + (flow.delay + jitter).saturating_sub(flow.jitter);
        // TCP keeps the order, whatever each packet's fate.
        let due = self.queue.back().map_or(due, |(last, _)| due.max(*last));
        self.queue.push_back((due, item));
    }
}

async fn at(due: Option<Instant>) {
    match due {
        // A timer has a grain of a millisecond.
        Some(due) if due <= Instant::now() => {}
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Writes at the pace of the moment, which may change meanwhile.
async fn write(
    to: &mut WriteHalf<'_>,
    mut bytes: &[u8],
    mut flow: watch::Receiver<Flow>,
) -> Result<(), Cut> {
    while !bytes.is_empty() {
        let now = *flow.borrow_and_update();
        if now.held {
            let _ = flow.changed().await;
            continue;
        }
        let (piece, wait) = now.piece(bytes.len());
        let (piece, rest) = bytes.split_at(piece);
        to.write_all(piece).await.map_err(|_| Cut::Reset)?;
        bytes = rest;
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
    Ok(())
}

/// Reads and drops, until there is no more.
async fn discard(mut from: ReadHalf<'_>) -> Result<(), Cut> {
    let mut unread = [0; 4096];
    while from.read(&mut unread).await.map_err(|_| Cut::Reset)? > 0 {}
    Ok(())
}

/// At a time.
const READ: usize = 64 * 1024;

/// How much may wait before the proxy stops to read: as on a network, the sender notices.
const LIMIT: usize = 4 * 1024 * 1024;
