//! Queues to declare.

use std::{fmt, time::Duration};

use super::{check_declarable, check_raw, refuse};
use crate::{
    error::Result,
    message::value::{Table, Value},
    short_str::ShortStr,
};

/// How a broker keeps a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueKind {
    /// On one node; RabbitMQ calls it classic.
    Classic,
    /// Replicated over nodes; RabbitMQ calls it quorum.
    Replicated,
}

/// What happens to a message that a full queue has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The oldest message goes, dead-lettered where that is configured.
    DropHead,
    /// The new message is refused, and its publisher told.
    RejectPublish,
    /// The new message is refused, its publisher told, and the message dead-lettered. Not on replicated
    /// queues: RabbitMQ would drop their oldest message instead.
    RejectPublishDeadLetter,
}

impl Overflow {
    /// All of them.
    pub const ALL: &[Self] = &[Self::DropHead, Self::RejectPublish, Self::RejectPublishDeadLetter];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DropHead => "drop-head",
            Self::RejectPublish => "reject-publish",
            Self::RejectPublishDeadLetter => "reject-publish-dlx",
        }
    }
}

/// Where messages go that a queue rejects, expires or drops.
///
/// What it names is declared in the same [`Topology`](crate::Topology), or has to be there: it is looked
/// for whenever the queue is declared, and missing is [`NotFound`](crate::ErrorKind::NotFound), since
/// brokers drop dead letters without an exchange and report it to no client. Whether a queue is bound to
/// an exchange that is only named here is not known.
///
/// Exhaustive: an exchange and a key are the whole of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The exchange that gets them; empty for the default exchange, which needs a key.
    pub exchange: ShortStr,
    /// The routing key they get; their own when `None`. For the default exchange the name of a queue.
    pub routing_key: Option<ShortStr>,
}

impl DeadLetter {
    /// To the queue of this name, by the default exchange.
    pub const fn to_queue(name: ShortStr) -> Self {
        Self { exchange: ShortStr::EMPTY, routing_key: Some(name) }
    }
}

/// A queue to declare: durable and without limits unless said otherwise.
///
/// ```
/// use enoki_core::QueueSpec;
///
/// let mut billing = QueueSpec::new("billing")?;
/// billing.max_length = Some(10_000);
/// assert!(QueueSpec::new("x".repeat(256)).is_err());
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QueueSpec {
    /// The name.
    pub name: ShortStr,
    /// How the broker keeps it.
    pub kind: QueueKind,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether only the connection that declares it may use it; it goes with the connection.
    pub exclusive: bool,
    /// Whether it goes when its last consumer goes.
    pub auto_delete: bool,
    /// Whether it must be there already: it is looked for by name, and never created.
    pub passive: bool,
    /// Whether each [`Broker`](crate::Broker) handle has its own, told apart by a suffix that the
    /// handle adds to the name. Transports never see it set.
    pub unique: bool,
    /// How long a message waits in it.
    pub message_ttl: Option<Duration>,
    /// How long it stays without being used.
    pub expires: Option<Duration>,
    /// How many messages it holds.
    pub max_length: Option<u32>,
    /// How many bytes of bodies it holds.
    pub max_bytes: Option<u64>,
    /// What happens to a message too many.
    pub overflow: Option<Overflow>,
    /// Where rejected, expired and dropped messages go.
    pub dead_letter: Option<DeadLetter>,
    /// The highest priority it tells apart.
    pub max_priority: Option<u8>,
    /// Whether one consumer at a time gets its messages; see
    /// [`WorkQueue::single_active_consumer`](crate::WorkQueue::single_active_consumer).
    pub single_active_consumer: bool,
    /// How many failed deliveries a message may have before it is dead-lettered; any number when
    /// `None`. Refused without [`dead_letter`](Self::dead_letter): the broker would remove the message.
    pub delivery_limit: Option<u32>,
    /// Further arguments, as the broker names them. One that has a field here is refused.
    pub arguments: Table,
}

impl QueueSpec {
    /// The `x-delivery-limit` of a replicated queue that has none: a number of failures that no message
    /// reaches.
    ///
    /// It is the same on every version, because a queue outlives the version that it was declared on.
    /// The -1 by which RabbitMQ 4 says "no limit" removes a message after its first failure on RabbitMQ
    /// 3, and a cluster that is upgraded runs both for a while.
    pub const NO_DELIVERY_LIMIT: i64 = 1_000_000_000_000_000;

    /// A durable queue on one node. The name has 1 to 255 bytes and does not begin with `amq.`.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = ShortStr::named("queue", name)?;
        check_declarable("queue", &name)?;
        Ok(Self::named(name))
    }

    pub(crate) fn named(name: ShortStr) -> Self {
        Self {
            name,
            kind: QueueKind::Classic,
            durable: true,
            exclusive: false,
            auto_delete: false,
            passive: false,
            unique: false,
            message_ttl: None,
            expires: None,
            max_length: None,
            max_bytes: None,
            overflow: None,
            dead_letter: None,
            max_priority: None,
            single_active_consumer: false,
            delivery_limit: None,
            arguments: Table::new(),
        }
    }

    /// Refuses what brokers would: limits that limit nothing, and times that are none.
    pub(crate) fn check(&self) -> Result<()> {
        for (field, time) in [("message_ttl", self.message_ttl), ("expires", self.expires)] {
            let millis = time.map_or(1, |time| time.as_millis());
            if millis == 0 || millis > u32::MAX.into() {
                let reason = format!("{field} is {time:?}; it has to be from 1 ms to 49.7 days");
                return Err(refuse(self.subject(), reason));
            }
        }
        if self.max_priority == Some(0) {
            return Err(refuse(self.subject(), "max_priority is 0; it has to be from 1 to 255"));
        }
        if self.delivery_limit.is_some() && self.dead_letter.is_none() && !self.passive {
            return Err(refuse(self.subject(), LIMIT_WITHOUT_DEAD_LETTERS)
                .remedy("say where its dead letters go, or set no delivery limit"));
        }
        let nowhere = |target: &DeadLetter| {
            target.exchange.is_empty() && target.routing_key.as_deref().is_none_or(str::is_empty)
        };
        if self.dead_letter.as_ref().is_some_and(nowhere) {
            return Err(refuse(self.subject(), "its dead letters go to the queue without a name")
                .remedy("name a queue as their routing key, or an exchange"));
        }
        if self.kind == QueueKind::Replicated
            && self.overflow == Some(Overflow::RejectPublishDeadLetter)
        {
            return Err(refuse(
                self.subject(),
                "a replicated queue does not dead-letter what it refuses: it would drop its oldest message",
            ));
        }
        check_raw(&self.arguments, TYPED_ARGUMENTS, self.subject())
    }

    /// What this queue is asked for beyond a durable, classic queue of its name: each option once.
    ///
    /// For transports that keep options one by one: see [`QueueOption`].
    pub fn options(&self) -> impl Iterator<Item = QueueOption<'_>> {
        // Without `..`: a new field does not compile before it is an option here.
        let Self {
            name: _,
            kind,
            durable,
            exclusive,
            auto_delete,
            passive: _,
            unique: _,
            message_ttl,
            expires,
            max_length,
            max_bytes,
            overflow,
            dead_letter,
            max_priority,
            single_active_consumer,
            delivery_limit,
            arguments,
        } = self;
        let options = [
            match kind {
                QueueKind::Classic => None,
                QueueKind::Replicated => Some(QueueOption::Replicated),
            },
            (!durable).then_some(QueueOption::Transient),
            exclusive.then_some(QueueOption::Exclusive),
            auto_delete.then_some(QueueOption::AutoDelete),
            message_ttl.map(QueueOption::MessageTtl),
            expires.map(QueueOption::Expires),
            max_length.map(QueueOption::MaxLength),
            max_bytes.map(QueueOption::MaxBytes),
            overflow.map(QueueOption::Overflow),
            dead_letter.as_ref().map(QueueOption::DeadLetter),
            max_priority.map(QueueOption::MaxPriority),
            single_active_consumer.then_some(QueueOption::SingleActiveConsumer),
            delivery_limit.map(QueueOption::DeliveryLimit),
        ];
        let arguments = arguments.iter().map(|(name, value)| QueueOption::Argument(name, value));
        options.into_iter().flatten().chain(arguments)
    }

    /// The queue as AMQP declares it.
    ///
    /// The type of the queue is always said, since a virtual host may have another default. A replicated
    /// queue without a limit gets a delivery limit that no message reaches, since RabbitMQ 4 removes
    /// messages after 20 failures where no limit is set.
    pub fn declaration(&self) -> QueueDeclaration {
        let mut declared = QueueDeclaration {
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: self.arguments.clone(),
        };
        let mut set = |name, value: Value| {
            declared.arguments.set(ShortStr::from_static(name), value);
        };
        set("x-queue-type", "classic".into());
        for option in self.options() {
            match option {
                QueueOption::Replicated => {
                    set("x-queue-type", "quorum".into());
                    let limit = self.delivery_limit.map(Value::from);
                    set("x-delivery-limit", limit.unwrap_or(Value::Int(Self::NO_DELIVERY_LIMIT)));
                }
                QueueOption::Transient => declared.durable = false,
                QueueOption::Exclusive => declared.exclusive = true,
                QueueOption::AutoDelete => declared.auto_delete = true,
                QueueOption::MessageTtl(time) => set("x-message-ttl", millis(time)),
                QueueOption::Expires(time) => set("x-expires", millis(time)),
                QueueOption::MaxLength(messages) => set("x-max-length", messages.into()),
                QueueOption::MaxBytes(bytes) => {
                    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                    set("x-max-length-bytes", Value::Int(bytes));
                }
                QueueOption::Overflow(overflow) => set("x-overflow", overflow.as_str().into()),
                QueueOption::DeadLetter(DeadLetter { exchange, routing_key }) => {
                    set("x-dead-letter-exchange", exchange.clone().into());
                    if let Some(key) = routing_key {
                        set("x-dead-letter-routing-key", key.clone().into());
                    }
                }
                QueueOption::MaxPriority(highest) => set("x-max-priority", highest.into()),
                QueueOption::SingleActiveConsumer => {
                    set("x-single-active-consumer", Value::Bool(true));
                }
                QueueOption::DeliveryLimit(limit) => set("x-delivery-limit", limit.into()),
                // It is there from the start, so that a typed option goes before it.
                QueueOption::Argument(..) => {}
            }
        }
        declared
    }

    /// All arguments as RabbitMQ and its kin get them (`x-message-ttl` and so on): those of the
    /// [`declaration`](Self::declaration).
    pub fn wire_arguments(&self) -> Table {
        self.declaration().arguments
    }

    /// How an error names it.
    pub fn subject(&self) -> String {
        format!("queue {:?}", self.name.as_str())
    }
}

/// One option of a queue.
///
/// It is exhaustive on purpose. A transport that keeps options one by one matches on it without a `_`;
/// when an option is added, such a transport does not compile before it keeps or refuses it.
///
/// ```
/// use std::time::Duration;
/// use enoki_core::{QueueOption, QueueSpec};
///
/// let mut billing = QueueSpec::new("billing")?;
/// assert_eq!(billing.options().count(), 0);
/// billing.message_ttl = Some(Duration::from_secs(60));
/// let options: Vec<_> = billing.options().collect();
/// assert_eq!(options, [QueueOption::MessageTtl(Duration::from_secs(60))]);
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum QueueOption<'a> {
    /// It is [replicated](QueueKind::Replicated).
    Replicated,
    /// It does not survive a restart of the broker.
    Transient,
    /// Only the connection that declares it may use it.
    Exclusive,
    /// It goes when its last consumer goes.
    AutoDelete,
    /// How long a message waits in it.
    MessageTtl(Duration),
    /// How long it stays without being used.
    Expires(Duration),
    /// How many messages it holds.
    MaxLength(u32),
    /// How many bytes of bodies it holds.
    MaxBytes(u64),
    /// What happens to a message that a full queue has no room for.
    Overflow(Overflow),
    /// Where rejected, expired and dropped messages go.
    DeadLetter(&'a DeadLetter),
    /// The highest priority it tells apart.
    MaxPriority(u8),
    /// One consumer at a time gets its messages.
    SingleActiveConsumer,
    /// How many failed deliveries a message may have.
    DeliveryLimit(u32),
    /// A further argument, as the broker names it.
    Argument(&'a ShortStr, &'a Value),
}

impl fmt::Display for QueueOption<'_> {
    /// What it asks a broker for: `dead letters`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replicated => "replication",
            Self::Transient => "transience",
            Self::Exclusive => "exclusiveness to one connection",
            Self::AutoDelete => "end with the last consumer",
            Self::MessageTtl(_) => "time to live of messages",
            Self::Expires(_) => "expiry when it is unused",
            Self::MaxLength(_) => "maximum length",
            Self::MaxBytes(_) => "maximum of bytes",
            Self::Overflow(_) => "overflow",
            Self::DeadLetter(_) => "dead letters",
            Self::MaxPriority(_) => "priorities",
            Self::SingleActiveConsumer => "single active consumer",
            Self::DeliveryLimit(_) => "delivery limit",
            Self::Argument(name, _) => return write!(f, "argument {:?}", name.as_str()),
        })
    }
}

/// A queue as AMQP declares it: see [`QueueSpec::declaration`].
///
/// It is exhaustive on purpose: a transport that takes it apart without `..` does not compile when a flag
/// is added.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueDeclaration {
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether only the connection that declares it may use it.
    pub exclusive: bool,
    /// Whether it goes when its last consumer goes.
    pub auto_delete: bool,
    /// All arguments, as RabbitMQ names them.
    pub arguments: Table,
}

/// The arguments that have a typed form, and what says so.
pub(crate) const TYPED_ARGUMENTS: &[(&str, &str)] = &[
    (
        "x-queue-type",
        "x-queue-type is said by the type: WorkQueue, ReplicatedQueue, or QueueSpec::kind",
    ),
    ("x-message-ttl", "x-message-ttl is said by message_ttl"),
    ("x-expires", "x-expires is said by expires"),
    ("x-max-length", "x-max-length is said by max_length"),
    ("x-max-length-bytes", "x-max-length-bytes is said by max_bytes"),
    ("x-overflow", "x-overflow is said by overflow"),
    ("x-dead-letter-exchange", "x-dead-letter-exchange is said by dead_letter"),
    ("x-dead-letter-routing-key", "x-dead-letter-routing-key is said by dead_letter_as"),
    ("x-max-priority", "x-max-priority is said by max_priority"),
    ("x-single-active-consumer", "x-single-active-consumer is said by single_active_consumer"),
    ("x-delivery-limit", "x-delivery-limit is said by delivery_limit"),
];

pub(crate) const LIMIT_WITHOUT_DEAD_LETTERS: &str =
    "a delivery limit without dead letters would remove messages";

/// Whole milliseconds, rounded up: zero would mean at once, and a program that asks for less than a
/// millisecond does not mean that.
fn millis(duration: Duration) -> Value {
    Value::Int(i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX))
}
