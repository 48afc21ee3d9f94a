//! What the constants of a topology hold: exchanges, the bindings between them, and routes. They
//! contain each other, and the compiler follows a message through them.

#![expect(
    clippy::indexing_slicing,
    reason = "`get` is not for constant functions; each index is checked by its loop"
)]

use crate::{
    message::value::{Table, Value},
    short_str::ShortStr,
    topology::pattern,
    topology::{BindingSpec, Destination, ExchangeKind, ExchangeSpec, Topology},
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

    /// Whether all that arrives at this exchange gets through this binding, whatever its key is.
    pub(crate) const fn passes_all_of(&self, exchange: &ExchangeDef) -> bool {
        let matches_all = match self.exchange.kind {
            KindDef::Fanout | KindDef::Plugin(_) => true,
            KindDef::Direct => false,
            KindDef::Topic => pattern::str_eq(self.key, "#"),
            KindDef::Headers => {
                self.headers.is_empty() && matches!(self.matching, HeadersMatch::All)
            }
        };
        if !matches_all || pattern::str_eq(self.exchange.name, exchange.name) {
            return matches_all;
        }
        let mut at = 0;
        while at < self.exchange.bindings.len() {
            if self.exchange.bindings[at].passes_all_of(exchange) {
                return true;
            }
            at += 1;
        }
        false
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

/// The value of an argument or header in a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Argument {
    /// A text.
    Str(&'static str),
    /// An integer.
    Int(i64),
    /// A truth value.
    Bool(bool),
}

impl From<Argument> for Value {
    fn from(argument: Argument) -> Self {
        match argument {
            Argument::Str(text) => text.into(),
            Argument::Int(number) => number.into(),
            Argument::Bool(truth) => truth.into(),
        }
    }
}

impl Argument {
    pub(crate) const fn equals(self, other: Self) -> bool {
        match (self, other) {
            (Self::Str(left), Self::Str(right)) => pattern::str_eq(left, right),
            (Self::Int(left), Self::Int(right)) => left == right,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            _ => false,
        }
    }
}

/// Arguments in a constant: names and values.
pub type Arguments = &'static [(&'static str, Argument)];

pub(crate) fn to_table(arguments: Arguments) -> Table {
    arguments
        .iter()
        .map(|(name, value)| (ShortStr::from_static(name), Value::from(*value)))
        .collect()
}

/// What an exchange constant holds: nothing that needs dropping, so that constants can be built
/// from constants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExchangeDef {
    pub(crate) name: &'static str,
    pub(crate) kind: KindDef,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) passive: bool,
    pub(crate) alternate: Option<AlternateDef>,
    pub(crate) bindings: &'static [Binding],
    pub(crate) arguments: Arguments,
}

/// What gets what an exchange cannot route.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AlternateDef {
    /// This exchange.
    Exchange(&'static ExchangeDef),
    /// An exchange that another program declares.
    Named(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum KindDef {
    Direct,
    Fanout,
    Topic,
    Headers,
    Plugin(&'static str),
}

impl ExchangeDef {
    pub(crate) const DEFAULT: Self = Self::new("", KindDef::Direct);

    pub(crate) const fn new(name: &'static str, kind: KindDef) -> Self {
        Self {
            name,
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            passive: false,
            alternate: None,
            bindings: &[],
            arguments: &[],
        }
    }

    pub(crate) fn spec(&self) -> ExchangeSpec {
        let kind = match self.kind {
            KindDef::Direct => ExchangeKind::Direct,
            KindDef::Fanout => ExchangeKind::Fanout,
            KindDef::Topic => ExchangeKind::Topic,
            KindDef::Headers => ExchangeKind::Headers,
            KindDef::Plugin(name) => ExchangeKind::Plugin(ShortStr::from_static(name)),
        };
        let mut spec = ExchangeSpec::existing(ShortStr::from_static(self.name), kind);
        spec.durable = self.durable;
        spec.auto_delete = self.auto_delete;
        spec.internal = self.internal;
        spec.passive = self.passive;
        spec.alternate = self.alternate.map(|alternate| match alternate {
            AlternateDef::Exchange(&Self { name, .. }) | AlternateDef::Named(name) => {
                ShortStr::from_static(name)
            }
        });
        spec.arguments = to_table(self.arguments);
        spec
    }

    pub(crate) fn describe(&self, topology: &mut Topology) {
        if let Some(AlternateDef::Exchange(alternate)) = self.alternate {
            alternate.describe(topology);
        }
        for binding in self.bindings {
            binding.exchange.describe(topology);
        }
        let spec = self.spec();
        let destination = Destination::Exchange(spec.name.clone());
        topology.add_exchange(spec);
        for binding in self.bindings {
            topology.add_binding(binding.spec(destination.clone()));
        }
    }
}

/// What a route constant holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteDef {
    pub(crate) exchange: ExchangeDef,
    pub(crate) key: &'static str,
    pub(crate) headers: Arguments,
}

#[cfg(test)]
mod tests {
    use crate::{
        Argument, Direct, Fanout, Headers, HeadersMatch, Plugin, ReplicatedQueue, Route,
        TemporaryQueue, Topic, WorkQueue, topic_matches,
    };

    use super::*;

    /// Whether a queue with this one binding gets what is published on the route.
    fn gets(binding: Binding, route: Route<String>) -> bool {
        let bindings: &'static [Binding] = Box::leak(Box::new([binding]));
        let queue = WorkQueue::new("queue").bind(bindings);
        let replicated = ReplicatedQueue::new("queue").bind(bindings);
        let temporary = TemporaryQueue::new("queue").bind(bindings);
        let got = queue.accepts(&route);
        assert_eq!((replicated.accepts(&route), temporary.accepts(&route)), (got, got));
        got
    }

    const JOBS: Direct = Direct::new("jobs");
    const NEWS: Fanout = Fanout::new("news");
    const SHOP: Topic = Topic::new("shop");
    const PRINTS: Headers = Headers::new("prints");
    const SHARDS: Plugin = Plugin::of_kind("shards", "x-random");

    #[test]
    fn a_direct_exchange_compares_keys_and_knows_no_wildcards() {
        assert!(gets(JOBS.binding("resize"), JOBS.route("resize")));
        assert!(gets(JOBS.binding(""), JOBS.route("")));
        assert!(gets(JOBS.binding("*"), JOBS.route("*")));
        for key in ["resiz", "resizee", "Resize", "", "resize.a"] {
            assert!(!gets(JOBS.binding("resize"), JOBS.route(key)), "{key}");
        }
        assert!(!gets(JOBS.binding("*"), JOBS.route("a")));
    }

    #[test]
    fn a_fanout_exchange_compares_nothing() {
        assert!(gets(NEWS.binding(), NEWS.route()));
    }

    #[test]
    fn a_topic_exchange_matches_patterns() {
        for pattern in
            ["order.placed", "order.*", "*.placed", "#", "order.#", "order.placed.#", "#.placed"]
        {
            assert!(gets(SHOP.pattern(pattern), SHOP.route("order.placed")), "{pattern}");
        }
        for pattern in ["order", "*", "order.*.*", "", "order.paid", "*.#.*.*"] {
            assert!(!gets(SHOP.pattern(pattern), SHOP.route("order.placed")), "{pattern}");
            assert!(!topic_matches(pattern, "order.placed"));
        }
    }

    #[test]
    fn a_plugin_is_believed_to_route_everything_everywhere() {
        assert!(gets(SHARDS.binding("10"), SHARDS.route("anything")));
    }

    #[test]
    fn an_exchange_of_another_name_is_another_one() {
        assert!(!gets(Topic::new("other").pattern("#"), SHOP.route("a")));
        assert!(!gets(Fanout::new("other").binding(), NEWS.route()));
    }

    const PAPER: (&str, Argument) = ("paper", Argument::Str("A1"));
    const COLOUR: (&str, Argument) = ("colour", Argument::Bool(true));
    const COPIES: (&str, Argument) = ("copies", Argument::Int(2));

    #[test]
    fn a_headers_exchange_wants_all_or_any_of_the_headers() {
        use HeadersMatch::{All, Any};
        for (matching, wanted, has, expected) in [
            (All, &[PAPER] as Arguments, &[PAPER] as Arguments, true),
            (All, &[PAPER], &[COPIES, PAPER], true),
            (All, &[PAPER, COLOUR], &[PAPER], false),
            (All, &[PAPER, COLOUR], &[COLOUR, COPIES, PAPER], true),
            (All, &[], &[], true),
            (All, &[], &[PAPER], true),
            (All, &[PAPER], &[], false),
            (Any, &[PAPER, COLOUR], &[COLOUR], true),
            (Any, &[PAPER, COLOUR], &[COPIES], false),
            (Any, &[PAPER], &[], false),
            (Any, &[], &[PAPER], false),
            (All, &[PAPER], &[("paper", Argument::Str("A2"))], false),
            (All, &[PAPER], &[("Paper", Argument::Str("A1"))], false),
            (All, &[COPIES], &[("copies", Argument::Str("2"))], false),
            (All, &[COLOUR], &[("colour", Argument::Bool(false))], false),
            (All, &[COLOUR], &[("colour", Argument::Int(1))], false),
        ] {
            let got = gets(PRINTS.matching(matching, wanted), PRINTS.route(has));
            assert_eq!(got, expected, "{matching:?} {wanted:?} of {has:?}");
        }
    }

    const EU: Topic = Topic::new("eu").bind(&[SHOP.pattern("*.*.eu")]);
    const ALL_EU: Fanout = Fanout::new("all-eu").bind(&[EU.pattern("order.#")]);

    #[test]
    fn a_message_has_to_pass_every_binding_on_its_way() {
        let queue = |binding: Binding, key| gets(binding, SHOP.route(key));
        assert!(queue(ALL_EU.binding(), "order.placed.eu"));
        assert!(!queue(ALL_EU.binding(), "order.placed.us"), "stopped at the first");
        assert!(!queue(ALL_EU.binding(), "parcel.sent.eu"), "stopped at the second");
        assert!(queue(EU.pattern("parcel.#"), "parcel.sent.eu"));
        assert!(!queue(EU.pattern("parcel.#"), "order.placed.eu"), "stopped at the queue");
        assert!(gets(ALL_EU.binding(), EU.route("order")), "half way is a place to start from");
        assert!(!gets(SHOP.pattern("#"), EU.route("order")), "and there is no way back");
    }

    /// Whether a queue with this one binding gets all that arrives at the exchange.
    fn gets_all<K>(
        binding: Binding,
        exchange: crate::topology::exchange::TypedExchange<K>,
    ) -> bool {
        binding.passes_all_of(&exchange.def)
    }

    #[test]
    fn what_has_any_key_passes_only_where_keys_do_not_matter() {
        use HeadersMatch::{All, Any};
        assert!(gets_all(NEWS.binding(), NEWS));
        assert!(gets_all(SHARDS.binding("1"), SHARDS));
        assert!(gets_all(SHOP.pattern("#"), SHOP));
        for pattern in ["*", "order.#", "", "*.#"] {
            assert!(!gets_all(SHOP.pattern(pattern), SHOP), "{pattern}");
        }
        assert!(!gets_all(JOBS.binding("a"), JOBS) && !gets_all(JOBS.binding("#"), JOBS));
        assert!(gets_all(PRINTS.matching(All, &[]), PRINTS));
        assert!(!gets_all(PRINTS.matching(Any, &[]), PRINTS));
        assert!(!gets_all(PRINTS.matching(All, &[PAPER]), PRINTS));
        assert!(!gets_all(NEWS.binding(), Fanout::new("other")), "another exchange");
        assert!(gets_all(ALL_EU.binding(), ALL_EU) && gets_all(EU.pattern("#"), EU));
        assert!(!gets_all(EU.pattern("#"), SHOP), "stopped on its way");
        const FEED: Topic = Topic::new("feed").bind(&[NEWS.binding(), SHOP.pattern("a")]);
        assert!(gets_all(FEED.pattern("#"), NEWS) && !gets_all(FEED.pattern("#"), SHOP));
        assert!(!gets_all(FEED.pattern("a"), NEWS), "stopped at the queue");
    }

    #[test]
    fn one_way_of_several_is_enough() {
        const BOTH: Fanout = Fanout::new("both").bind(&[SHOP.pattern("a"), JOBS.binding("b")]);
        assert!(gets(BOTH.binding(), SHOP.route("a")));
        assert!(gets(BOTH.binding(), JOBS.route("b")));
        assert!(!gets(BOTH.binding(), SHOP.route("b")));
        const QUEUE: WorkQueue<String> =
            WorkQueue::new("queue").bind(&[SHOP.pattern("x"), SHOP.pattern("y"), NEWS.binding()]);
        for key in ["x", "y"] {
            assert!(QUEUE.accepts(&SHOP.route(key)));
        }
        assert!(QUEUE.accepts(&NEWS.route()) && !QUEUE.accepts(&SHOP.route("z")));
    }

    #[test]
    fn headers_travel_over_bound_exchanges_and_keyed_routes_have_none() {
        use HeadersMatch::All;
        const FEED: Fanout = Fanout::new("feed").bind(&[PRINTS.matching(All, &[COPIES])]);
        const LARGE: Headers = Headers::new("large").bind(&[FEED.binding()]);
        assert!(gets(LARGE.matching(All, &[PAPER]), PRINTS.route(&[PAPER, COPIES])));
        assert!(!gets(LARGE.matching(All, &[PAPER]), PRINTS.route(&[PAPER])));
        assert!(!gets(LARGE.matching(All, &[PAPER]), FEED.route()));
        assert!(gets(LARGE.matching(All, &[]), FEED.route()));
    }

    #[test]
    fn the_default_exchange_knows_every_queue_by_its_name() {
        const BILLING: WorkQueue<String> = WorkQueue::new("billing");
        const LEDGER: ReplicatedQueue<String> = ReplicatedQueue::new("ledger");
        const _: () = assert!(BILLING.accepts(&BILLING.route()) && LEDGER.accepts(&LEDGER.route()));
        assert!(!BILLING.accepts(&LEDGER.route()));
        assert!(!BILLING.accepts(&SHOP.route("billing")));
    }
}
