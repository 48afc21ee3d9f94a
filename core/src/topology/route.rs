//! Routes: an exchange and a key, typed by the messages that travel there.

use std::{fmt, marker::PhantomData};

use crate::{
    error::Result,
    message::value::Table,
    short_str::ShortStr,
    topology::def::{Arguments, ExchangeDef, RouteDef, to_table},
    topology::{Exchange, ExchangeKind, ExchangeSpec, Topology},
};

/// Where messages of type `M` are published, as a constant.
///
/// Made by the exchange: `SHOP.route("order.placed")`, or by a queue: `BILLING.route()`.
///
/// ```
/// use enoki_core::{Route, Topic};
///
/// const SHOP: Topic = Topic::new("shop");
/// const PLACED: Route<String> = SHOP.route("order.placed.eu");
/// assert_eq!(PLACED.key(), "order.placed.eu");
/// ```
pub struct Route<M> {
    pub(crate) def: RouteDef,
    message: PhantomData<fn() -> M>,
}

impl<M> Route<M> {
    pub(crate) const fn keyed(exchange: ExchangeDef, key: &'static str) -> Self {
        assert!(key.len() <= ShortStr::MAX, "a routing key has at most 255 bytes");
        assert!(!exchange.internal, "an internal exchange takes no messages from publishers");
        Self { def: RouteDef { exchange, key, headers: &[] }, message: PhantomData }
    }

    pub(crate) const fn with_headers(exchange: ExchangeDef, headers: Arguments) -> Self {
        Self { def: RouteDef { exchange, key: "", headers }, message: PhantomData }
    }

    /// The name of the exchange.
    pub const fn exchange(&self) -> &'static str {
        self.def.exchange.name
    }

    /// The routing key.
    pub const fn key(&self) -> &'static str {
        self.def.key
    }
}

impl<M> Clone for Route<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Route<M> {}

impl<M> fmt::Debug for Route<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("exchange", &self.exchange())
            .field("key", &self.key())
            .finish()
    }
}

/// Where messages of type `M` are published, made at run time.
///
/// ```
/// use enoki_core::{ExchangeKind, ExchangeSpec, RouteSpec};
///
/// let shop = ExchangeSpec::new("shop", ExchangeKind::Topic)?;
/// let placed = RouteSpec::<String>::new(&shop, "order.placed")?;
/// assert!(RouteSpec::<String>::new(&shop, "order.*").is_err());
/// # Ok::<(), enoki_core::Error>(())
/// ```
pub struct RouteSpec<M> {
    pub(crate) topology: Topology,
    pub(crate) exchange: ShortStr,
    pub(crate) kind: ExchangeKind,
    pub(crate) key: ShortStr,
    pub(crate) headers: Table,
    message: PhantomData<fn() -> M>,
}

impl<M> RouteSpec<M> {
    /// A route to this exchange with this key.
    ///
    /// Refused: a key longer than 255 bytes, a wildcard in a key for a topic exchange, and a key
    /// for an exchange that reads none.
    pub fn new(exchange: &dyn Exchange, key: impl Into<String>) -> Result<Self> {
        let mut topology = Topology::new();
        exchange.describe(&mut topology);
        let ExchangeSpec { name, kind, .. } = exchange.spec();
        let key = ShortStr::named("routing key", key)?;
        check_key(&kind, &name, &key)?;
        Ok(Self {
            topology,
            exchange: name,
            kind,
            key,
            headers: Table::new(),
            message: PhantomData,
        })
    }

    /// A route to the queue of this name, by the default exchange.
    pub fn to_queue(queue: impl Into<String>) -> Result<Self> {
        Self::new(&ExchangeSpec::default_exchange(), ShortStr::named("queue", queue)?.as_str())
    }

    /// Headers that the publisher adds to each message; a headers exchange routes by them.
    #[must_use]
    pub fn with_headers(mut self, headers: Table) -> Self {
        self.headers = headers;
        self
    }
}

impl<M> From<&Route<M>> for RouteSpec<M> {
    fn from(route: &Route<M>) -> Self {
        let mut topology = Topology::new();
        route.def.exchange.describe(&mut topology);
        let spec = route.def.exchange.spec();
        Self {
            topology,
            exchange: spec.name,
            kind: spec.kind,
            key: ShortStr::from_static(route.def.key),
            headers: to_table(route.def.headers),
            message: PhantomData,
        }
    }
}

impl<M> From<Route<M>> for RouteSpec<M> {
    fn from(route: Route<M>) -> Self {
        Self::from(&route)
    }
}

impl<M> Clone for RouteSpec<M> {
    fn clone(&self) -> Self {
        Self {
            topology: self.topology.clone(),
            exchange: self.exchange.clone(),
            kind: self.kind.clone(),
            key: self.key.clone(),
            headers: self.headers.clone(),
            message: PhantomData,
        }
    }
}

impl<M> fmt::Debug for RouteSpec<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteSpec")
            .field("exchange", &self.exchange)
            .field("key", &self.key)
            .finish()
    }
}

/// Refuses keys that this kind of exchange would ignore or misread.
pub(crate) fn check_key(kind: &ExchangeKind, exchange: &ShortStr, key: &ShortStr) -> Result<()> {
    use crate::error::{Error, ErrorKind};
    let refuse = |reason: String| {
        Err(Error::new(ErrorKind::Configuration, "route to")
            .on(format!("exchange {:?}", exchange.as_str()))
            .because(reason))
    };
    match kind {
        ExchangeKind::Topic if crate::topology::pattern::has_wildcard(key) => refuse(format!(
            "the routing key {:?} has a wildcard; those belong in a pattern",
            key.as_str()
        )),
        ExchangeKind::Fanout | ExchangeKind::Headers if !key.is_empty() => {
            refuse(format!("a {kind} exchange does not read the routing key {:?}", key.as_str()))
        }
        ExchangeKind::Direct if exchange.is_empty() && key.is_empty() => {
            refuse("the default exchange needs the name of a queue as routing key".to_owned())
        }
        _ => Ok(()),
    }
}
