//! Bindings as constants: which messages of an exchange a queue gets.

#![expect(
    clippy::indexing_slicing,
    reason = "`get` is not for constant functions; each index is checked by its loop"
)]

use crate::{
    exchange::{Arguments, ExchangeDef, KindDef, to_table},
    pattern,
    route::RouteDef,
    short_str::ShortStr,
    topology::{BindingSpec, Destination},
};

/// The messages of one exchange that a queue, or another exchange, gets.
///
/// Made by the exchange: `SHOP.pattern("order.*")`, `JOBS.binding("resize")`, `NEWS.binding()`,
/// `PRINTS.matching(…)`.
///
/// ```
/// use enoki_core::{Fanout, Topic, WorkQueue};
///
/// const SHOP: Topic = Topic::new("shop");
/// const NEWS: Fanout = Fanout::new("news");
/// const DESK: WorkQueue<String> =
///     WorkQueue::new("desk").bind(&[SHOP.pattern("order.*"), NEWS.binding()]);
/// # let _ = DESK;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub(crate) exchange: ExchangeDef,
    key: &'static str,
    headers: Arguments,
    matching: HeadersMatch,
}

/// How many of a binding's headers a message has to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadersMatch {
    /// All of them.
    All,
    /// At least one.
    Any,
}

impl HeadersMatch {
    /// The value of the `x-match` argument.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Any => "any",
        }
    }
}

impl Binding {
    pub(crate) const fn keyed(exchange: ExchangeDef, key: &'static str) -> Self {
        assert!(key.len() <= ShortStr::MAX, "a binding key has at most 255 bytes");
        Self { exchange, key, headers: &[], matching: HeadersMatch::All }
    }

    pub(crate) const fn matching(
        exchange: ExchangeDef,
        matching: HeadersMatch,
        headers: Arguments,
    ) -> Self {
        let mut at = 0;
        while at < headers.len() {
            let name = headers[at].0.as_bytes();
            assert!(
                !(name.len() > 1 && name[0] == b'x' && name[1] == b'-'),
                "headers that begin with x- are not compared"
            );
            at += 1;
        }
        Self { exchange, key: "", headers, matching }
    }

    pub(crate) fn spec(&self, destination: Destination) -> BindingSpec {
        let mut arguments = to_table(self.headers);
        if matches!(self.exchange.kind, KindDef::Headers) {
            arguments.set(ShortStr::from_static("x-match"), self.matching.as_str());
        }
        BindingSpec {
            source: ShortStr::from_static(self.exchange.name),
            destination,
            key: ShortStr::from_static(self.key),
            arguments,
        }
    }

    /// Whether a message on this route gets through this binding, by way of other exchanges if need
    /// be.
    pub(crate) const fn passes(&self, route: &RouteDef) -> bool {
        self.matches(route) && reaches(&self.exchange, route)
    }

    const fn matches(&self, route: &RouteDef) -> bool {
        match self.exchange.kind {
            KindDef::Fanout | KindDef::Plugin(_) => true,
            KindDef::Direct => pattern::str_eq(self.key, route.key),
            KindDef::Topic => pattern::topic_matches(self.key, route.key),
            KindDef::Headers => self.matches_headers(route.headers),
        }
    }

    const fn matches_headers(&self, headers: Arguments) -> bool {
        let mut matched = 0;
        let mut at = 0;
        while at < self.headers.len() {
            let (name, value) = self.headers[at];
            let mut other = 0;
            while other < headers.len() {
                if pattern::str_eq(name, headers[other].0) && value.equals(headers[other].1) {
                    matched += 1;
                    break;
                }
                other += 1;
            }
            at += 1;
        }
        match self.matching {
            HeadersMatch::All => matched == self.headers.len(),
            HeadersMatch::Any => matched > 0,
        }
    }
}

/// Whether a message on this route arrives at the exchange: published there, or routed on to it.
const fn reaches(exchange: &ExchangeDef, route: &RouteDef) -> bool {
    if pattern::str_eq(exchange.name, route.exchange.name) {
        return true;
    }
    let mut at = 0;
    while at < exchange.bindings.len() {
        if exchange.bindings[at].passes(route) {
            return true;
        }
        at += 1;
    }
    false
}
