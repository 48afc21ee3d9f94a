//! The socket below fe2o3-amqp: opened here, read along a little, and cut when a deadline says so.
//!
//! What it does on the way:
//!
//! - it lets no frame pass that fe2o3-amqp could fail at: see `proto/guard.rs`;
//! - it hands fe2o3-amqp every message as one opaque data section, and takes outgoing ones out of it:
//!   see `proto/decode.rs` and `proto/encode.rs` for why;
//! - it makes a login by certificate of an anonymous one: see `proto/login.rs`;
//! - it gives the two links of the management pair the one name that RabbitMQ asks for;
//! - it notes who the broker says it is, and when a link has run dry, which fe2o3-amqp does not tell;
//! - it asks a broker that is quiet for a sign that it hears: see `io/liveness.rs`;
//! - it writes to the socket what has gathered since the last time, not each frame by itself.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use enoki_core::{Error, ErrorKind};
use enoki_socket::{Stream, tls_error};
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Sleep,
};

use super::{
    link_progress::{Alarm, Links},
    liveness::{self, Pulse},
};
use crate::{
    options::Options,
    proto::{
        decode::Fault,
        frame, guard,
        inbound::{Greeting, Inbound},
        login::{self, Offer},
        outbound::Outbound,
    },
};

/// Opens the socket.
pub(crate) async fn open(options: &Options, line: &Arc<Line>) -> io::Result<Wire> {
    let socket = options.connector.connect(|| line.reached(Stage::Silent)).await?;
    Ok(Wire {
        socket,
        inbound: Inbound::new(line.links.clone(), options.max_message()),
        outbound: Outbound::default(),
        logging_in: options.user().is_none(),
        pulse: Pulse::new(Duration::from_secs(options.heartbeat.into())),
        next_beat: None,
        received: Vec::new(),
        ready: Vec::new(),
        taken: 0,
        scratch: vec![0; CHUNK].into_boxed_slice(),
        begun: Vec::new(),
        gathered: Vec::new(),
        unflushed: false,
        quiet: false,
        closing: None,
        line: line.clone(),
    })
}

/// What both ends of a socket's life share: fe2o3-amqp's task, which has it, and the session.
#[derive(Default)]
pub(crate) struct Line {
    stage: AtomicU8,
    greeting: OnceLock<Greeting>,
    /// The last channel that the broker leaves to fe2o3-amqp.
    last_channel: AtomicU16,
    /// What came that was no sound frame.
    fault: OnceLock<String>,
    /// What the broker said below AMQP, of the certificate it was shown.
    refusal: OnceLock<Error>,
    pub(crate) links: Arc<Links>,
    cut: AtomicBool,
    waker: AtomicWaker,
    ended: AtomicBool,
    ending: Notify,
}

impl Line {
    /// That of a connection whose session has this alarm.
    pub(crate) fn new(alarm: &Arc<Alarm>) -> Self {
        Self { links: Arc::new(Links::new(alarm.clone())), ..Self::default() }
    }

    /// Ends the connection at once: fe2o3-amqp sees its socket fail.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Waits until fe2o3-amqp has let go of the socket.
    pub(crate) async fn ended(&self) {
        let ending = self.ending.notified();
        tokio::pin!(ending);
        // Asked for before the look at the flag, so that no end falls in between.
        ending.as_mut().enable();
        if !self.ended.load(Ordering::Acquire) {
            ending.await;
        }
    }

    /// Who the broker said it is.
    pub(crate) fn greeting(&self) -> Greeting {
        self.greeting.get().cloned().unwrap_or_default()
    }

    /// The last channel that an AMQP session of fe2o3-amqp's may have, once the connection is open.
    pub(crate) fn last_channel(&self) -> u16 {
        self.last_channel.load(Ordering::Acquire)
    }

    /// What the broker sent that ended the connection here, if that is why.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// What the broker said of the certificate it was shown, if that is why.
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.refusal.get().cloned()
    }

    /// How far the broker went along.
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Unreachable,
            1 => Stage::Silent,
            2 => Stage::Answered,
            3 => Stage::LoggedIn,
            _ => Stage::Opened,
        }
    }

    fn reached(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }

    fn check(&self) -> io::Result<()> {
        if self.cut.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the connection was given up on this side",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("stage", &self.stage()).finish_non_exhaustive()
    }
}

/// How far a broker went along before a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No socket.
    Unreachable = 0,
    /// A socket, and not a byte.
    Silent = 1,
    /// Something came.
    Answered = 2,
    /// The login was accepted.
    LoggedIn = 3,
    /// The broker said who it is.
    Opened = 4,
}

/// The socket as fe2o3-amqp sees it.
pub(crate) struct Wire {
    socket: Stream,
    inbound: Inbound,
    outbound: Outbound,
    /// Whether the login is by certificate, and not over yet.
    logging_in: bool,
    pulse: Pulse,
    /// Wakes fe2o3-amqp's task when the pulse has something to do.
    next_beat: Option<Pin<Box<Sleep>>>,
    /// The beginning of a frame that has not all come yet.
    received: Vec<u8>,
    /// Whole frames for fe2o3-amqp, and how much of them it has.
    ready: Vec<u8>,
    taken: usize,
    scratch: Box<[u8]>,
    /// The beginning of a frame that fe2o3-amqp has not written to its end.
    begun: Vec<u8>,
    /// Whole frames for the broker.
    gathered: Vec<u8>,
    /// Whether the socket has taken more than it has sent.
    unflushed: bool,
    /// Whether nothing was written since fe2o3-amqp last asked for something to read.
    quiet: bool,
    closing: Option<Pin<Box<Sleep>>>,
    line: Arc<Line>,
}

impl Wire {
    /// Writes what has gathered. Ready means that nothing is left.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        let outcome = loop {
            let rest = self.gathered.get(written..).unwrap_or_default();
            if rest.is_empty() {
                // Encrypted, the rest of it may wait in the socket.
                let flushed = Pin::new(&mut self.socket).poll_flush(cx);
                self.unflushed = flushed.is_pending();
                break flushed;
            }
            match Pin::new(&mut self.socket).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.gathered.drain(..written);
        outcome
    }

    /// Asks the broker for a sign, or gives it up.
    fn poll_pulse(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Some(next) = self.pulse.next() {
            let sleep =
                self.next_beat.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            // Later than it was set for is soon enough: it is looked at again when it wakes.
            if next < sleep.deadline() {
                sleep.as_mut().reset(next);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                break;
            }
            let now = tokio::time::Instant::now();
            if self.pulse.beat(now, &mut self.gathered).is_err() {
                let fault = self.line.fault.get_or_init(|| DEAF.to_owned());
                return Err(io::Error::new(io::ErrorKind::TimedOut, fault.clone()));
            }
            if let Some(next) = self.pulse.next() {
                sleep.as_mut().reset(next);
            }
        }
        Ok(())
    }

    /// Takes whole frames out of what fe2o3-amqp wrote.
    fn gather(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.begun.extend_from_slice(bytes);
        self.pulse.wrote(bytes.len());
        let mut from = 0;
        loop {
            let rest = self.begun.get(from..).unwrap_or_default();
            // The peer has said what it takes.
            let length = frame::length(rest, usize::MAX)
                .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault.into_owned()))?;
            let Some(length) = length else { break };
            let Some(whole) = rest.get(..length) else { break };
            if self.logging_in && login::is_choice(whole) {
                self.gathered.extend_from_slice(login::EXTERNAL);
                self.logging_in = false;
            } else {
                self.outbound.pass(whole, &mut self.gathered);
            }
            from += length;
        }
        self.begun.drain(..from);
        Ok(())
    }

    /// Takes whole frames out of what came.
    fn receive(&mut self, count: usize) -> Result<(), Fault> {
        self.received.extend_from_slice(self.scratch.get(..count).unwrap_or_default());
        let now = tokio::time::Instant::now();
        let mut heard = false;
        let mut from = 0;
        loop {
            let rest = self.received.get(from..).unwrap_or_default();
            let Some(length) = frame::length(rest, FRAME_MAX)? else { break };
            let Some(whole) = rest.get(..length) else { break };
            guard::check(whole)?;
            from += length;
            heard |= length > liveness::HEARTBEAT.len();
            match login::offer(whole).filter(|_| self.logging_in) {
                Some(Offer::External) => {
                    self.ready.extend_from_slice(login::ANONYMOUS);
                    continue;
                }
                Some(Offer::Others(others)) => {
                    let _ = self.line.refusal.set(no_external(&others));
                    return Err("no login that this side could take".into());
                }
                None => {}
            }
            if whole == LAYER {
                self.line.reached(Stage::LoggedIn);
            }
            let before = self.ready.len();
            if self.pulse.takes(whole) {
                self.ready.extend_from_slice(liveness::HEARTBEAT);
            } else if let Some(greeting) = self.inbound.pass(whole, &mut self.ready)? {
                let open = self.ready.get_mut(before..).unwrap_or_default();
                self.line.last_channel.store(self.pulse.opened(open, now), Ordering::Release);
                let _ = self.line.greeting.set(greeting);
                self.line.reached(Stage::Opened);
            }
        }
        self.received.drain(..from);
        if heard || !self.received.is_empty() {
            self.pulse.heard(now);
        }
        Ok(())
    }
}

fn no_external(others: &str) -> Error {
    Error::new(ErrorKind::Denied, CONNECT)
        .because(format!("the broker takes no login by certificate, but {others}"))
        .remedy("set it up for EXTERNAL; RabbitMQ has a plugin for it")
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.line.waker.register(cx.waker());
        this.line.check()?;
        this.poll_pulse(cx)?;
        // fe2o3-amqp's task asks for something to read whenever it is about to wait. It may have
        // more to write a moment later, so it is asked to look once more before anything goes out.
        if !this.gathered.is_empty() || this.unflushed {
            if this.quiet || this.unflushed || this.gathered.len() >= CHUNK {
                if let Poll::Ready(Err(error)) = this.poll_write_out(cx) {
                    return Poll::Ready(Err(error));
                }
            } else {
                this.quiet = true;
                cx.waker().wake_by_ref();
            }
        }
        loop {
            let rest = this.ready.get(this.taken..).unwrap_or_default();
            if !rest.is_empty() {
                let count = rest.len().min(buf.remaining());
                buf.put_slice(rest.get(..count).unwrap_or_default());
                this.taken += count;
                if this.taken == this.ready.len() {
                    this.ready.clear();
                    this.taken = 0;
                }
                return Poll::Ready(Ok(()));
            }
            let mut chunk = ReadBuf::new(&mut this.scratch);
            match Pin::new(&mut this.socket).poll_read(cx, &mut chunk) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    if let Some(told) = tls_error(&error, CONNECT) {
                        let _ = this.line.refusal.set(told);
                    }
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => return Poll::Pending,
            }
            let count = chunk.filled().len();
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            this.line.reached(Stage::Answered);
            if let Err(fault) = this.receive(count) {
                let fault = this
                    .line
                    .fault
                    .get_or_init(|| format!("the broker sent what cannot be read: {fault}"));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault.clone())));
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.line.waker.register(cx.waker());
        this.line.check()?;
        if this.gathered.len() >= CHUNK {
            match this.poll_write_out(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if this.gathered.len() >= FULL => return Poll::Pending,
                _ => {}
            }
        }
        this.quiet = false;
        this.gather(buf)?;
        Poll::Ready(Ok(buf.len()))
    }

    /// Nothing: `poll_read` writes what has gathered.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Writes the rest, but waits for a peer that takes nothing only so long.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.line.check().is_ok()
            && let Poll::Pending = this.poll_write_out(cx)
        {
            let closing =
                this.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_WORDS)));
            if closing.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.line.ended.store(true, Ordering::Release);
        self.line.ending.notify_waiters();
    }
}

const DEAF: &str = "the broker did not answer, although its heartbeats came: it hears nothing";

pub(crate) const CONNECT: &str = "connect to";

/// What names the layer that follows the login.
const LAYER: &[u8] = b"AMQP\x00\x01\x00\x00";

/// The frames this side takes: as large as RabbitMQ writes them unless told otherwise.
pub(crate) const FRAME_MAX: usize = 131_072;

/// How much is read or written at a time.
const CHUNK: usize = 64 * 1024;

/// How much may wait for a peer that reads slower than this side writes.
const FULL: usize = 512 * 1024;

/// How long a peer that takes nothing may keep a connection from ending.
const LAST_WORDS: Duration = Duration::from_secs(1);
