//! Changes to the topology.

use std::fmt::Debug;

use enoki_core::{
    BindingSpec, Destination, Error, ErrorKind, ExchangeKind, ExchangeSpec, QueueSpec, Result,
    ShortStr, Table, Value,
    transport::{Change, Found},
};
use tokio::time::Instant;

use crate::{
    broker::{HeadersMatch, Queue, SessionKey, State},
    error,
};

/// Makes one change for a session, or looks.
pub(crate) fn apply(
    state: &mut State,
    session: SessionKey,
    change: &Change,
    now: Instant,
) -> Result<Found> {
    match change {
        Change::DeclareExchange(spec) => declare_exchange(state, spec),
        Change::VerifyExchange(spec) => verify_exchange(state, spec, "verify"),
        Change::DeleteExchange(name) => delete_exchange(state, name),
        Change::DeclareQueue(spec) => declare_queue(state, session, spec, now),
        Change::VerifyQueue(spec) => verify_queue(state, session, spec, "verify", now),
        Change::DeleteQueue(name) => delete_queue(state, session, name),
        Change::PurgeQueue(name) => purge_queue(state, session, name),
        Change::Bind(binding) => bind(state, session, binding),
        Change::Unbind(binding) => unbind(state, session, binding),
        other => Err(Error::new(ErrorKind::Unsupported, "change the topology")
            .because(format!("this broker does not know {other:?}"))),
    }
}

// --- exchanges ---

fn declare_exchange(state: &mut State, spec: &ExchangeSpec) -> Result<Found> {
    if let ExchangeKind::Plugin(kind) = &spec.kind {
        return Err(Error::new(ErrorKind::Unsupported, "declare")
            .on(spec.subject())
            .because(format!("this broker has no plugin for the kind {:?}", kind.as_str())));
    }
    if state.routing.exchange(&spec.name).is_some() {
        return verify_exchange(state, spec, "declare");
    }
    refuse_reserved("declare", &spec.name, spec.subject())?;
    let alternate = match spec.wire_arguments().get("alternate-exchange") {
        None => None,
        Some(Value::String(name)) => Some(ShortStr::new(name.as_str())?),
        Some(value) => {
            let reason = format!("alternate-exchange is {value:?}; it must be a text");
            return Err(error::bad_argument("declare", spec.subject(), reason));
        }
    };
    state.routing.add_exchange(spec.clone(), alternate);
    Ok(Found::default())
}

fn verify_exchange(state: &State, spec: &ExchangeSpec, operation: &'static str) -> Result<Found> {
    let Some(found) = state.routing.exchange(&spec.name) else {
        return Err(error::no_exchange(operation, &spec.name));
    };
    if spec.passive {
        return Ok(Found::default());
    }
    let mut compare = Comparison::default();
    compare.field("kind", &found.kind.as_str(), &spec.kind.as_str());
    compare.field("durable", &found.durable, &spec.durable);
    compare.field("auto_delete", &found.auto_delete, &spec.auto_delete);
    compare.field("internal", &found.internal, &spec.internal);
    compare.tables(&found.wire_arguments(), &spec.wire_arguments());
    compare.done(operation, spec.subject())
}

fn delete_exchange(state: &mut State, name: &ShortStr) -> Result<Found> {
    refuse_reserved("delete", name, error::exchange_subject(name))?;
    state.routing.remove_exchange(name);
    Ok(Found::default())
}

// --- queues ---

fn declare_queue(
    state: &mut State,
    session: SessionKey,
    spec: &QueueSpec,
    now: Instant,
) -> Result<Found> {
    if state.routing.queue(&spec.name).is_none() {
        refuse_reserved("declare", &spec.name, spec.subject())?;
        let owner = spec.exclusive.then_some(session);
        let queue = Queue::new(spec.clone(), owner, state.behaviour)?;
        state.add_queue(queue, now);
        return Ok(Found::default());
    }
    verify_queue(state, session, spec, "declare", now)
}

fn verify_queue(
    state: &mut State,
    session: SessionKey,
    spec: &QueueSpec,
    operation: &'static str,
    now: Instant,
) -> Result<Found> {
    let key = state.usable_queue(operation, &spec.name, session)?;
    let Some(queue) = state.queues.get_mut(key) else {
        return Err(error::no_queue(operation, &spec.name));
    };
    if spec.passive {
        // To look is to use.
        queue.touch(now);
        return Ok(contents(queue));
    }
    let found = &queue.spec;
    let mut compare = Comparison::default();
    compare.field("durable", &found.durable, &spec.durable);
    compare.field("exclusive", &found.exclusive, &spec.exclusive);
    compare.field("auto_delete", &found.auto_delete, &spec.auto_delete);
    compare.tables(&found.wire_arguments(), &spec.wire_arguments());
    compare.done(operation, spec.subject())?;
    queue.touch(now);
    Ok(contents(queue))
}

fn delete_queue(state: &mut State, session: SessionKey, name: &ShortStr) -> Result<Found> {
    if state.routing.queue(name).is_none() {
        return Ok(Found::default());
    }
    let key = state.usable_queue("delete", name, session)?;
    let found = state.queues.get(key).map(contents).unwrap_or_default();
    state.delete_queue(key);
    Ok(found)
}

fn purge_queue(state: &mut State, session: SessionKey, name: &ShortStr) -> Result<Found> {
    let key = state.usable_queue("purge", name, session)?;
    let Some(queue) = state.queues.get_mut(key) else {
        return Err(error::no_queue("purge", name));
    };
    let mut found = contents(queue);
    found.messages += queue.delayed.len();
    queue.ready.clear();
    queue.delayed.clear();
    Ok(found)
}

fn contents(queue: &Queue) -> Found {
    Found {
        messages: queue.ready.len(),
        consumers: u32::try_from(queue.consumers().len()).unwrap_or(u32::MAX),
    }
}

// --- bindings ---

fn bind(state: &mut State, session: SessionKey, binding: &BindingSpec) -> Result<Found> {
    refuse_default_exchange("bind", binding)?;
    let source = state
        .routing
        .exchange(&binding.source)
        .ok_or_else(|| error::no_exchange("bind", &binding.source))?;
    if source.kind == ExchangeKind::Headers && HeadersMatch::of(&binding.arguments).is_none() {
        return Err(error::bad_argument(
            "bind",
            binding.subject(),
            format!(
                "x-match is {:?}; it must be all, any, all-with-x or any-with-x",
                binding.arguments.get("x-match")
            ),
        ));
    }
    match &binding.destination {
        Destination::Queue(name) => {
            state.usable_queue("bind", name, session)?;
        }
        Destination::Exchange(name) => {
            state.routing.exchange(name).ok_or_else(|| error::no_exchange("bind", name))?;
        }
    }
    state.routing.add_binding(binding.clone());
    Ok(Found::default())
}

fn unbind(state: &mut State, session: SessionKey, binding: &BindingSpec) -> Result<Found> {
    refuse_default_exchange("unbind", binding)?;
    if let Destination::Queue(name) = &binding.destination
        && state.routing.queue(name).is_some()
    {
        state.usable_queue("unbind", name, session)?;
    }
    state.routing.remove_binding(binding);
    Ok(Found::default())
}

/// Every queue is bound to the default exchange by its name, and nothing else is.
fn refuse_default_exchange(operation: &'static str, binding: &BindingSpec) -> Result<()> {
    let to_default = matches!(&binding.destination, Destination::Exchange(name) if name.is_empty());
    if binding.source.is_empty() || to_default {
        return Err(error::denied(
            operation,
            binding.subject(),
            "the bindings of the default exchange are not to be changed",
        ));
    }
    Ok(())
}

fn refuse_reserved(operation: &'static str, name: &ShortStr, subject: String) -> Result<()> {
    if name.is_empty() || name.starts_with("amq.") {
        return Err(error::denied(operation, subject, "this name belongs to the broker"));
    }
    Ok(())
}

// --- comparison ---

/// Collects the differences between what exists and what is asked for.
#[derive(Default)]
struct Comparison(Vec<String>);

impl Comparison {
    fn field<T: Debug + PartialEq>(&mut self, name: &str, found: &T, asked: &T) {
        if found != asked {
            self.0.push(format!("{name} is {found:?}, not {asked:?}"));
        }
    }

    fn tables(&mut self, found: &Table, asked: &Table) {
        for (name, value) in asked.iter() {
            self.value(name, found.get(name), Some(value));
        }
        for (name, value) in found.iter().filter(|(name, _)| !asked.contains(name)) {
            self.value(name, Some(value), None);
        }
    }

    fn value(&mut self, name: &str, found: Option<&Value>, asked: Option<&Value>) {
        if found != asked {
            self.0.push(format!("{name} is {}, not {}", show(found), show(asked)));
        }
    }

    fn done(self, operation: &'static str, subject: String) -> Result<Found> {
        if self.0.is_empty() {
            return Ok(Found::default());
        }
        Err(error::differs(operation, subject, self.0.join(" and ")))
    }
}

fn show(value: Option<&Value>) -> String {
    match value {
        None => "absent".into(),
        Some(Value::Int(number)) => number.to_string(),
        Some(Value::Bool(truth)) => truth.to_string(),
        Some(Value::Float(number)) => number.to_string(),
        Some(Value::String(text)) => format!("{text:?}"),
        Some(other) => format!("{other:?}"),
    }
}
