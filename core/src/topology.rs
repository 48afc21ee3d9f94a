//! What a program wants to exist on the broker, as values: the run-time side of the typed constants.

use std::{fmt, time::Duration};

use crate::{
    error::{Error, ErrorKind, Result},
    exchange::Exchange,
    payload::Payload,
    queue::Queue,
    short_str::ShortStr,
    value::{Table, Value},
};

/// How an exchange routes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeKind {
    /// To the queues bound with exactly the routing key.
    Direct,
    /// To every bound queue.
    Fanout,
    /// To the queues whose pattern matches the routing key.
    Topic,
    /// To the queues whose binding arguments match the headers.
    Headers,
    /// By a plugin of the broker, under the plugin's name for it: `x-consistent-hash`.
    Plugin(ShortStr),
}

impl ExchangeKind {
    /// The name of the kind on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::Plugin(name) => name,
        }
    }
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An exchange to declare: durable and open to publishers unless said otherwise.
///
/// ```
/// use enoki_core::{ExchangeKind, ExchangeSpec};
///
/// let shop = ExchangeSpec::new("shop", ExchangeKind::Topic)?;
/// assert!(shop.durable);
/// assert!(ExchangeSpec::new("amq.mine", ExchangeKind::Topic).is_err());
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ExchangeSpec {
    /// The name; empty for the default exchange, which is never declared.
    pub name: ShortStr,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether it goes when its last binding goes.
    pub auto_delete: bool,
    /// Whether only other exchanges may publish to it.
    pub internal: bool,
    /// Whether it must be there already: it is looked for by name, and never created.
    pub passive: bool,
    /// The exchange that gets what this one cannot route.
    pub alternate: Option<ShortStr>,
    /// Further arguments, as the broker names them.
    pub arguments: Table,
}

impl ExchangeSpec {
    /// A durable exchange. The name has 1 to 255 bytes and does not begin with `amq.`.
    pub fn new(name: impl Into<String>, kind: ExchangeKind) -> Result<Self> {
        let name = ShortStr::named("exchange", name)?;
        check_declarable("exchange", &name)?;
        Ok(Self::existing(name, kind))
    }

    /// An exchange that the broker brings along: the default exchange (the empty name), `amq.topic`.
    pub fn existing(name: ShortStr, kind: ExchangeKind) -> Self {
        Self {
            name,
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            passive: false,
            alternate: None,
            arguments: Table::new(),
        }
    }

    /// The exchange that routes to the queue named by the routing key.
    pub fn default_exchange() -> Self {
        Self::existing(ShortStr::EMPTY, ExchangeKind::Direct)
    }

    /// Whether the broker has it from the start, so that it is never declared.
    pub fn is_predeclared(&self) -> bool {
        self.name.is_empty() || self.name.starts_with("amq.")
    }

    /// All arguments as the broker gets them, the alternate exchange among them.
    pub fn wire_arguments(&self) -> Table {
        let mut arguments = self.arguments.clone();
        if let Some(alternate) = &self.alternate {
            arguments.set(ShortStr::from_static("alternate-exchange"), alternate.clone());
        }
        arguments
    }

    /// How an error names it.
    pub fn subject(&self) -> String {
        format!("exchange {:?}", self.name.as_str())
    }
}

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
}

impl Overflow {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DropHead => "drop-head",
            Self::RejectPublish => "reject-publish",
        }
    }
}

/// Where messages go that a queue rejects, expires or drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The exchange that gets them; empty for the default exchange.
    pub exchange: ShortStr,
    /// The routing key they get; their own when `None`.
    pub routing_key: Option<ShortStr>,
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
    /// Whether one consumer at a time gets its messages.
    pub single_active_consumer: bool,
    /// How many failed deliveries a message may have before it is dead-lettered.
    pub delivery_limit: Option<u32>,
    /// Further arguments, as the broker names them.
    pub arguments: Table,
}

impl QueueSpec {
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

    /// All arguments as RabbitMQ and its kin get them (`x-message-ttl` and so on).
    pub fn wire_arguments(&self) -> Table {
        let mut arguments = self.arguments.clone();
        let mut set = |name, value: Option<Value>| {
            if let Some(value) = value {
                arguments.set(ShortStr::from_static(name), value);
            }
        };
        set("x-queue-type", (self.kind == QueueKind::Replicated).then(|| "quorum".into()));
        set("x-message-ttl", self.message_ttl.map(millis));
        set("x-expires", self.expires.map(millis));
        set("x-max-length", self.max_length.map(Value::from));
        set(
            "x-max-length-bytes",
            self.max_bytes.map(|bytes| Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX))),
        );
        set("x-overflow", self.overflow.map(|overflow| overflow.as_str().into()));
        set(
            "x-dead-letter-exchange",
            self.dead_letter.as_ref().map(|target| target.exchange.clone().into()),
        );
        set(
            "x-dead-letter-routing-key",
            self.dead_letter
                .as_ref()
                .and_then(|target| target.routing_key.clone())
                .map(Value::from),
        );
        set("x-max-priority", self.max_priority.map(Value::from));
        set("x-single-active-consumer", self.single_active_consumer.then_some(Value::Bool(true)));
        set("x-delivery-limit", self.delivery_limit.map(Value::from));
        arguments
    }

    /// How an error names it.
    pub fn subject(&self) -> String {
        format!("queue {:?}", self.name.as_str())
    }
}

/// What a binding leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A queue.
    Queue(ShortStr),
    /// Another exchange.
    Exchange(ShortStr),
}

/// A binding to make: messages of the source that match go to the destination.
///
/// ```
/// use enoki_core::{BindingSpec, Destination, ExchangeKind, ExchangeSpec, QueueSpec};
///
/// let (shop, billing) = (ExchangeSpec::new("shop", ExchangeKind::Topic)?, QueueSpec::new("billing")?);
/// let binding = BindingSpec::new(&shop, Destination::Queue(billing.name), "order.*")?;
/// assert_eq!(binding.key, "order.*");
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BindingSpec {
    /// The exchange that messages come from.
    pub source: ShortStr,
    /// Where they go.
    pub destination: Destination,
    /// The key or pattern to match; empty where the kind of exchange reads none.
    pub key: ShortStr,
    /// What the headers have to match, with `x-match`; and arguments for plugins.
    pub arguments: Table,
}

impl BindingSpec {
    /// A binding by key or pattern, whatever the source's kind calls it.
    ///
    /// A key on a fanout or headers exchange is a configuration error: they would ignore it.
    pub fn new(
        source: &ExchangeSpec,
        destination: Destination,
        key: impl Into<String>,
    ) -> Result<Self> {
        let key = ShortStr::named("binding key", key)?;
        if !key.is_empty() && matches!(source.kind, ExchangeKind::Fanout | ExchangeKind::Headers) {
            return Err(Error::new(ErrorKind::Configuration, "bind")
                .on(source.subject())
                .because(format!(
                    "a {} exchange does not read the key {:?}",
                    source.kind,
                    key.as_str()
                ))
                .remedy("leave the key empty"));
        }
        Ok(Self { source: source.name.clone(), destination, key, arguments: Table::new() })
    }

    /// How an error names it.
    pub fn subject(&self) -> String {
        let destination = match &self.destination {
            Destination::Queue(name) => format!("queue {:?}", name.as_str()),
            Destination::Exchange(name) => format!("exchange {:?}", name.as_str()),
        };
        format!("{destination} to exchange {:?} by {:?}", self.source.as_str(), self.key.as_str())
    }
}

/// Exchanges, queues and bindings to declare together, in an order that works.
///
/// ```
/// use enoki_core::{Fanout, Topology, WorkQueue};
///
/// const NEWS: Fanout = Fanout::new("news");
/// const INBOX: WorkQueue<String> = WorkQueue::new("inbox").bind(&[NEWS.binding()]);
///
/// let topology = Topology::new().with_queue(&INBOX);
/// assert_eq!(topology.exchanges().len(), 1);
/// assert_eq!(topology.bindings().len(), 1);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topology {
    exchanges: Vec<ExchangeSpec>,
    queues: Vec<QueueSpec>,
    bindings: Vec<BindingSpec>,
}

impl Topology {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an exchange, with the exchanges it is bound to.
    #[must_use]
    pub fn with_exchange(mut self, exchange: &dyn Exchange) -> Self {
        exchange.describe(&mut self);
        self
    }

    /// Adds a queue, with its bindings and their exchanges.
    #[must_use]
    pub fn with_queue<M: Payload>(mut self, queue: &dyn Queue<Message = M>) -> Self {
        queue.describe(&mut self);
        self
    }

    /// Adds an exchange by itself; the ones the broker brings along are left out.
    pub fn add_exchange(&mut self, exchange: ExchangeSpec) {
        if !exchange.is_predeclared() && !self.exchanges.contains(&exchange) {
            self.exchanges.push(exchange);
        }
    }

    /// Adds a queue by itself.
    pub fn add_queue(&mut self, queue: QueueSpec) {
        if !self.queues.contains(&queue) {
            self.queues.push(queue);
        }
    }

    /// Adds a binding by itself.
    pub fn add_binding(&mut self, binding: BindingSpec) {
        if !self.bindings.contains(&binding) {
            self.bindings.push(binding);
        }
    }

    /// Adds everything of another topology.
    pub fn extend(&mut self, other: Topology) {
        other.exchanges.into_iter().for_each(|exchange| self.add_exchange(exchange));
        other.queues.into_iter().for_each(|queue| self.add_queue(queue));
        other.bindings.into_iter().for_each(|binding| self.add_binding(binding));
    }

    /// Gives the queues that each handle has its own of their whole names.
    pub(crate) fn localize(mut self, suffix: &str) -> Result<Self> {
        for queue in &mut self.queues {
            if !std::mem::take(&mut queue.unique) {
                continue;
            }
            let whole = unique_name(&queue.name, suffix)?;
            for binding in &mut self.bindings {
                match &mut binding.destination {
                    Destination::Queue(name) if *name == queue.name => *name = whole.clone(),
                    _ => {}
                }
            }
            queue.name = whole;
        }
        Ok(self)
    }

    /// The exchanges, each once, in the order they were added.
    pub fn exchanges(&self) -> &[ExchangeSpec] {
        &self.exchanges
    }

    /// The queues, each once, in the order they were added.
    pub fn queues(&self) -> &[QueueSpec] {
        &self.queues
    }

    /// The bindings, each once, in the order they were added.
    pub fn bindings(&self) -> &[BindingSpec] {
        &self.bindings
    }
}

pub(crate) fn unique_name(name: &ShortStr, suffix: &str) -> Result<ShortStr> {
    ShortStr::named("queue", format!("{name}.{suffix}"))
}

fn check_declarable(field: &'static str, name: &ShortStr) -> Result<()> {
    let refuse = |reason: &'static str| {
        Err(Error::new(ErrorKind::Configuration, "check a name")
            .on(format!("{field} {:?}", name.as_str()))
            .because(reason))
    };
    if name.is_empty() {
        refuse("the name is empty")
    } else if name.starts_with("amq.") {
        refuse("names that begin with \"amq.\" belong to the broker")
    } else if name.contains('\0') {
        refuse("the name contains a NUL")
    } else {
        Ok(())
    }
}

fn millis(duration: Duration) -> Value {
    Value::Int(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}
