//! What becomes of a message on its way from AMQP 1.0 to 0-9-1, and how it is undone. Pure.
//!
//! A broker that speaks both protocols cannot put every header of one into a message of the other:
//! on AMQP 1.0 a list is no application property, and RabbitMQ writes bytes and text to AMQP 0-9-1
//! in the same way. So a transport for AMQP 1.0 says in annotations what would be lost, and both
//! read them. They are added there alone: a program that consumes over AMQP 0-9-1 finds them as
//! headers, one that publishes over it sends nothing but its own.
//!
//! Other clients of AMQP 1.0 write ids and bodies in types that AMQP 0-9-1 does not have. Both transports read
//! them by the same rules: [`Id`], [`read_body`].

mod body;
mod id;

use std::{collections::BTreeSet, mem};

pub use self::{
    body::{ENCODED_BODY, read_body, read_encoded},
    id::{CORRELATION_ID_HEADER, Id, MESSAGE_ID_HEADER, id_or_header, restore_ids},
};
use crate::{
    message::value::{Table, Value},
    short_str::ShortStr,
};

/// What the name of an annotation begins with that carries a header which is a list or a table.
///
/// ```
/// use enoki_core::{Table, Value, transport::cross_protocol};
///
/// let mut headers = Table::new();
/// headers.insert("x-enoki-header-stack", vec![Value::from("a.b.1")])?;
/// cross_protocol::restore(&mut headers);
/// assert!(headers.contains("stack"));
/// # Ok::<(), enoki_core::Error>(())
/// ```
pub const NESTED_PREFIX: &str = "x-enoki-header-";

/// The name of the annotation that tells bytes from text; see [`bytes_of_text`].
pub const BYTES_MARKER: &str = "x-enoki-bytes";

/// What all names begin with that have a meaning here; no program may publish them.
pub(crate) const RESERVED: &str = "x-enoki-";

/// Tells which of these headers' bytes look like text: by a header's name, the positions of such
/// bytes among all the texts and bytes in its value, from 0 and in order. Empty where there are
/// none.
///
/// ```
/// use enoki_core::{Table, Value, transport::cross_protocol};
///
/// let mut headers = Table::new();
/// headers.insert("key", Value::Bytes("abc".into()))?;
/// headers.insert(cross_protocol::BYTES_MARKER, cross_protocol::bytes_of_text(&headers))?;
/// headers.insert("key", "abc")?; // as it arrives
/// cross_protocol::restore(&mut headers);
/// assert_eq!(headers.get("key"), Some(&Value::Bytes("abc".into())));
/// assert!(!headers.contains(cross_protocol::BYTES_MARKER));
/// # Ok::<(), enoki_core::Error>(())
/// ```
pub fn bytes_of_text(headers: &Table) -> Table {
    let mut marks = Table::new();
    for (name, value) in headers.iter() {
        let (mut at, mut found) = (0, Vec::new());
        find(value, &mut at, &mut found);
        if !found.is_empty() {
            marks.set(name.clone(), found);
        }
    }
    marks
}

fn find(value: &Value, at: &mut i64, found: &mut Vec<Value>) {
    match value {
        Value::String(_) => *at += 1,
        Value::Bytes(bytes) => {
            if std::str::from_utf8(bytes).is_ok() {
                found.push(Value::Int(*at));
            }
            *at += 1;
        }
        Value::List(values) => values.iter().for_each(|value| find(value, at, found)),
        Value::Table(table) => table.iter().for_each(|(_, value)| find(value, at, found)),
        _ => {}
    }
}

/// Makes headers what they were when they were published. Those that did not come from AMQP 1.0
/// stay as they are.
pub fn restore(headers: &mut Table) {
    if !headers.iter().any(|(name, _)| name.starts_with(RESERVED)) {
        return;
    }
    let marks = headers.remove(BYTES_MARKER);
    let own = |name: ShortStr| match name.strip_prefix(NESTED_PREFIX).map(ShortStr::new) {
        Some(Ok(own)) => own,
        _ => name,
    };
    *headers = mem::take(headers).into_iter().map(|(name, value)| (own(name), value)).collect();
    let Some(Value::Table(marks)) = marks else { return };
    for (name, positions) in marks {
        let positions = positions.as_list().unwrap_or_default();
        let positions = positions.iter().filter_map(Value::as_int).collect();
        if let Some(mut value) = headers.remove(&name) {
            make_bytes(&mut value, &mut 0, &positions);
            headers.set(name, value);
        }
    }
}

fn make_bytes(value: &mut Value, at: &mut i64, positions: &BTreeSet<i64>) {
    match value {
        Value::String(text) => {
            if positions.contains(at) {
                *value = Value::Bytes(mem::take(text).into());
            }
            *at += 1;
        }
        Value::Bytes(_) => *at += 1,
        Value::List(values) => {
            values.iter_mut().for_each(|value| make_bytes(value, at, positions));
        }
        Value::Table(table) => {
            table.values_mut().for_each(|value| make_bytes(value, at, positions));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn table<const N: usize>(entries: [(&'static str, Value); N]) -> Table {
        entries.map(|(name, value)| (ShortStr::from_static(name), value)).into_iter().collect()
    }

    /// As RabbitMQ writes bytes to AMQP 0-9-1.
    fn as_text(value: Value) -> Value {
        match value {
            Value::Bytes(bytes) => match String::from_utf8(bytes.to_vec()) {
                Ok(text) => Value::String(text),
                Err(_) => Value::Bytes(bytes),
            },
            Value::List(values) => Value::List(values.into_iter().map(as_text).collect()),
            Value::Table(table) => Value::Table(
                table.into_iter().map(|(name, value)| (name, as_text(value))).collect(),
            ),
            other => other,
        }
    }

    #[test]
    fn marks_that_fit_nothing_do_nothing() {
        let positions = |numbers: [i64; 3]| Value::List(numbers.map(Value::Int).into());
        for marks in [
            Value::Null,
            table([("text", Value::Null)]).into(),
            table([("text", positions([-1, 1, i64::MAX])), ("missing", positions([0, 1, 2]))])
                .into(),
        ] {
            let mut headers = table([("text", "a".into()), (BYTES_MARKER, marks)]);
            restore(&mut headers);
            assert_eq!(headers, table([("text", "a".into())]));
        }
    }

    #[test]
    fn headers_of_others_stay_as_they_are() {
        let mut headers = table([("x-enoki-app-id", 1.into()), ("x-enoki-header-a", 2.into())]);
        restore(&mut headers);
        assert_eq!(headers, table([("x-enoki-app-id", 1.into()), ("a", 2.into())]));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            "[a-c]{0,3}".prop_map(Value::String),
            "[a-c]{0,3}".prop_map(|text| Value::Bytes(text.into())),
            Just(Value::Bytes(vec![0xff].into())),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::List),
                vec(("[a-c]", inner), 0..4).prop_map(|entries| Value::Table(names(entries))),
            ]
        })
    }

    fn names(entries: Vec<(String, Value)>) -> Table {
        entries.into_iter().map(|(name, value)| (ShortStr::new(name).unwrap(), value)).collect()
    }

    proptest! {
        #[test]
        fn what_was_bytes_is_bytes_again(headers in vec(("[a-c]", value()), 0..4).prop_map(names)) {
            let mut arrived: Table =
                headers.iter().map(|(name, value)| (name.clone(), as_text(value.clone()))).collect();
            arrived.set(ShortStr::from_static(BYTES_MARKER), bytes_of_text(&headers));
            restore(&mut arrived);
            prop_assert_eq!(arrived, headers);
        }
    }
}
