//! Exchanges and bindings, and the queues that a message goes to.

use std::{collections::HashMap, sync::Arc};

use enoki_core::{
    BindingSpec, Destination, ExchangeKind, ExchangeSpec, ShortStr, Table, topic_matches,
};

use super::{QueueKey, headers_match::HeadersMatch};
use crate::version::Comparison;

/// The queues that a message goes to, each once.
pub(crate) type Targets = Arc<[QueueKey]>;

pub(crate) struct Routing {
    comparison: Comparison,
    exchanges: HashMap<ShortStr, Exchange>,
    queues: HashMap<ShortStr, QueueKey>,
    /// The route of each exchange and key, where it does not depend on the headers. Every change of the
    /// topology clears it; it holds at most [`MAX_KNOWN`] keys.
    known: HashMap<ShortStr, HashMap<ShortStr, Targets>>,
    known_keys: usize,
}

struct Exchange {
    spec: ExchangeSpec,
    alternate: Option<ShortStr>,
    bindings: Vec<BindingSpec>,
}

/// The queues that a message goes to, and whether every message with this key goes there.
pub(crate) struct ResolvedRoute {
    pub(crate) targets: Targets,
    pub(crate) is_fixed: bool,
}

impl Routing {
    pub(crate) fn new(comparison: Comparison) -> Self {
        let mut routing = Self {
            comparison,
            exchanges: HashMap::new(),
            queues: HashMap::new(),
            known: HashMap::new(),
            known_keys: 0,
        };
        for (name, kind) in [
            ("", ExchangeKind::Direct),
            ("amq.direct", ExchangeKind::Direct),
            ("amq.fanout", ExchangeKind::Fanout),
            ("amq.topic", ExchangeKind::Topic),
            ("amq.headers", ExchangeKind::Headers),
            ("amq.match", ExchangeKind::Headers),
        ] {
            routing.add_exchange(ExchangeSpec::existing(ShortStr::from_static(name), kind), None);
        }
        routing
    }

    pub(crate) fn exchange(&self, name: &str) -> Option<&ExchangeSpec> {
        self.exchanges.get(name).map(|exchange| &exchange.spec)
    }

    pub(crate) fn queue(&self, name: &str) -> Option<QueueKey> {
        self.queues.get(name).copied()
    }

    /// Adds an exchange. What it cannot route goes to the alternate exchange, if that exists then.
    pub(crate) fn add_exchange(&mut self, spec: ExchangeSpec, alternate: Option<ShortStr>) {
        self.forget_routes();
        let name = spec.name.clone();
        self.exchanges.insert(name, Exchange { spec, alternate, bindings: Vec::new() });
    }

    pub(crate) fn add_queue(&mut self, name: ShortStr, key: QueueKey) {
        self.forget_routes();
        self.queues.insert(name, key);
    }

    /// Adds a binding unless there is an equal one.
    pub(crate) fn add_binding(&mut self, binding: BindingSpec) {
        self.forget_routes();
        if let Some(exchange) = self.exchanges.get_mut(&binding.source)
            && !exchange.bindings.contains(&binding)
        {
            exchange.bindings.push(binding);
        }
    }

    pub(crate) fn remove_exchange(&mut self, name: &ShortStr) {
        if self.exchanges.remove(name).is_some() {
            self.remove_bindings(|binding| is_to_exchange(binding, name));
        }
    }

    pub(crate) fn remove_queue(&mut self, name: &ShortStr) {
        if self.queues.remove(name).is_some() {
            self.remove_bindings(
                |binding| matches!(&binding.destination, Destination::Queue(other) if other == name),
            );
        }
    }

    pub(crate) fn remove_binding(&mut self, binding: &BindingSpec) {
        self.remove_bindings(|other| other == binding);
    }

    /// Removes bindings, and the exchanges that were to go with their last one, and so on.
    fn remove_bindings(&mut self, is_gone: impl Fn(&BindingSpec) -> bool) {
        self.forget_routes();
        let mut orphans = Vec::new();
        for (name, exchange) in &mut self.exchanges {
            let before = exchange.bindings.len();
            exchange.bindings.retain(|binding| !is_gone(binding));
            if exchange.spec.auto_delete && exchange.bindings.is_empty() && before > 0 {
                orphans.push(name.clone());
            }
        }
        for name in &orphans {
            self.remove_exchange(name);
        }
    }

    /// Where a message goes; `None` if there is no such exchange.
    pub(crate) fn resolve(
        &mut self,
        exchange: &ShortStr,
        key: &ShortStr,
        headers: &Table,
    ) -> Option<ResolvedRoute> {
        if let Some(targets) = self.known.get(exchange).and_then(|keys| keys.get(key)) {
            return Some(ResolvedRoute { targets: Arc::clone(targets), is_fixed: true });
        }
        let route = self.resolve_anew(self.exchanges.get(exchange)?, key, headers);
        if route.is_fixed {
            // A program may compute a key for each message, so what is remembered has a bound.
            if self.known_keys >= MAX_KNOWN {
                self.forget_routes();
            }
            self.known_keys += 1;
            let keys = self.known.entry(exchange.clone()).or_default();
            keys.insert(key.clone(), Arc::clone(&route.targets));
        }
        Some(route)
    }

    fn resolve_anew(&self, from: &Exchange, key: &ShortStr, headers: &Table) -> ResolvedRoute {
        let mut targets = Vec::new();
        let mut is_fixed = true;
        // Exchanges may be bound in a circle: each is visited once.
        let mut found = vec![&from.spec.name];
        let mut next = 0;
        while let Some(&name) = found.get(next) {
            next += 1;
            let Some(exchange) = self.exchanges.get(name) else { continue };
            if name.is_empty() {
                self.queue(key).into_iter().for_each(|queue| add(&mut targets, queue));
                continue;
            }
            is_fixed &= exchange.spec.kind != ExchangeKind::Headers;
            let mut is_routed = false;
            let passes = |b: &&BindingSpec| exchange.passes(b, key, headers, self.comparison);
            for binding in exchange.bindings.iter().filter(passes) {
                is_routed = true;
                match &binding.destination {
                    Destination::Queue(name) => {
                        self.queue(name).into_iter().for_each(|queue| add(&mut targets, queue));
                    }
                    Destination::Exchange(name) => add(&mut found, name),
                }
            }
            if !is_routed && let Some(alternate) = &exchange.alternate {
                add(&mut found, alternate);
            }
        }
        ResolvedRoute { targets: targets.into(), is_fixed }
    }

    fn forget_routes(&mut self) {
        self.known.clear();
        self.known_keys = 0;
    }
}

impl Exchange {
    fn passes(
        &self,
        binding: &BindingSpec,
        key: &str,
        headers: &Table,
        comparison: Comparison,
    ) -> bool {
        match self.spec.kind {
            ExchangeKind::Direct => binding.key == *key,
            ExchangeKind::Topic => topic_matches(&binding.key, key),
            ExchangeKind::Headers => {
                HeadersMatch::of(&binding.arguments).is_some_and(|headers_match| {
                    headers_match.matches(&binding.arguments, headers, comparison)
                })
            }
            // Other kinds are refused at declare.
            _ => true,
        }
    }
}

/// Adds an item that is not there yet.
fn add<T: PartialEq>(to: &mut Vec<T>, item: T) {
    if !to.contains(&item) {
        to.push(item);
    }
}

fn is_to_exchange(binding: &BindingSpec, name: &ShortStr) -> bool {
    matches!(&binding.destination, Destination::Exchange(other) if other == name)
}

const MAX_KNOWN: usize = 4096;
