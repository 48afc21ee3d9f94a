//! Queues as constants: where messages wait, and what they decode to.

#![expect(
    clippy::indexing_slicing,
    reason = "`get` is not for constant functions; each index is checked by its loop"
)]

use std::{fmt, marker::PhantomData, time::Duration};

use crate::{
    message::payload::{Payload, Raw},
    short_str::ShortStr,
    topology::def::{Arguments, Binding, ExchangeDef, RouteDef, to_table},
    topology::exchange::{TypedExchange, check_arguments, check_name, check_untyped},
    topology::pattern,
    topology::queue_spec::{LIMIT_WITHOUT_DEAD_LETTERS, TYPED_ARGUMENTS},
    topology::route::Route,
    topology::{DeadLetter, Destination, Overflow, QueueKind, QueueSpec, Topology},
};

/// Where messages wait: a name, its bindings and limits, and the type its deliveries decode to.
///
/// The toolkit's own are [`WorkQueue`], [`ReplicatedQueue`] and [`TemporaryQueue`], for constants,
/// and [`QueueSpec::of`], for run time. Implement it for a queue of your own making.
pub trait Queue: fmt::Debug + Send + Sync {
    /// What its deliveries decode to.
    type Message: Payload;

    /// What to declare.
    fn spec(&self) -> QueueSpec;

    /// Adds this queue to a topology, with what it needs: its bindings and their exchanges.
    fn describe(&self, topology: &mut Topology) {
        topology.add_queue(self.spec());
    }
}

/// A durable queue on one node, shared by all its consumers.
///
/// ```
/// use std::time::Duration;
/// use enoki_core::{Topic, WorkQueue};
///
/// const SHOP: Topic = Topic::new("shop");
/// const LOST_ORDERS: WorkQueue<String> = WorkQueue::new("lost-orders");
/// const BILLING: WorkQueue<String> = WorkQueue::new("billing")
///     .bind(&[SHOP.pattern("order.placed.*")])
///     .dead_letters_to(&LOST_ORDERS)
///     .message_ttl(Duration::from_secs(3600));
/// # let _ = BILLING;
/// ```
pub type WorkQueue<M> = TypedQueue<M, Work>;

/// A durable queue that the broker replicates over its nodes; RabbitMQ calls it a quorum queue.
///
/// A message in it may fail as often as it does, unless a
/// [`delivery_limit`](TypedQueue::delivery_limit) is set: RabbitMQ's own default, to remove a message
/// after 20 failures, is turned off when the queue is declared. A policy on the broker may still set a
/// limit. A queue that exists without the argument `x-delivery-limit` is a
/// [`Conflict`](crate::ErrorKind::Conflict), which says what to do.
///
/// ```
/// use enoki_core::{ReplicatedQueue, WorkQueue};
///
/// const LOST: WorkQueue<String> = WorkQueue::new("lost-entries");
/// const LEDGER: ReplicatedQueue<String> =
///     ReplicatedQueue::new("ledger").dead_letters_to(&LOST).delivery_limit(5);
/// # let _ = LEDGER;
/// ```
pub type ReplicatedQueue<M> = TypedQueue<M, Replicated>;

/// A queue of one [`Broker`](crate::Broker) handle: gone with it, and used by no other.
///
/// Each handle has its own: a suffix that is unique to the handle is added to the name
/// ([`Broker::queue_name`](crate::Broker::queue_name) tells the whole).
///
/// ```
/// use enoki_core::{Fanout, TemporaryQueue};
///
/// const PRICES: Fanout = Fanout::new("prices");
/// const SCREEN: TemporaryQueue<String> = TemporaryQueue::new("screen").bind(&[PRICES.binding()]);
/// # let _ = SCREEN;
/// ```
pub type TemporaryQueue<M> = TypedQueue<M, Temporary>;

/// A queue as a constant; see [`WorkQueue`], [`ReplicatedQueue`] and [`TemporaryQueue`].
///
/// Its methods are constant functions. A mistake in a constant does not compile; the same mistake
/// made at run time panics, so names that are not known at compile time go to [`QueueSpec`].
pub struct TypedQueue<M, K> {
    def: QueueDef,
    kind: PhantomData<fn() -> (M, K)>,
}

/// The kind of a [`WorkQueue`].
#[derive(Debug)]
pub enum Work {}
/// The kind of a [`ReplicatedQueue`].
#[derive(Debug)]
pub enum Replicated {}
/// The kind of a [`TemporaryQueue`].
#[derive(Debug)]
pub enum Temporary {}

#[derive(Debug, Clone, Copy)]
struct QueueDef {
    name: &'static str,
    bindings: &'static [Binding],
    kind: QueueKind,
    temporary: bool,
    passive: bool,
    message_ttl: Option<Duration>,
    expires: Option<Duration>,
    max_length: Option<u32>,
    max_bytes: Option<u64>,
    overflow: Option<Overflow>,
    dead_letter: Option<DeadLetterDef>,
    max_priority: Option<u8>,
    single_active_consumer: bool,
    delivery_limit: Option<u32>,
    arguments: Arguments,
}

/// Where a queue's dead letters go.
#[derive(Debug, Clone, Copy)]
enum DeadLetterDef {
    /// To this queue, by its name.
    Queue(&'static QueueDef),
    /// To this exchange, from which at least this queue gets them.
    Exchange { exchange: &'static ExchangeDef, key: Option<&'static str>, queue: &'static QueueDef },
    /// To a queue that another program declares.
    QueueNamed(&'static str),
    /// To an exchange that another program declares.
    ExchangeNamed(&'static str),
}

impl<M, K> TypedQueue<M, K> {
    const fn of(name: &'static str, kind: QueueKind, temporary: bool) -> Self {
        check_name(name);
        let def = QueueDef {
            name,
            bindings: &[],
            kind,
            temporary,
            passive: false,
            message_ttl: None,
            expires: None,
            max_length: None,
            max_bytes: None,
            overflow: None,
            dead_letter: None,
            max_priority: None,
            single_active_consumer: false,
            delivery_limit: None,
            arguments: &[],
        };
        Self { def, kind: PhantomData }
    }

    /// The name.
    pub const fn name(&self) -> &'static str {
        self.def.name
    }

    /// Says which messages it gets, from which exchanges.
    #[must_use]
    pub const fn bind(mut self, bindings: &'static [Binding]) -> Self {
        self.def.bindings = bindings;
        self
    }

    /// Whether messages on this route get into this queue: by a binding, by way of bound exchanges,
    /// or by its name. For `const _: () = assert!(BILLING.accepts(&PLACED));`.
    pub const fn accepts(&self, route: &Route<M>) -> bool {
        let route: &RouteDef = &route.def;
        if route.exchange.name.is_empty() {
            return pattern::str_eq(route.key, self.def.name);
        }
        self.def.gets(route)
    }

    /// Declared by another program: it is looked for by name, never created, and missing is an error.
    /// Its bindings are made all the same.
    #[must_use]
    pub const fn passive(mut self) -> Self {
        self.def.passive = true;
        self
    }

    /// How long a message waits before it is dead-lettered or removed; not zero.
    #[must_use]
    pub const fn message_ttl(mut self, ttl: Duration) -> Self {
        check_millis(ttl);
        self.def.message_ttl = Some(ttl);
        self
    }

    /// How long the queue stays without being used; not zero.
    #[must_use]
    pub const fn expires(mut self, after: Duration) -> Self {
        check_millis(after);
        self.def.expires = Some(after);
        self
    }

    /// How many messages it holds; see [`overflow`](Self::overflow).
    #[must_use]
    pub const fn max_length(mut self, messages: u32) -> Self {
        self.def.max_length = Some(messages);
        self
    }

    /// How many bytes of bodies it holds; see [`overflow`](Self::overflow).
    #[must_use]
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.def.max_bytes = Some(bytes);
        self
    }

    /// What happens to a message too many; [`Overflow::DropHead`] unless said otherwise.
    #[must_use]
    pub const fn overflow(mut self, overflow: Overflow) -> Self {
        self.def.overflow = Some(overflow);
        self
    }

    /// Sends what this queue rejects, expires or drops to that queue, which is declared with this one.
    ///
    /// It goes there by the queue's name, so it always arrives. A queue that another program declares is
    /// a constant, too: a [`passive`](Self::passive) one, which has to be there at start.
    #[must_use]
    pub const fn dead_letters_to<N: 'static, L: 'static>(
        mut self,
        queue: &'static TypedQueue<N, L>,
    ) -> Self {
        queue.def.check_keeps_dead_letters();
        self.def.dead_letter = Some(DeadLetterDef::Queue(&queue.def));
        self
    }

    /// Sends what this queue rejects, expires or drops to that exchange, under the routing keys that the
    /// messages had. Exchange and queue are declared with this one.
    ///
    /// The queue has to get all of it, whatever its key: by a fanout, or by the pattern `#`. Anything else
    /// does not compile. Further queues may be bound to the exchange.
    ///
    /// ```
    /// use enoki_core::{Fanout, WorkQueue};
    ///
    /// const LOST: Fanout = Fanout::new("lost");
    /// const GRAVEYARD: WorkQueue<String> = WorkQueue::new("graveyard").bind(&[LOST.binding()]);
    /// const BILLING: WorkQueue<String> =
    ///     WorkQueue::new("billing").dead_letters_over(&LOST, &GRAVEYARD);
    /// # let _ = BILLING;
    /// ```
    #[must_use]
    pub const fn dead_letters_over<X: 'static, N: 'static, L: 'static>(
        mut self,
        exchange: &'static TypedExchange<X>,
        queue: &'static TypedQueue<N, L>,
    ) -> Self {
        queue.def.check_keeps_dead_letters();
        assert!(
            queue.def.gets_all_of(&exchange.def),
            "the queue does not get every dead letter: bind it to a fanout, or by the pattern #"
        );
        let (exchange, queue) = (&exchange.def, &queue.def);
        self.def.dead_letter = Some(DeadLetterDef::Exchange { exchange, key: None, queue });
        self
    }

    /// Like [`dead_letters_over`](Self::dead_letters_over), under a routing key of their own, by which
    /// the queue has to get them.
    #[must_use]
    pub const fn dead_letters_over_as<X: 'static, N: 'static, L: 'static>(
        mut self,
        exchange: &'static TypedExchange<X>,
        key: &'static str,
        queue: &'static TypedQueue<N, L>,
    ) -> Self {
        assert!(key.len() <= ShortStr::MAX, "a routing key has at most 255 bytes");
        queue.def.check_keeps_dead_letters();
        assert!(
            queue.def.gets(&RouteDef { exchange: exchange.def, key, headers: &[] }),
            "the queue does not get dead letters with this key"
        );
        let (exchange, queue) = (&exchange.def, &queue.def);
        self.def.dead_letter = Some(DeadLetterDef::Exchange { exchange, key: Some(key), queue });
        self
    }

    /// Sends what this queue rejects, expires or drops to the queue of this name, which another program
    /// declares, or which is a part of the same [`Topology`]. It is looked for at start and on each new
    /// connection, and missing is [`NotFound`](crate::ErrorKind::NotFound).
    #[must_use]
    pub const fn dead_letter_queue_named(mut self, queue: &'static str) -> Self {
        assert!(!queue.is_empty(), "the name is empty");
        assert!(queue.len() <= ShortStr::MAX, "a name has at most 255 bytes");
        self.def.dead_letter = Some(DeadLetterDef::QueueNamed(queue));
        self
    }

    /// Sends what this queue rejects, expires or drops to the exchange of this name, which another
    /// program declares. It is looked for at start and on each new connection, and missing is
    /// [`NotFound`](crate::ErrorKind::NotFound).
    ///
    /// Whether a queue is bound to it is not known here: brokers drop dead letters without a queue, and
    /// report it to no client. Of two programs in one code base, use
    /// [`dead_letters_over`](Self::dead_letters_over).
    #[must_use]
    pub const fn dead_letter_exchange_named(mut self, exchange: &'static str) -> Self {
        assert!(
            !exchange.is_empty(),
            "the name is empty; a queue is named by dead_letter_queue_named"
        );
        assert!(exchange.len() <= ShortStr::MAX, "a name has at most 255 bytes");
        self.def.dead_letter = Some(DeadLetterDef::ExchangeNamed(exchange));
        self
    }

    /// Gives its messages to one consumer at a time, in their order; the others stand by.
    ///
    /// The order holds when the active consumer stops and another takes its place: the handlers that
    /// run end first, then what no handler has begun goes back. Over AMQP 0-9-1 that counts as an
    /// attempt where attempts are counted, and towards a delivery limit. A program that consumes from
    /// such a queue and does not declare it has to say so, too.
    #[must_use]
    pub const fn single_active_consumer(mut self) -> Self {
        self.def.single_active_consumer = true;
        self
    }

    /// Further arguments, as the broker names them. One that has a method here does not compile.
    #[must_use]
    pub const fn arguments(mut self, arguments: Arguments) -> Self {
        check_arguments(arguments);
        check_untyped(arguments, TYPED_ARGUMENTS);
        self.def.arguments = arguments;
        self
    }
}

impl<M> WorkQueue<M> {
    /// A durable queue.
    pub const fn new(name: &'static str) -> Self {
        Self::of(name, QueueKind::Classic, false)
    }

    /// Tells this many priorities apart, 1 to 255; few are enough, each costs the broker.
    #[must_use]
    pub const fn max_priority(mut self, highest: u8) -> Self {
        assert!(highest > 0, "the highest priority is at least 1");
        self.def.max_priority = Some(highest);
        self
    }

    /// The route to this queue by its name, without an exchange between.
    pub const fn route(&self) -> Route<M> {
        Route::keyed(ExchangeDef::DEFAULT, self.def.name)
    }
}

impl<M> ReplicatedQueue<M> {
    /// A replicated queue.
    pub const fn new(name: &'static str) -> Self {
        Self::of(name, QueueKind::Replicated, false)
    }

    /// How many failed deliveries a message may have before the broker dead-letters it; any number
    /// unless said otherwise. Said after where its dead letters go: without them the broker would remove
    /// the message, so that does not compile.
    #[must_use]
    pub const fn delivery_limit(mut self, deliveries: u32) -> Self {
        assert!(self.def.dead_letter.is_some(), "{}", LIMIT_WITHOUT_DEAD_LETTERS);
        self.def.delivery_limit = Some(deliveries);
        self
    }

    /// The route to this queue by its name, without an exchange between.
    pub const fn route(&self) -> Route<M> {
        Route::keyed(ExchangeDef::DEFAULT, self.def.name)
    }
}

impl<M> TemporaryQueue<M> {
    /// A queue that goes with the connection. Its name has at most 222 bytes: the suffix takes 33.
    pub const fn new(name: &'static str) -> Self {
        assert!(name.len() <= ShortStr::MAX - 33, "a temporary queue's name has at most 222 bytes");
        Self::of(name, QueueKind::Classic, true)
    }
}

impl QueueDef {
    /// Whether a binding leads messages on this route here.
    const fn gets(&self, route: &RouteDef) -> bool {
        let mut at = 0;
        while at < self.bindings.len() {
            if self.bindings[at].passes(route) {
                return true;
            }
            at += 1;
        }
        false
    }

    /// Whether a binding leads all that arrives at this exchange here, whatever its key is.
    const fn gets_all_of(&self, exchange: &ExchangeDef) -> bool {
        let mut at = 0;
        while at < self.bindings.len() {
            if self.bindings[at].passes_all_of(exchange) {
                return true;
            }
            at += 1;
        }
        false
    }

    const fn check_keeps_dead_letters(&self) {
        assert!(!self.temporary, "a temporary queue goes, and dead letters would go with it");
    }

    fn spec(&self) -> QueueSpec {
        let mut spec = QueueSpec::named(ShortStr::from_static(self.name));
        spec.kind = self.kind;
        spec.durable = !self.temporary;
        spec.exclusive = self.temporary;
        spec.auto_delete = self.temporary;
        spec.unique = self.temporary;
        spec.passive = self.passive;
        spec.message_ttl = self.message_ttl;
        spec.expires = self.expires;
        spec.max_length = self.max_length;
        spec.max_bytes = self.max_bytes;
        spec.overflow = self.overflow;
        spec.dead_letter = self.dead_letter.map(|target| target.spec());
        spec.max_priority = self.max_priority;
        spec.single_active_consumer = self.single_active_consumer;
        spec.delivery_limit = self.delivery_limit;
        spec.arguments = to_table(self.arguments);
        spec
    }

    fn describe(&self, topology: &mut Topology) {
        // First, so that it is there when the first message dies.
        match self.dead_letter {
            Some(DeadLetterDef::Queue(queue)) => queue.describe(topology),
            Some(DeadLetterDef::Exchange { exchange, queue, .. }) => {
                exchange.describe(topology);
                queue.describe(topology);
            }
            Some(DeadLetterDef::QueueNamed(_) | DeadLetterDef::ExchangeNamed(_)) | None => {}
        }
        let spec = self.spec();
        let destination = Destination::Queue(spec.name.clone());
        topology.add_queue(spec);
        for binding in self.bindings {
            binding.exchange.describe(topology);
            topology.add_binding(binding.spec(destination.clone()));
        }
    }
}

impl DeadLetterDef {
    fn spec(self) -> DeadLetter {
        match self {
            Self::Queue(&QueueDef { name, .. }) | Self::QueueNamed(name) => {
                DeadLetter::to_queue(ShortStr::from_static(name))
            }
            Self::Exchange { exchange, key, .. } => DeadLetter {
                exchange: ShortStr::from_static(exchange.name),
                routing_key: key.map(ShortStr::from_static),
            },
            Self::ExchangeNamed(name) => {
                DeadLetter { exchange: ShortStr::from_static(name), routing_key: None }
            }
        }
    }
}

impl<M: Payload, K> Queue for TypedQueue<M, K> {
    type Message = M;

    fn spec(&self) -> QueueSpec {
        self.def.spec()
    }

    fn describe(&self, topology: &mut Topology) {
        self.def.describe(topology);
    }
}

impl<M, K> Clone for TypedQueue<M, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, K> Copy for TypedQueue<M, K> {}

impl<M, K> fmt::Debug for TypedQueue<M, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedQueue")
            .field("name", &self.def.name)
            .field("kind", &self.def.kind)
            .finish()
    }
}

/// A queue made at run time, and the type its deliveries decode to.
///
/// ```
/// use enoki_core::{BindingSpec, Destination, ExchangeKind, ExchangeSpec, QueueSpec};
///
/// let shop = ExchangeSpec::new("shop", ExchangeKind::Topic)?;
/// let billing = QueueSpec::new("billing")?;
/// let binding = BindingSpec::new(&shop, Destination::Queue(billing.name.clone()), "order.*")?;
/// let billing = billing.of::<String>().bind(&shop, binding);
/// # let _ = billing;
/// # Ok::<(), enoki_core::Error>(())
/// ```
pub struct DynamicQueue<M> {
    spec: QueueSpec,
    topology: Topology,
    message: PhantomData<fn() -> M>,
}

impl QueueSpec {
    /// This queue, with the type its deliveries decode to.
    pub fn of<M: Payload>(self) -> DynamicQueue<M> {
        DynamicQueue { spec: self, topology: Topology::new(), message: PhantomData }
    }
}

impl<M> DynamicQueue<M> {
    /// Adds a binding, and the exchange it comes from.
    #[must_use]
    pub fn bind(
        mut self,
        exchange: &dyn crate::topology::Exchange,
        binding: crate::topology::BindingSpec,
    ) -> Self {
        exchange.describe(&mut self.topology);
        self.topology.add_binding(binding);
        self
    }

    /// Sends what this queue rejects, expires or drops to that queue, which is declared with this one.
    #[must_use]
    pub fn dead_letters_to<N: Payload>(mut self, queue: &dyn Queue<Message = N>) -> Self {
        queue.describe(&mut self.topology);
        self.spec.dead_letter = Some(DeadLetter::to_queue(queue.spec().name));
        self
    }
}

/// A queue of which only the name and the arguments are known: its deliveries are bytes.
impl Queue for QueueSpec {
    type Message = Raw;

    fn spec(&self) -> QueueSpec {
        self.clone()
    }
}

impl<M: Payload> Queue for DynamicQueue<M> {
    type Message = M;

    fn spec(&self) -> QueueSpec {
        self.spec.clone()
    }

    fn describe(&self, topology: &mut Topology) {
        topology.extend(self.topology.clone());
        topology.add_queue(self.spec.clone());
    }
}

impl<M> fmt::Debug for DynamicQueue<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamicQueue").field("spec", &self.spec).finish()
    }
}

const fn check_millis(duration: Duration) {
    assert!(duration.as_millis() > 0, "at least a millisecond");
    assert!(duration.as_millis() <= u32::MAX as u128, "at most 49.7 days");
}
