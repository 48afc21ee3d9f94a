//! How a broker describes itself when it opens a connection: the `properties` of its open (§2.7.1).

use enoki_amqp::PeerProperties;

use super::{decode::Cursor, fault::Fault};

/// Reads the fields of an open, of which there are `count`. The properties are the tenth.
pub(crate) fn of_open(mut fields: Cursor<'_>, count: usize) -> Result<PeerProperties, Fault> {
    let mut properties = PeerProperties::default();
    if count < 10 {
        return Ok(properties);
    }
    for _ in 0..9 {
        fields.skip()?;
    }
    for (name, value) in fields.pairs()? {
        if let Some(value) = value.as_str() {
            properties.set(&name, value);
        }
    }
    Ok(properties)
}
