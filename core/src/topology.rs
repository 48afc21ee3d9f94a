//! What a program wants to exist on the broker, as values: the run-time side of the typed constants.

mod binding_spec;
mod change;
pub(crate) mod def;
pub(crate) mod exchange;
mod exchange_spec;
pub(crate) mod pattern;
pub(crate) mod queue;
mod queue_spec;
pub(crate) mod route;

pub use binding_spec::{BindingSpec, Destination};
pub use change::{Change, Found};
pub use exchange_spec::{Exchange, ExchangeKind, ExchangeSpec};
pub use queue_spec::{DeadLetter, Overflow, QueueDeclaration, QueueKind, QueueOption, QueueSpec};

use crate::{
    error::{Error, ErrorKind, Result},
    message::{payload::Payload, value::Table},
    short_str::ShortStr,
    topology::queue::Queue,
};

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

    /// Takes out what a change deletes, and the bindings that go with it.
    pub(crate) fn forget(&mut self, change: &Change) {
        match change {
            Change::DeleteExchange(name) => {
                self.exchanges.retain(|exchange| exchange.name != *name);
                self.bindings.retain(|binding| {
                    binding.source != *name
                        && binding.destination != Destination::Exchange(name.clone())
                });
            }
            Change::DeleteQueue(name) => {
                self.queues.retain(|queue| queue.name != *name);
                self.bindings
                    .retain(|binding| binding.destination != Destination::Queue(name.clone()));
            }
            Change::Unbind(gone) => self.bindings.retain(|binding| binding != gone),
            _ => {}
        }
    }

    /// Gives the queues that each handle has its own of their whole names, and checks what was set
    /// at run time.
    pub(crate) fn localize(mut self, suffix: &str) -> Result<Self> {
        for exchange in &self.exchanges {
            exchange.check()?;
        }
        for (at, queue) in self.queues.iter().enumerate() {
            queue.check()?;
            let name_is_taken =
                |other: &QueueSpec| other.name == queue.name && other.unique != queue.unique;
            if self.queues.iter().take(at).any(name_is_taken) {
                return Err(refuse(queue.subject(), "it is both a temporary queue and another"));
            }
            let goes_there = |other: &QueueSpec| {
                let target = other.dead_letter.as_ref();
                target == Some(&DeadLetter::to_queue(queue.name.clone()))
            };
            if queue.unique && self.queues.iter().any(goes_there) {
                return Err(refuse(
                    queue.subject(),
                    "it is temporary, and dead letters would go to it",
                )
                .remedy("send dead letters to a queue that stays"));
            }
        }
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

fn refuse(subject: String, reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, "describe a topology: check").on(subject).because(reason)
}

/// Refuses arguments that have a typed form: said twice they could disagree, and the rest of the program
/// would not know of them.
fn check_raw(arguments: &Table, typed: &[(&str, &'static str)], subject: String) -> Result<()> {
    match typed.iter().find(|(name, _)| arguments.contains(name)) {
        Some((_, said)) => Err(refuse(subject, *said).remedy("not among further arguments")),
        None => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use std::{fmt, time::Duration};

    use crate::{
        Argument, Direct, Fanout, Headers, HeadersMatch, Plugin, ReplicatedQueue, RouteSpec,
        TemporaryQueue, Topic, WorkQueue,
        message::value::{Table, Value},
    };

    use super::*;

    fn shop() -> ExchangeSpec {
        ExchangeSpec::new("shop", ExchangeKind::Topic).unwrap()
    }

    fn billing() -> Destination {
        Destination::Queue(ShortStr::from_static("billing"))
    }

    fn refused<T: fmt::Debug>(result: Result<T>, parts: &[&str]) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "{part:?} is missing in {error}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_empty_or_the_brokers_is_refused_with_field_and_limit() {
        let long = "é".repeat(128);
        let limit = "256 bytes exceed the limit of 255 bytes";
        refused(ExchangeSpec::new(&*long, ExchangeKind::Direct), &["exchange \"é", limit]);
        refused(QueueSpec::new(&*long), &["queue \"é", limit]);
        refused(BindingSpec::new(&shop(), billing(), &*long), &["binding key \"é", limit]);
        refused(RouteSpec::<String>::new(&shop(), &*long), &["routing key \"é", limit]);
        refused(RouteSpec::<String>::to_queue(&*long), &["queue \"é", limit]);
        refused(ExchangeSpec::new("", ExchangeKind::Direct), &["exchange", "the name is empty"]);
        refused(QueueSpec::new(""), &["queue", "the name is empty"]);
        refused(RouteSpec::<String>::to_queue(""), &["needs the name of a queue"]);
        refused(
            ExchangeSpec::new("amq.x", ExchangeKind::Direct),
            &["exchange \"amq.x\"", "broker"],
        );
        refused(QueueSpec::new("amq.gen-1"), &["queue \"amq.gen-1\"", "belong to the broker"]);
        refused(QueueSpec::new("a\0b"), &["queue \"a\\0b\"", "contains a NUL"]);
        QueueSpec::new("n".repeat(255)).unwrap();
        QueueSpec::new("amq").unwrap();
        ExchangeSpec::new("AMQ.x", ExchangeKind::Direct).unwrap();
    }

    #[test]
    fn a_key_that_an_exchange_would_misread_or_ignore_is_refused() {
        let fanout = ExchangeSpec::new("news", ExchangeKind::Fanout).unwrap();
        let headers = ExchangeSpec::new("prints", ExchangeKind::Headers).unwrap();
        for key in ["order.*", "#", "*", "a.#.b"] {
            refused(
                RouteSpec::<String>::new(&shop(), key),
                &["exchange \"shop\"", key, "wildcard"],
            );
            BindingSpec::new(&shop(), billing(), key).unwrap();
        }
        for exchange in [&fanout, &headers] {
            refused(RouteSpec::<String>::new(exchange, "key"), &["does not read", "\"key\""]);
            refused(BindingSpec::new(exchange, billing(), "key"), &["does not read", "\"key\""]);
            RouteSpec::<String>::new(exchange, "").unwrap();
            BindingSpec::new(exchange, billing(), "").unwrap();
        }
        let direct = ExchangeSpec::new("jobs", ExchangeKind::Direct).unwrap();
        RouteSpec::<String>::new(&direct, "a.*").unwrap();
        RouteSpec::<String>::new(&shop(), "a.b*").unwrap();
        refused(
            RouteSpec::<String>::new(&ExchangeSpec::default_exchange(), ""),
            &["name of a queue"],
        );
    }

    #[test]
    fn a_typed_exchange_is_the_same_as_one_made_at_run_time() {
        const ALL: Topic = Topic::new("shop")
            .transient()
            .auto_delete()
            .internal()
            .alternate_named("lost")
            .arguments(&[("x-own", Argument::Int(7)), ("x-flag", Argument::Bool(true))]);
        let mut all = shop();
        (all.durable, all.auto_delete, all.internal) = (false, true, true);
        all.alternate = Some(ShortStr::from_static("lost"));
        all.arguments.insert("x-own", 7).unwrap();
        all.arguments.insert("x-flag", true).unwrap();
        assert_eq!(ALL.spec(), all);
        let mut wire = all.arguments.clone();
        wire.insert("alternate-exchange", "lost").unwrap();
        assert_eq!(all.wire_arguments(), wire);

        const SHARDS: Plugin = Plugin::of_kind("shop", "x-consistent-hash");
        let plugin = ExchangeKind::Plugin(ShortStr::from_static("x-consistent-hash"));
        for (typed, kind, name) in [
            (&Direct::new("shop") as &dyn Exchange, ExchangeKind::Direct, "direct"),
            (&Fanout::new("shop"), ExchangeKind::Fanout, "fanout"),
            (&Topic::new("shop"), ExchangeKind::Topic, "topic"),
            (&Headers::new("shop"), ExchangeKind::Headers, "headers"),
            (&SHARDS, plugin, "x-consistent-hash"),
        ] {
            let spec = ExchangeSpec::new("shop", kind).unwrap();
            assert_eq!(typed.spec(), spec);
            assert_eq!(spec.kind.to_string(), name);
            assert!(spec.wire_arguments().is_empty());
        }
    }

    #[test]
    fn a_typed_queue_is_the_same_as_one_made_at_run_time() {
        const WORK: WorkQueue<String> = WorkQueue::new("billing")
            .message_ttl(Duration::from_secs(60))
            .expires(Duration::from_micros(1500))
            .max_length(10)
            .max_bytes(u64::MAX)
            .overflow(Overflow::RejectPublish)
            .dead_letter_queue_named("dead")
            .max_priority(5)
            .single_active_consumer()
            .arguments(&[("x-own", Argument::Str("mine"))]);
        let mut work = QueueSpec::new("billing").unwrap();
        work.message_ttl = Some(Duration::from_secs(60));
        work.expires = Some(Duration::from_micros(1500));
        work.max_length = Some(10);
        work.max_bytes = Some(u64::MAX);
        work.overflow = Some(Overflow::RejectPublish);
        work.dead_letter = Some(DeadLetter::to_queue(ShortStr::from_static("dead")));
        work.max_priority = Some(5);
        work.single_active_consumer = true;
        work.arguments.insert("x-own", "mine").unwrap();
        assert_eq!(WORK.spec(), work);
        let expected: Table = [
            ("x-own", Value::from("mine")),
            ("x-queue-type", Value::from("classic")),
            ("x-message-ttl", Value::from(60_000)),
            ("x-expires", Value::from(2)),
            ("x-max-length", Value::from(10)),
            ("x-max-length-bytes", Value::from(i64::MAX)),
            ("x-overflow", Value::from("reject-publish")),
            ("x-dead-letter-exchange", Value::from("")),
            ("x-dead-letter-routing-key", Value::from("dead")),
            ("x-max-priority", Value::from(5)),
            ("x-single-active-consumer", Value::from(true)),
        ]
        .into_iter()
        .map(|(name, value)| (ShortStr::from_static(name), value))
        .collect();
        assert_eq!(work.wire_arguments(), expected);

        const PLAIN: WorkQueue<String> = WorkQueue::new("billing");
        assert_eq!(PLAIN.spec(), QueueSpec::new("billing").unwrap());
        let type_of =
            |wire: &Table| wire.get("x-queue-type").and_then(Value::as_str).map(str::to_owned);
        let wire = PLAIN.spec().wire_arguments();
        assert_eq!((type_of(&wire).as_deref(), wire.len()), (Some("classic"), 1), "{wire:?}");

        const LEDGER: ReplicatedQueue<String> =
            ReplicatedQueue::new("ledger").dead_letter_exchange_named("lost").delivery_limit(5);
        let mut ledger = QueueSpec::new("ledger").unwrap();
        ledger.kind = QueueKind::Replicated;
        ledger.delivery_limit = Some(5);
        ledger.dead_letter =
            Some(DeadLetter { exchange: ShortStr::from_static("lost"), routing_key: None });
        assert_eq!(LEDGER.spec(), ledger);
        let wire = ledger.wire_arguments();
        assert_eq!(type_of(&wire).as_deref(), Some("quorum"));
        assert_eq!(wire.get("x-delivery-limit").and_then(Value::as_int), Some(5));
        assert_eq!(wire.len(), 3, "{wire:?}");
        const JOURNAL: ReplicatedQueue<String> = ReplicatedQueue::new("journal");
        let limit = JOURNAL.spec().wire_arguments().get("x-delivery-limit").and_then(Value::as_int);
        assert_eq!(limit, Some(QueueSpec::NO_DELIVERY_LIMIT), "the broker has one of its own");

        const SCREEN: TemporaryQueue<String> = TemporaryQueue::new("screen");
        let mut screen = QueueSpec::new("screen").unwrap();
        (screen.durable, screen.exclusive, screen.auto_delete, screen.unique) =
            (false, true, true, true);
        assert_eq!(SCREEN.spec(), screen);
        let wire = screen.wire_arguments();
        assert_eq!((type_of(&wire).as_deref(), wire.len()), (Some("classic"), 1), "{wire:?}");
    }

    /// What a topology with this queue or exchange in it is refused for.
    fn localized(change: impl FnOnce(&mut QueueSpec, &mut ExchangeSpec)) -> Result<Topology> {
        let (mut queue, mut exchange) = (QueueSpec::new("billing")?, shop());
        change(&mut queue, &mut exchange);
        let mut topology = Topology::new();
        topology.add_queue(queue);
        topology.add_exchange(exchange);
        topology.localize("suffix")
    }

    #[test]
    fn what_a_queue_or_an_exchange_names_by_its_type_is_declared_with_it_and_before_it() {
        const STRAY: Fanout = Fanout::new("stray");
        const LOST: Topic = Topic::new("lost").alternate(&STRAY);
        const GRAVEYARD: WorkQueue<String> = WorkQueue::new("graveyard").bind(&[LOST.pattern("#")]);
        const SORTED: ReplicatedQueue<u32> = ReplicatedQueue::new("sorted")
            .bind(&[LOST.pattern("order.*")])
            .dead_letters_to(&GRAVEYARD);
        const OVER: WorkQueue<String> = WorkQueue::new("over").dead_letters_over(&LOST, &GRAVEYARD);
        const AS: WorkQueue<String> =
            WorkQueue::new("as").dead_letters_over_as(&LOST, "order.failed", &SORTED);
        let names = |topology: &Topology| {
            let exchanges = topology.exchanges().iter().map(|it| it.name.to_string());
            let queues = topology.queues().iter().map(|it| it.name.to_string());
            (exchanges.collect::<Vec<_>>().join(" "), queues.collect::<Vec<_>>().join(" "))
        };
        let lost = ShortStr::from_static("lost");
        let topology = Topology::new().with_queue(&SORTED);
        assert_eq!(names(&topology), ("stray lost".to_owned(), "graveyard sorted".to_owned()));
        assert_eq!(topology.bindings().len(), 2);
        let dead_letter = DeadLetter::to_queue(ShortStr::from_static("graveyard"));
        assert_eq!(SORTED.spec().dead_letter, Some(dead_letter));
        let topology = Topology::new().with_queue(&OVER);
        assert_eq!(names(&topology), ("stray lost".to_owned(), "graveyard over".to_owned()));
        let dead_letter = DeadLetter { exchange: lost.clone(), routing_key: None };
        assert_eq!(OVER.spec().dead_letter, Some(dead_letter));
        let topology = Topology::new().with_queue(&AS);
        assert_eq!(names(&topology).1, "graveyard sorted as");
        let routing_key = Some(ShortStr::from_static("order.failed"));
        assert_eq!(AS.spec().dead_letter, Some(DeadLetter { exchange: lost, routing_key }));
        assert_eq!(LOST.spec().alternate, Some(ShortStr::from_static("stray")));

        let at_run_time =
            QueueSpec::new("sorted").unwrap().of::<String>().dead_letters_to(&GRAVEYARD);
        assert_eq!(at_run_time.spec().dead_letter, SORTED.spec().dead_letter);
        assert_eq!(names(&Topology::new().with_queue(&at_run_time)).1, "graveyard sorted");
    }

    #[test]
    fn dead_letters_go_to_something_that_has_a_name_and_stays() {
        let refusal = localized(|queue, _| {
            queue.dead_letter = Some(DeadLetter { exchange: ShortStr::EMPTY, routing_key: None });
        });
        refused(refusal, &["queue \"billing\"", "the queue without a name", "name a queue"]);
        const SCREEN: TemporaryQueue<String> = TemporaryQueue::new("screen");
        let queue = QueueSpec::new("billing").unwrap().of::<String>().dead_letters_to(&SCREEN);
        let refusal = Topology::new().with_queue(&queue).localize("suffix");
        refused(refusal, &["queue \"screen\"", "temporary", "a queue that stays"]);
    }

    #[test]
    fn an_argument_that_has_a_typed_form_is_refused_with_that_form() {
        // Everything that a queue or an exchange says by itself, so that none is forgotten.
        let mut all = QueueSpec::new("billing").unwrap();
        all.message_ttl = Some(Duration::from_secs(1));
        all.expires = Some(Duration::from_secs(1));
        (all.max_length, all.max_bytes, all.max_priority) = (Some(1), Some(1), Some(1));
        all.overflow = Some(Overflow::DropHead);
        let exchange = ShortStr::from_static("lost");
        all.dead_letter =
            Some(DeadLetter { exchange: exchange.clone(), routing_key: Some(exchange) });
        all.single_active_consumer = true;
        all.delivery_limit = Some(1);
        let arguments = all.wire_arguments();
        assert_eq!(arguments.len(), queue_spec::TYPED_ARGUMENTS.len());
        for (name, value) in arguments.iter() {
            let refusal = localized(|queue, _| queue.arguments.set(name.clone(), value.clone()));
            refused(refusal, &["queue \"billing\"", &format!("{name} is said by ")]);
        }
        let refusal = localized(|_, exchange| {
            exchange.arguments.insert("alternate-exchange", "lost").unwrap();
        });
        refused(refusal, &["exchange \"shop\"", "alternate-exchange is said by alternate"]);
        localized(|queue, exchange| {
            queue.arguments.insert("x-queue-mode", "lazy").unwrap();
            exchange.arguments.insert("x-own", 1).unwrap();
        })
        .unwrap();
    }

    #[test]
    fn a_delivery_limit_needs_a_place_for_what_exceeds_it() {
        let limited = |queue: &mut QueueSpec| {
            queue.kind = QueueKind::Replicated;
            queue.delivery_limit = Some(5);
        };
        let refusal = localized(|queue, _| limited(queue));
        refused(refusal, &["queue \"billing\"", "without dead letters", "say where"]);
        localized(|queue, _| {
            limited(queue);
            queue.passive = true;
        })
        .unwrap();
    }

    #[test]
    fn a_typed_route_is_the_same_as_one_made_at_run_time() {
        const SHOP: Topic = Topic::new("shop");
        let typed = RouteSpec::from(SHOP.route::<String>("order.placed"));
        let spec = RouteSpec::<String>::new(&shop(), "order.placed").unwrap();
        assert_eq!(
            (&typed.topology, &typed.exchange, &typed.key),
            (&spec.topology, &spec.exchange, &spec.key)
        );
        assert_eq!((&typed.kind, &typed.headers), (&spec.kind, &spec.headers));
        const BILLING: WorkQueue<String> = WorkQueue::new("billing");
        let typed = RouteSpec::from(BILLING.route());
        let spec = RouteSpec::<String>::to_queue("billing").unwrap();
        assert_eq!(
            (&typed.topology, &typed.exchange, &typed.key),
            (&spec.topology, &spec.exchange, &spec.key)
        );
        assert!(spec.topology.exchanges().is_empty(), "the default exchange is never declared");
    }

    const SHOP: Topic = Topic::new("shop");
    const EU: Topic = Topic::new("eu").bind(&[SHOP.pattern("*.*.eu")]);
    const AUDIT: Headers = Headers::new("audit").bind(&[EU.pattern("#"), SHOP.pattern("order.#")]);
    const LEDGER: WorkQueue<String> = WorkQueue::new("ledger")
        .bind(&[AUDIT.matching(HeadersMatch::Any, &[("paid", Argument::Bool(true))])]);

    fn names(topology: &Topology) -> Vec<&str> {
        topology.exchanges().iter().map(|exchange| &*exchange.name).collect()
    }

    #[test]
    fn an_exchange_is_described_after_those_it_is_bound_to_and_each_once() {
        let topology = Topology::new().with_queue(&LEDGER).with_exchange(&EU).with_queue(&LEDGER);
        assert_eq!(names(&topology), ["shop", "eu", "audit"]);
        assert_eq!(topology.queues().len(), 1);
        let bindings: Vec<_> = topology.bindings().iter().map(BindingSpec::subject).collect();
        assert_eq!(
            bindings,
            [
                "exchange \"eu\" to exchange \"shop\" by \"*.*.eu\"",
                "exchange \"audit\" to exchange \"eu\" by \"#\"",
                "exchange \"audit\" to exchange \"shop\" by \"order.#\"",
                "queue \"ledger\" to exchange \"audit\" by \"\"",
            ]
        );
        let arguments = &topology.bindings()[3].arguments;
        assert_eq!(arguments.get("x-match").and_then(Value::as_str), Some("any"));
        assert_eq!(arguments.get("paid").and_then(Value::as_bool), Some(true));
    }

    #[test]
    fn a_topology_may_be_put_together_in_any_order() {
        let mut one = Topology::new().with_exchange(&SHOP);
        one.extend(Topology::new().with_queue(&LEDGER));
        assert_eq!(one, Topology::new().with_exchange(&SHOP).with_queue(&LEDGER));
        let again = one.clone();
        one.extend(again.clone());
        assert_eq!(one, again);
    }

    /// The broker has to see both, to say which argument differs.
    #[test]
    fn the_same_name_with_other_arguments_is_not_dropped() {
        let topology =
            Topology::new().with_exchange(&SHOP).with_exchange(&Topic::new("shop").transient());
        assert_eq!(topology.exchanges().len(), 2);
    }

    #[test]
    fn what_the_broker_brings_along_is_not_declared() {
        let mut topology = Topology::new();
        topology.add_exchange(ExchangeSpec::default_exchange());
        let existing =
            ExchangeSpec::existing(ShortStr::from_static("amq.topic"), ExchangeKind::Topic);
        topology.add_exchange(existing);
        assert!(topology.exchanges().is_empty());
    }

    #[test]
    fn a_temporary_queue_gets_its_whole_name_and_its_bindings_with_it() {
        const SCREEN: TemporaryQueue<String> =
            TemporaryQueue::new("screen").bind(&[SHOP.pattern("#"), EU.pattern("a")]);
        const WORK: WorkQueue<String> = WorkQueue::new("work").bind(&[SHOP.pattern("work")]);
        let topology = Topology::new().with_queue(&SCREEN).with_queue(&WORK);
        let local = topology.clone().localize("me").unwrap();
        let queues: Vec<_> =
            local.queues().iter().map(|queue| (&*queue.name, queue.unique)).collect();
        assert_eq!(queues, [("screen.me", false), ("work", false)]);
        let to = |name| Destination::Queue(ShortStr::from_static(name));
        let destinations: Vec<_> =
            local.bindings().iter().map(|binding| binding.destination.clone()).collect();
        let eu = Destination::Exchange(ShortStr::from_static("eu"));
        assert_eq!(destinations, [to("screen.me"), eu, to("screen.me"), to("work")]);
        assert_eq!(local.clone().localize("you").unwrap(), local, "once is enough");
    }

    #[test]
    fn a_name_that_has_no_room_for_the_suffix_is_refused() {
        let suffix = "0".repeat(32);
        let mut spec = QueueSpec::new("n".repeat(223)).unwrap();
        spec.unique = true;
        let mut topology = Topology::new();
        topology.add_queue(spec);
        refused(topology.localize(&suffix), &["queue", "256 bytes exceed the limit of 255"]);
    }
}
