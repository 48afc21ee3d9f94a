//! The interface that transport authors implement.
//!
//! A [`Transport`] opens [`Session`]s. A session is one incarnation of a connection: it dies once
//! and never heals. With it come [`Sender`]s and [`Receiver`]s, each owned by one task of this
//! crate, which is why their methods take `&mut self`, and why they take and give batches: a wake,
//! a system call and a box for each batch is cheap, for each message it is not.
//!
//! The file names of a transport follow the questions it answers: `session.rs`, `topology.rs`,
//! `sender.rs`, `receiver.rs`, `headers.rs`, `error.rs`.

mod settings;

use std::{collections::VecDeque, fmt::Debug, num::NonZeroU16, sync::Arc};

use async_trait::async_trait;
use tokio::{sync::watch, time::Instant};

pub use self::settings::{Login, Settings};
use crate::{
    capability::Peer,
    error::{Error, ErrorKind, Result},
    message::{Message, value::Table},
    outcome::{Attempt, Disposition},
    short_str::ShortStr,
};
pub use crate::{
    deadline::{deadline, later},
    task::{guarded, spawn},
};
pub use crate::{
    message::cross_protocol,
    printable::printable,
    topology::{Change, Found},
};

/// How a broker is reached.
#[async_trait]
pub trait Transport: Debug + Send + Sync + 'static {
    /// The name in logs and errors: `memory`, `amqp091`.
    fn name(&self) -> &'static str;

    /// Opens a session, within the deadline.
    ///
    /// A refused login is [`Denied`](crate::ErrorKind::Denied), a missing virtual host
    /// [`NotFound`](crate::ErrorKind::NotFound), or `Denied` where the broker does not say why it
    /// refuses one, an unreachable broker [`Connection`](crate::ErrorKind::Connection); no error
    /// carries a credential. A refusal that passes by itself, such as a limit that is reached, is
    /// [transient](Error::is_transient).
    async fn connect(&self, purpose: Purpose, deadline: Instant) -> Result<Arc<dyn Session>>;
}

/// What a session is for: a broker that stops publishers must not stop acknowledgements with them,
/// so the two never share a connection.
///
/// Exhaustive: a session publishes, or it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Publishing.
    Publish,
    /// Consuming, and declaring.
    Consume,
}

/// One connection to a broker, from its login to its end. Dropping it closes it.
#[async_trait]
pub trait Session: Debug + Send + Sync + 'static {
    /// Who is at the other end.
    fn peer(&self) -> &Peer;

    /// Makes one change to the topology, or looks at it. Idempotent.
    ///
    /// What exists with other arguments is [`Conflict`](crate::ErrorKind::Conflict), and the error
    /// says which argument differs as far as the broker tells; what is missing is
    /// [`NotFound`](crate::ErrorKind::NotFound), and what is away for a while, with its node for
    /// instance, is [transient](Error::is_transient). A failure leaves the session, its senders and
    /// its receivers as they were.
    async fn apply(&self, change: &Change) -> Result<Found>;

    /// Opens a sender.
    async fn sender(&self, options: SenderOptions) -> Result<Box<dyn Sender>>;

    /// Starts to consume from a queue.
    async fn receiver(&self, options: ReceiverOptions) -> Result<Box<dyn Receiver>>;

    /// Whether the broker reads nothing from this session for the time being, and what it says about
    /// it: it is short of memory or disk. Never so unless a transport says otherwise.
    fn blocked(&self) -> watch::Receiver<Option<Arc<str>>> {
        watch::channel(None).1
    }

    /// Waits for the end of the session and says why it ended. Cancel safe; ready ever after.
    async fn ended(&self) -> Error;

    /// Ends the session: politely until the deadline, then at once. Twice is once.
    async fn close(&self, deadline: Instant);
}

/// How a [`Sender`] is opened.
///
/// ```
/// use std::num::NonZeroU16;
/// use enoki_core::transport::SenderOptions;
///
/// let options = SenderOptions::new(NonZeroU16::MIN);
/// assert_eq!(options.window.get(), 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SenderOptions {
    /// How many messages without an outcome the sender holds at most.
    pub window: NonZeroU16,
}

impl SenderOptions {
    /// A sender with this window.
    pub const fn new(window: NonZeroU16) -> Self {
        Self { window }
    }
}

/// How a [`Receiver`] is opened.
///
/// ```
/// use std::num::NonZeroU16;
/// use enoki_core::{ShortStr, transport::ReceiverOptions};
///
/// let options = ReceiverOptions::new(ShortStr::from_static("billing"), NonZeroU16::MIN);
/// assert!(options.name.is_none() && options.arguments.is_empty());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ReceiverOptions {
    /// The queue to consume from.
    pub queue: ShortStr,
    /// How many unsettled deliveries the broker may have given to the receiver at a time.
    pub prefetch: NonZeroU16,
    /// What an operator reads about this consumer on the broker; the transport makes a name where there
    /// is none, and may add to this one to keep it unique.
    pub name: Option<ShortStr>,
    /// Arguments of this consumer, as the broker names them. A transport that has no place for them
    /// [refuses](Self::refuse_arguments) them.
    pub arguments: Table,
}

impl ReceiverOptions {
    /// A receiver of this queue, without a name or arguments.
    pub const fn new(queue: ShortStr, prefetch: NonZeroU16) -> Self {
        Self { queue, prefetch, name: None, arguments: Table::new() }
    }

    /// Fails where there are arguments: for transports that cannot say them to the broker.
    pub fn refuse_arguments(&self, peer: &Peer) -> Result<()> {
        let Some((first, _)) = self.arguments.iter().next() else { return Ok(()) };
        Err(Error::new(ErrorKind::Unsupported, "consume from")
            .on(format!("queue {:?}", self.queue.as_str()))
            .because(format!("{peer} takes no arguments of consumers, such as {first:?}"))
            .remedy("consume without arguments"))
    }
}

/// A message on its way out.
///
/// Exhaustive on purpose: a field that is added is one that every transport has to carry.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Tells the outcome apart; never repeats on one sender.
    pub id: u64,
    /// Where to publish; empty for the default exchange.
    pub exchange: ShortStr,
    /// The routing key.
    pub routing_key: ShortStr,
    /// Whether it is an error that no queue is bound for it.
    pub mandatory: bool,
    /// The message; it always has a message id.
    pub message: Arc<Message>,
}

/// What became of one message. What has none when its sender fails is indeterminate.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishOutcome {
    /// The broker took responsibility, and if the message was mandatory, routed it to a queue.
    Confirmed,
    /// Mandatory, and no queue is bound for it.
    Unroutable,
    /// Refused; the error says by what and why.
    Rejected(Error),
}

/// A path for messages to the broker. Owned by one task.
#[async_trait]
pub trait Sender: Debug + Send + 'static {
    /// Takes messages from the front, in order, as many as have room, without waiting for outcomes.
    ///
    /// What it leaves it will take when outcomes have made room. An error means that this sender
    /// has failed, and everything it took that has no outcome yet is indeterminate. A sender that
    /// has failed may also take nothing and leave it to `outcomes` to say so, after the outcomes
    /// that are known.
    ///
    /// What has no outcome is published again, where its policy lets it, only if the error is transient. So
    /// is the error of a sender that a single message cost, and that message has its outcome: there is
    /// nothing wrong with the others.
    async fn submit(&mut self, messages: &mut VecDeque<Outgoing>) -> Result<()>;

    /// Waits for outcomes and appends them, each message's once. Cancel safe: no outcome is lost.
    ///
    /// Pending while nothing is outstanding, so that a failure of the idle sender is noticed; it
    /// never returns `Ok` with nothing appended.
    async fn outcomes(&mut self, into: &mut Vec<(u64, PublishOutcome)>) -> Result<()>;
}

/// A delivery as it comes from the broker.
///
/// Exhaustive on purpose: a field that is added is one that every transport has to fill.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// Tells it apart, on this receiver.
    pub tag: u64,
    /// The message.
    pub message: Arc<Message>,
    /// The exchange it was published to.
    pub exchange: ShortStr,
    /// The routing key it was published with.
    pub routing_key: ShortStr,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Which attempt this is.
    pub attempt: Attempt,
    /// Why the message cannot be read, if so; it is then settled without a handler.
    pub undecodable: Option<Arc<str>>,
}

/// The settlement of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settle {
    /// Which delivery.
    pub tag: u64,
    /// What the broker does with it.
    pub disposition: Disposition,
}

impl Settle {
    /// Settles this delivery by a disposition, or by the one that an outcome comes to.
    pub fn new(tag: u64, disposition: impl Into<Disposition>) -> Self {
        Self { tag, disposition: disposition.into() }
    }
}

/// Why a receiver has nothing more to give.
#[derive(Debug)]
#[non_exhaustive]
pub enum End {
    /// It was told to stop, and everything that was under way has been given.
    Stopped,
    /// The broker ended it, for instance because the queue was deleted. The session lives.
    Cancelled(Error),
    /// Its channel or its session ended. Settlements no longer count; the broker delivers again.
    Lost(Error),
}

/// A source of deliveries. Owned by one task.
#[async_trait]
pub trait Receiver: Debug + Send + 'static {
    /// Waits for deliveries and appends at most `max` of them, in the order of the queue.
    ///
    /// Cancel safe: no delivery is lost. After an end it is an end again.
    async fn receive(&mut self, into: &mut Vec<Delivered>, max: usize) -> Result<(), End>;

    /// Settles deliveries of this receiver, each at most once. Does not wait for the wire; what can
    /// be said in one frame is.
    fn settle(&mut self, settlements: &[Settle]);

    /// Whether the broker can keep a message before it delivers it again. Where it cannot, `settle`
    /// never gets a [`Disposition::Return`] with a time: core holds the delivery, and returns it without
    /// one when the time has come.
    fn delays(&self) -> bool {
        false
    }

    /// Asks the broker for no more deliveries. Those under way are still given, then
    /// [`End::Stopped`]. Idempotent.
    async fn stop(&mut self) -> Result<()>;

    /// Like [`Receiver::stop`], on a queue with a single active consumer: the broker must not make
    /// another consumer active before this receiver is closed or dropped. Otherwise that one gets the
    /// messages behind those that are still unsettled here, before those.
    ///
    /// A broker that hands the queue over as soon as it is told to stop cannot be told then. The
    /// receiver lets the broker be, ends with [`End::Stopped`] at once, and says only settlements
    /// that remove a message; what is requeued or released waits for `close`, which returns it in the
    /// order of the queue.
    ///
    /// The default is `stop`: right where stopping does not hand the queue over.
    async fn stop_last(&mut self) -> Result<()> {
        self.stop().await
    }

    /// Waits until what was settled is on its way, then closes. Unsettled deliveries go back to the
    /// queue, and count as attempts. What is received later is [`End::Stopped`].
    ///
    /// Where the queue has a single active consumer, they are back, in their order, before the next
    /// consumer gets anything. The same holds for a receiver that is dropped.
    async fn close(&mut self) -> Result<()>;
}

/// What closing may take beyond a deadline, so that the last settlements leave the process.
pub(crate) const GRACE: std::time::Duration = std::time::Duration::from_secs(1);
