//! How often a message was delivered.

use enoki_core::{Attempt, Counted};
use lapin::types::{AMQPValue, FieldTable};

/// Which attempt this is.
///
/// Quorum queues count in `x-delivery-count` how often the message came back. Since RabbitMQ 4.3 releases are not
/// counted there, so a released delivery is no attempt. A message that was only released so far has just
/// `x-acquired-count`, which counts every delivery. Classic queues count nothing; then the flag `redelivered` decides.
pub(super) fn attempt(headers: &FieldTable, redelivered: bool) -> Attempt {
    let count = |name| headers.inner().get(name).and_then(integer);
    let (failed, acquired) = (count("x-delivery-count"), count("x-acquired-count"));
    if failed.is_none() && acquired.is_none() {
        return Attempt::from_flag(redelivered);
    }
    let failed = u32::try_from(failed.unwrap_or(0).max(0)).unwrap_or(u32::MAX);
    Attempt { number: failed.saturating_add(1), counted: Counted::ByBroker }
}

/// An integer of any type, except 64-bit unsigned, which RabbitMQ's dialect does not have.
pub(super) fn integer(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(number) => (*number).into(),
        AMQPValue::ShortShortUInt(number) => (*number).into(),
        AMQPValue::ShortInt(number) => (*number).into(),
        AMQPValue::ShortUInt(number) => (*number).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongUInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => *number,
        _ => return None,
    })
}
