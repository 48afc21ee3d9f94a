//! The sections of a message (§3.2) as they come from the broker. Pure.

use bytes::Bytes;
use enoki_core::{Value, transport::cross_protocol::Id};

use super::{
    decode::{Cursor, Read},
    fault::Fault,
};

/// The sections of a message (§3.2), each value decoded.
#[derive(Debug, Default)]
pub(crate) struct Sections {
    /// durable, priority, ttl, first-acquirer, delivery-count.
    pub(crate) header: Vec<Value>,
    pub(crate) annotations: Vec<(String, Value)>,
    /// message-id, user-id, to, subject, reply-to, correlation-id, content-type, content-encoding,
    /// absolute-expiry-time, creation-time, group-id, group-sequence, reply-to-group-id. The two ids are null
    /// here, and in the fields below with their types.
    pub(crate) properties: Vec<Value>,
    pub(crate) message_id: Option<Id<'static>>,
    pub(crate) correlation_id: Option<Id<'static>>,
    pub(crate) application: Vec<(String, Value)>,
    pub(crate) body: Body,
}

/// The body of a message.
#[derive(Debug, Default, PartialEq)]
pub(crate) enum Body {
    /// No section at all.
    #[default]
    Empty,
    /// One data section, or several put together.
    Data(Bytes),
    /// A value, or one of several sequences: the section, as it came.
    Encoded(Bytes),
}

impl Body {
    /// The value, if it is one that can be read.
    pub(crate) fn value(&self) -> Option<Value> {
        let Self::Encoded(section) = self else { return None };
        let mut cursor = Cursor::new(section);
        cursor.descriptor().ok()?;
        cursor.value().ok()
    }
}

/// Reads a message. After a fault the result has the parts that were read before it.
pub(crate) fn read(bytes: &Bytes) -> (Sections, Option<Fault>) {
    let mut sections = Sections::default();
    let mut cursor = Cursor::new(bytes);
    let mut fault = None;
    let mut pieces = Vec::new();
    while fault.is_none() && !cursor.is_empty() {
        fault = section(bytes, &mut cursor, &mut sections, &mut pieces).err();
    }
    // Put together once at the end. Doing so for each section would take time by the square of their number.
    if let (Body::Data(body), [_, _, ..]) = (&mut sections.body, &*pieces) {
        *body = pieces.concat().into();
    }
    (sections, fault)
}

/// Reads a section. `pieces` are the data sections so far; the body is the first of them.
fn section(
    bytes: &Bytes,
    cursor: &mut Cursor<'_>,
    sections: &mut Sections,
    pieces: &mut Vec<Bytes>,
) -> Read<()> {
    let start = cursor.rest();
    cursor.count()?;
    match cursor.descriptor()? {
        0x70 => sections.header = cursor.values()?,
        0x71 | 0x78 => drop(cursor.pairs()?),
        0x72 => sections.annotations = cursor.pairs()?,
        0x73 => {
            let (count, mut items) = cursor.list()?;
            for at in 0..count {
                let value = match at {
                    0 => items.id(&mut sections.message_id)?,
                    5 => items.id(&mut sections.correlation_id)?,
                    _ => items.value()?,
                };
                sections.properties.push(value);
            }
            cursor.go_on_after(&items);
        }
        0x74 => sections.application = cursor.pairs()?,
        0x75 => {
            let wide = match cursor.byte()? {
                0xa0 => false,
                0xb0 => true,
                other => return Err(format!("data of type {other:#04x}").into()),
            };
            let length = cursor.length(wide)?;
            // A slice of the message: the body is not copied.
            let data = bytes.slice_ref(cursor.take(length)?);
            if !matches!(sections.body, Body::Data(_)) {
                pieces.clear();
                sections.body = Body::Data(data.clone());
            }
            pieces.push(data);
        }
        0x76 | 0x77 => {
            // Only measured: the values in a sequence have no meaning here.
            cursor.skip()?;
            let length = start.len() - cursor.rest().len();
            pieces.clear();
            sections.body = Body::Encoded(bytes.slice_ref(start.get(..length).unwrap_or_default()));
        }
        other => return Err(format!("an unknown section {other:#04x}").into()),
    }
    Ok(())
}
