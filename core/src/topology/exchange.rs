//! Exchanges as constants: where messages are published.

#![expect(
    clippy::indexing_slicing,
    reason = "`get` is not for constant functions; each index is checked by its loop"
)]

use std::{fmt, marker::PhantomData};

use crate::{
    short_str::ShortStr,
    topology::def::{AlternateDef, Arguments, Binding, ExchangeDef, HeadersMatch, KindDef},
    topology::exchange_spec::TYPED_ARGUMENTS,
    topology::pattern,
    topology::route::Route,
    topology::{Exchange, ExchangeSpec, Topology},
};

/// An exchange that routes to the queues bound with exactly the routing key.
///
/// ```
/// use enoki_core::{Direct, Route};
///
/// const JOBS: Direct = Direct::new("jobs");
/// const RESIZE: Route<String> = JOBS.route("resize");
/// # let _ = RESIZE;
/// ```
pub type Direct = TypedExchange<DirectKind>;

/// An exchange that routes to every bound queue, and reads no key.
///
/// ```
/// use enoki_core::{Fanout, Route, WorkQueue};
///
/// const NEWS: Fanout = Fanout::new("news");
/// const STORY: Route<String> = NEWS.route();
/// const INBOX: WorkQueue<String> = WorkQueue::new("inbox").bind(&[NEWS.binding()]);
/// const _: () = assert!(INBOX.accepts(&STORY));
/// ```
pub type Fanout = TypedExchange<FanoutKind>;

/// An exchange that routes to the queues whose pattern matches the routing key.
///
/// ```
/// use enoki_core::{Route, Topic, WorkQueue};
///
/// const SHOP: Topic = Topic::new("shop");
/// const PLACED: Route<String> = SHOP.route("order.placed.eu");
/// const BILLING: WorkQueue<String> =
///     WorkQueue::new("billing").bind(&[SHOP.pattern("order.placed.*")]);
/// const _: () = assert!(BILLING.accepts(&PLACED), "no queue gets PLACED");
/// ```
pub type Topic = TypedExchange<TopicKind>;

/// An exchange that routes to the queues whose binding matches the headers, and reads no key.
///
/// ```
/// use enoki_core::{Argument, Headers, HeadersMatch, Route, WorkQueue};
///
/// const PRINTS: Headers = Headers::new("prints");
/// const POSTER: Route<String> =
///     PRINTS.route(&[("paper", Argument::Str("A1")), ("colour", Argument::Bool(true))]);
/// const LARGE: WorkQueue<String> = WorkQueue::new("large")
///     .bind(&[PRINTS.matching(HeadersMatch::All, &[("paper", Argument::Str("A1"))])]);
/// const _: () = assert!(LARGE.accepts(&POSTER));
/// ```
pub type Headers = TypedExchange<HeadersKind>;

/// An exchange of a kind that a plugin of the broker brings.
///
/// What it routes where is the plugin's business: the compiler takes every binding for a match.
///
/// ```
/// use enoki_core::{Plugin, Route, WorkQueue};
///
/// const SHARDS: Plugin = Plugin::of_kind("shards", "x-consistent-hash");
/// const SHARD: WorkQueue<String> = WorkQueue::new("shard-1").bind(&[SHARDS.binding("10")]);
/// const ANY: Route<String> = SHARDS.route("customer-7");
/// const _: () = assert!(SHARD.accepts(&ANY));
/// ```
pub type Plugin = TypedExchange<PluginKind>;

/// An exchange as a constant; see [`Direct`], [`Fanout`], [`Topic`], [`Headers`] and [`Plugin`].
///
/// Its methods are constant functions. A mistake in a constant does not compile; the same mistake
/// made at run time panics, so names that are not known at compile time go to [`ExchangeSpec`].
pub struct TypedExchange<K> {
    pub(crate) def: ExchangeDef,
    kind: PhantomData<fn() -> K>,
}

/// The kind of a [`Direct`] exchange.
#[derive(Debug)]
pub enum DirectKind {}
/// The kind of a [`Fanout`] exchange.
#[derive(Debug)]
pub enum FanoutKind {}
/// The kind of a [`Topic`] exchange.
#[derive(Debug)]
pub enum TopicKind {}
/// The kind of a [`Headers`] exchange.
#[derive(Debug)]
pub enum HeadersKind {}
/// The kind of a [`Plugin`] exchange.
#[derive(Debug)]
pub enum PluginKind {}

impl<K> TypedExchange<K> {
    const fn of(name: &'static str, kind: KindDef) -> Self {
        check_name(name);
        Self { def: ExchangeDef::new(name, kind), kind: PhantomData }
    }

    /// The name.
    pub const fn name(&self) -> &'static str {
        self.def.name
    }

    /// Gone when the broker restarts.
    #[must_use]
    pub const fn transient(mut self) -> Self {
        self.def.durable = false;
        self
    }

    /// Gone when its last binding goes.
    #[must_use]
    pub const fn auto_delete(mut self) -> Self {
        self.def.auto_delete = true;
        self
    }

    /// Closed to publishers: only other exchanges may feed it.
    #[must_use]
    pub const fn internal(mut self) -> Self {
        self.def.internal = true;
        self
    }

    /// Declared by another program: it is looked for by name, never created, and missing is an error.
    #[must_use]
    pub const fn passive(mut self) -> Self {
        self.def.passive = true;
        self
    }

    /// Sends what this exchange cannot route to that one, which is declared with it. A message that no
    /// queue gets there either is unroutable, as it is without an alternate exchange.
    ///
    /// ```
    /// use enoki_core::{Fanout, Topic, WorkQueue};
    ///
    /// const STRAY: Fanout = Fanout::new("stray");
    /// const SHOP: Topic = Topic::new("shop").alternate(&STRAY);
    /// const STRAYS: WorkQueue<String> = WorkQueue::new("strays").bind(&[STRAY.binding()]);
    /// # let _ = (SHOP, STRAYS);
    /// ```
    #[must_use]
    pub const fn alternate<L: 'static>(mut self, exchange: &'static TypedExchange<L>) -> Self {
        self.def.alternate = Some(AlternateDef::Exchange(&exchange.def));
        self
    }

    /// Sends what this exchange cannot route to the one of this name, which another program declares. It
    /// is looked for at start and on each new connection, and missing is
    /// [`NotFound`](crate::ErrorKind::NotFound).
    #[must_use]
    pub const fn alternate_named(mut self, exchange: &'static str) -> Self {
        assert!(!exchange.is_empty(), "the name is empty");
        assert!(exchange.len() <= ShortStr::MAX, "a name has at most 255 bytes");
        self.def.alternate = Some(AlternateDef::Named(exchange));
        self
    }

    /// Binds this exchange to others: what they route here, this one routes on.
    #[must_use]
    pub const fn bind(mut self, bindings: &'static [Binding]) -> Self {
        self.def.bindings = bindings;
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

impl Direct {
    /// A durable direct exchange.
    pub const fn new(name: &'static str) -> Self {
        Self::of(name, KindDef::Direct)
    }

    /// Where messages of type `M` go: to the queues bound with this key.
    pub const fn route<M>(&self, key: &'static str) -> Route<M> {
        Route::keyed(self.def, key)
    }

    /// The binding of a queue to this key.
    pub const fn binding(&self, key: &'static str) -> Binding {
        Binding::keyed(self.def, key)
    }
}

impl Fanout {
    /// A durable fanout exchange.
    pub const fn new(name: &'static str) -> Self {
        Self::of(name, KindDef::Fanout)
    }

    /// Where messages of type `M` go: to every bound queue.
    pub const fn route<M>(&self) -> Route<M> {
        Route::keyed(self.def, "")
    }

    /// The binding of a queue to everything.
    pub const fn binding(&self) -> Binding {
        Binding::keyed(self.def, "")
    }
}

impl Topic {
    /// A durable topic exchange.
    pub const fn new(name: &'static str) -> Self {
        Self::of(name, KindDef::Topic)
    }

    /// Where messages of type `M` go: to the queues whose pattern matches this key.
    ///
    /// The key has no words `*` and `#`: those belong in a [`pattern`](Self::pattern).
    pub const fn route<M>(&self, key: &'static str) -> Route<M> {
        assert!(
            !pattern::has_wildcard(key),
            "a routing key has no wildcards; they belong in a pattern"
        );
        Route::keyed(self.def, key)
    }

    /// The binding of a queue to the keys that match: `*` is one word, `#` any number of words. At most
    /// two words are `#`: RabbitMQ takes no more.
    pub const fn pattern(&self, pattern: &'static str) -> Binding {
        assert!(!pattern::has_too_many_hashes(pattern), "{}", pattern::TOO_MANY_HASHES);
        Binding::keyed(self.def, pattern)
    }
}

impl Headers {
    /// A durable headers exchange.
    pub const fn new(name: &'static str) -> Self {
        Self::of(name, KindDef::Headers)
    }

    /// Where messages of type `M` go: to the queues whose binding matches. The publisher adds these
    /// headers to each message.
    pub const fn route<M>(&self, headers: Arguments) -> Route<M> {
        check_arguments(headers);
        Route::with_headers(self.def, headers)
    }

    /// The binding of a queue to the messages that have all, or any, of these headers.
    ///
    /// Header names that begin with `x-` are not compared (RabbitMQ reads them only with
    /// `all-with-x`), so they are refused here.
    pub const fn matching(&self, matching: HeadersMatch, headers: Arguments) -> Binding {
        check_arguments(headers);
        Binding::matching(self.def, matching, headers)
    }
}

impl Plugin {
    /// A durable exchange of this kind, such as `x-consistent-hash`.
    pub const fn of_kind(name: &'static str, kind: &'static str) -> Self {
        assert!(!kind.is_empty() && kind.len() <= ShortStr::MAX, "a kind has 1 to 255 bytes");
        Self::of(name, KindDef::Plugin(kind))
    }

    /// Where messages of type `M` go.
    pub const fn route<M>(&self, key: &'static str) -> Route<M> {
        Route::keyed(self.def, key)
    }

    /// The binding of a queue.
    pub const fn binding(&self, key: &'static str) -> Binding {
        Binding::keyed(self.def, key)
    }
}

impl<K> Exchange for TypedExchange<K> {
    fn spec(&self) -> ExchangeSpec {
        self.def.spec()
    }

    fn describe(&self, topology: &mut Topology) {
        self.def.describe(topology);
    }
}

impl<K> Clone for TypedExchange<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for TypedExchange<K> {}

impl<K> fmt::Debug for TypedExchange<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedExchange")
            .field("name", &self.def.name)
            .field("kind", &self.def.kind)
            .finish()
    }
}

pub(crate) const fn check_name(name: &str) {
    assert!(!name.is_empty(), "the name is empty");
    assert!(name.len() <= ShortStr::MAX, "a name has at most 255 bytes");
    let bytes = name.as_bytes();
    assert!(
        bytes.len() < 4
            || !(bytes[0] == b'a' && bytes[1] == b'm' && bytes[2] == b'q' && bytes[3] == b'.'),
        "names that begin with amq. belong to the broker"
    );
    let mut at = 0;
    while at < bytes.len() {
        assert!(bytes[at] != 0, "the name contains a NUL");
        at += 1;
    }
}

/// Refuses arguments that have a typed form, and says which.
pub(crate) const fn check_untyped(arguments: Arguments, typed: &[(&str, &str)]) {
    let mut at = 0;
    while at < arguments.len() {
        let mut other = 0;
        while other < typed.len() {
            let (name, said) = typed[other];
            assert!(!pattern::str_eq(arguments[at].0, name), "{}", said);
            other += 1;
        }
        at += 1;
    }
}

pub(crate) const fn check_arguments(arguments: Arguments) {
    let mut at = 0;
    while at < arguments.len() {
        let name = arguments[at].0;
        assert!(
            !name.is_empty() && name.len() <= ShortStr::MAX,
            "an argument's name has 1 to 255 bytes"
        );
        let mut other = at + 1;
        while other < arguments.len() {
            assert!(!pattern::str_eq(name, arguments[other].0), "an argument is given twice");
            other += 1;
        }
        at += 1;
    }
}
