//! What has to be equal at each hop.

use std::fmt::Debug;

use enoki::message::{ShortStr, Table, Value};
use enoki_interop::Checked;
use serde_json::json;

use super::story::{Hops, Story, Told};

/// Looks at one hop of all calls.
pub(crate) type Check = fn(&Story, &Told) -> Result<(), String>;

pub(crate) fn to_enoki(story: &Story, told: &Told) -> Result<(), String> {
    told.messages
        .iter()
        .try_for_each(|hops| arrived_at_enoki(story, told, hops, &hops.call.headers, "cook"))
}

/// nameko's dispatcher takes no headers of one's own.
pub(crate) fn event_to_enoki(story: &Story, told: &Told) -> Result<(), String> {
    told.events
        .iter()
        .try_for_each(|hops| arrived_at_enoki(story, told, hops, &Table::new(), "listen"))
}

pub(crate) fn to_nameko(story: &Story, told: &Told) -> Result<(), String> {
    told.messages
        .iter()
        .try_for_each(|hops| arrived_at_nameko(story, told, hops, &hops.call.headers, "keep"))
}

pub(crate) fn event_to_nameko(story: &Story, told: &Told) -> Result<(), String> {
    told.events
        .iter()
        .try_for_each(|hops| arrived_at_nameko(story, told, hops, &Table::new(), "hear"))
}

/// From the first to the last, each with a part of its own.
pub(crate) fn stack(_: &Story, told: &Told) -> Result<(), String> {
    for (hops, methods) in told
        .messages
        .iter()
        .map(|hops| (hops, ["order", "kitchen.cook", "keep"]))
        .chain(told.events.iter().map(|hops| (hops, ["announce", "kitchen.listen", "hear"])))
    {
        let ids = &hops.consumed.call_ids;
        same("how many calls", &ids.len(), &3)?;
        for (id, method) in ids.iter().zip(methods) {
            let begins = format!("{}.{method}.", told.service);
            if !id.starts_with(&begins) {
                return Err(format!("{id} should be a call of {begins}: {ids:?}"));
            }
        }
    }
    Ok(())
}

fn arrived_at_enoki(
    story: &Story,
    told: &Told,
    hops: &Hops,
    headers: &Table,
    handler: &str,
) -> Result<(), String> {
    let (sent, arrived) = (&hops.published, &hops.handled);
    same("the body", &arrived.body, &hops.call.body)?;
    let properties = &arrived.message.properties;
    same("the content type", &properties.content_type.as_deref(), &Some("application/json"))?;
    same("the content encoding", &properties.content_encoding.as_deref(), &Some("utf-8"))?;
    same("whether it is persistent", &properties.persistent, &true)?;
    same("what nameko's worker knew", &sent.context, hops.call.context.values())?;

    // Where it crosses RabbitMQ drops lists and tables whose names do not begin with `x-`.
    let crosses = |(name, value): &(ShortStr, Value)| !story.crosses() || !is_renamed(name, value);
    let wire = on_the_wire(story.prefix, headers, &sent.context, &sent.call_ids).map_err(say)?;
    let wire: Table = wire.into_iter().filter(crosses).collect();
    same("the headers", &arrived.message.headers, &wire)?;
    let context = wire.clone().into_iter().filter_map(|(name, value)| {
        let name = ShortStr::new(name.strip_prefix(story.prefix)?.strip_prefix('.')?).ok()?;
        (name != CALL_IDS).then_some((name, value))
    });
    same("the context", arrived.context.values(), &context.collect())?;
    let stack = format!("{}.{CALL_IDS}", story.prefix);
    let ids = if wire.contains(&stack) { &sent.call_ids[..] } else { &[] };
    its_own_besides(
        arrived.context.call_ids(),
        ids,
        &format!("{}.kitchen.{handler}.", told.service),
    )
}

fn arrived_at_nameko(
    story: &Story,
    told: &Told,
    hops: &Hops,
    headers: &Table,
    method: &str,
) -> Result<(), String> {
    let (sent, arrived) = (&hops.handled, &hops.consumed);
    same("the body", &arrived.body, &hops.call.body)?;
    let property = |name| arrived.properties.get(name);
    same("the content type", &property("content_type"), &Some(&json!("application/json")))?;
    same("the mode of delivery", &property("delivery_mode"), &Some(&json!(2)))?;

    // Where it crosses they travel under other names, which only this toolkit takes back.
    let rename =
        |(name, value): (ShortStr, Value)| match story.crosses() && is_renamed(&name, &value) {
            true => (ShortStr::new(format!("x-enoki-header-{name}")).unwrap_or_default(), value),
            false => (name, value),
        };
    let (values, ids) = (sent.context.values(), sent.context.call_ids());
    let wire = on_the_wire(story.prefix, headers, values, ids).map_err(say)?;
    let wire: Table = wire.into_iter().map(rename).collect();
    same("the headers", &arrived.headers, &wire)?;
    // To nameko every header is context, also one of another program.
    let own = |name: ShortStr| match name
        .strip_prefix(story.prefix)
        .and_then(|rest| rest.strip_prefix('.'))
    {
        Some(rest) => ShortStr::new(rest).unwrap_or_default(),
        None => name,
    };
    let mut context: Table = wire.into_iter().map(|(name, value)| (own(name), value)).collect();
    let ids = if context.remove(CALL_IDS).is_some() { ids } else { &[] };
    same("the context", &arrived.context, &context)?;
    its_own_besides(&arrived.call_ids, ids, &format!("{}.{method}.", told.service))
}

/// The name of the call ids, without the prefix.
const CALL_IDS: &str = "call_id_stack";

/// The headers of a message that is published in this context.
fn on_the_wire(
    prefix: &str,
    headers: &Table,
    context: &Table,
    call_ids: &[String],
) -> Checked<Table> {
    let mut wire = headers.clone();
    for (name, value) in context.iter() {
        wire.insert(format!("{prefix}.{name}"), value.clone())?;
    }
    let ids: Vec<_> = call_ids.iter().map(|id| Value::from(id.as_str())).collect();
    wire.insert(format!("{prefix}.{CALL_IDS}"), ids)?;
    Ok(wire)
}

/// Whether it has another name on AMQP 1.0, as docs/crossing.md says.
fn is_renamed(name: &str, value: &Value) -> bool {
    !name.starts_with("x-") && matches!(value, Value::List(_) | Value::Table(_))
}

/// The calls before, and one more that begins like this.
fn its_own_besides(ids: &[String], before: &[String], begins: &str) -> Result<(), String> {
    match ids.split_last() {
        Some((own, others)) if own.starts_with(begins) => {
            same("the calls before", &others, &before)
        }
        _ => Err(format!("the last of these should be a call of {begins}: {ids:?}")),
    }
}

fn same<T: PartialEq + Debug + ?Sized>(
    what: &str,
    arrived: &T,
    expected: &T,
) -> Result<(), String> {
    if arrived == expected {
        return Ok(());
    }
    Err(format!("{what}:\n  expected {expected:?}\n  and this came {arrived:?}"))
}

fn say(error: Box<dyn std::error::Error>) -> String {
    error.to_string()
}
