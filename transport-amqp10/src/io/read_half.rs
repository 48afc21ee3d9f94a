//! The way from the socket to fe2o3-amqp: frames are put together, checked, changed, and handed out.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use enoki_amqp::Stream;
use enoki_core::{Error, ErrorKind};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Instant,
};

use super::{
    link_progress::AttachedLinks,
    liveness::{self, Liveness},
    socket_state::{SocketState, Stage},
};
use crate::{
    error::CONNECT,
    limits::{CHUNK, FRAME_MAX},
    proto::{
        event::InboundEvent,
        fault::Fault,
        frame, guard,
        inbound::Inbound,
        login::{self, Offer},
    },
};

/// Reads frames from the socket, and hands them out to fe2o3-amqp.
///
/// A byte is in `scratch`, then in `received`, then in `ready`. Between two calls `received` holds less than
/// one frame, and `ready` holds whole frames, of which fe2o3-amqp has read the first `taken` bytes. `ready`
/// is empty when all are read.
#[derive(Debug)]
pub(super) struct ReadHalf {
    scratch: Box<[u8]>,
    /// The beginning of a frame whose rest has not come yet.
    received: Vec<u8>,
    ready: Vec<u8>,
    taken: usize,
    inbound: Inbound,
    attached: AttachedLinks,
    /// Empty between two calls; kept for its memory.
    events: Vec<InboundEvent>,
}

impl ReadHalf {
    pub(super) fn new(max_message: usize) -> Self {
        Self {
            scratch: vec![0; CHUNK].into_boxed_slice(),
            received: Vec::new(),
            ready: Vec::new(),
            taken: 0,
            inbound: Inbound::new(max_message),
            attached: AttachedLinks::default(),
            events: Vec::new(),
        }
    }

    /// Gives fe2o3-amqp bytes of whole frames. Returns false if there are none.
    pub(super) fn hand_out(&mut self, into: &mut ReadBuf<'_>) -> bool {
        let rest = self.ready.get(self.taken..).unwrap_or_default();
        if rest.is_empty() {
            return false;
        }
        let count = rest.len().min(into.remaining());
        into.put_slice(rest.get(..count).unwrap_or_default());
        self.taken += count;
        if self.taken == self.ready.len() {
            self.ready.clear();
            self.taken = 0;
        }
        true
    }

    /// Reads from the socket into `scratch`, and returns how many bytes; 0 at its end.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Stream,
    ) -> Poll<io::Result<usize>> {
        let mut chunk = ReadBuf::new(&mut self.scratch);
        Pin::new(socket).poll_read(cx, &mut chunk).map_ok(|()| chunk.filled().len())
    }

    /// Takes so many bytes out of `scratch`, and makes the frames that are whole ready for fe2o3-amqp. A
    /// fault ends the connection.
    pub(super) fn receive(
        &mut self,
        count: usize,
        is_logging_in: bool,
        liveness: &mut Liveness,
        state: &SocketState,
    ) -> Result<(), Fault> {
        self.received.extend_from_slice(self.scratch.get(..count).unwrap_or_default());
        let now = Instant::now();
        let mut heard = false;
        let mut from = 0;
        loop {
            let rest = self.received.get(from..).unwrap_or_default();
            let Some(length) = frame::length(rest, FRAME_MAX)? else { break };
            let Some(whole) = rest.get(..length) else { break };
            guard::check(whole)?;
            from += length;
            heard |= length > liveness::HEARTBEAT.len();
            match login::offer(whole).filter(|_| is_logging_in) {
                Some(Offer::External) => {
                    self.ready.extend_from_slice(login::ANONYMOUS);
                    continue;
                }
                Some(Offer::Others(others)) => {
                    state.refused(no_external(&others));
                    return Err("no login that this side could take".into());
                }
                None => {}
            }
            if whole == AMQP_HEADER {
                state.reached(Stage::LoggedIn);
            }
            if liveness.takes(whole) {
                self.ready.extend_from_slice(liveness::HEARTBEAT);
                continue;
            }
            let before = self.ready.len();
            self.inbound.pass(whole, &mut self.ready, &mut self.events)?;
            for event in self.events.drain(..) {
                match event {
                    InboundEvent::Opened(peer_properties) => {
                        let open = self.ready.get_mut(before..).unwrap_or_default();
                        state.opened(peer_properties, liveness.opened(open, now));
                    }
                    InboundEvent::Attached(link, name) => {
                        self.attached.attached(link, &name, &state.links);
                    }
                    InboundEvent::Delivered(link) => self.attached.delivered(link),
                    InboundEvent::Drained(link) => self.attached.drained(link),
                    InboundEvent::Detached(link) => self.attached.detached(link),
                    InboundEvent::SessionEnded(channel) => {
                        state.session_ended();
                        self.attached.session_ended(channel);
                    }
                    InboundEvent::Blocked(is_blocked) => state.blocked(is_blocked),
                }
            }
        }
        self.received.drain(..from);
        if heard || !self.received.is_empty() {
            liveness.heard(now);
        }
        Ok(())
    }
}

fn no_external(others: &str) -> Error {
    Error::new(ErrorKind::Denied, CONNECT)
        .because(format!("the broker takes no login by certificate, but {others}"))
        .remedy("set it up for EXTERNAL; RabbitMQ has a plugin for it")
}

/// The protocol header of AMQP itself (§2.2), which the broker sends when the login is over.
const AMQP_HEADER: &[u8] = b"AMQP\x00\x01\x00\x00";
