//! Names and arguments as lapin takes them. Published messages are written by `proto/encode.rs`.

use enoki_core::{Error, ErrorKind, Result, Table, Value};
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

use crate::proto::encode::no_type;

/// A short string of lapin's. Fails for more than 255 bytes, where lapin's own conversion panics.
pub(crate) fn short(text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|error| {
        Error::new(ErrorKind::Configuration, "check a name").because(error.to_string())
    })
}

/// The arguments of a queue or a binding.
pub(crate) fn table_out(table: &Table) -> Result<FieldTable> {
    let mut out = FieldTable::default();
    for (name, value) in table.iter() {
        out.insert(short(name)?, value_out(value)?);
    }
    Ok(out)
}

fn value_out(value: &Value) -> Result<AMQPValue> {
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(truth) => AMQPValue::Boolean(*truth),
        Value::Int(number) => AMQPValue::LongLongInt(*number),
        Value::Float(number) => AMQPValue::Double(*number),
        Value::Timestamp(time) => AMQPValue::Timestamp(time.unix_seconds().cast_unsigned()),
        Value::Bytes(bytes) => AMQPValue::ByteArray(bytes.as_ref().into()),
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::List(values) => AMQPValue::FieldArray(FieldArray::from(
            values.iter().map(value_out).collect::<Result<Vec<_>>>()?,
        )),
        Value::Table(table) => AMQPValue::FieldTable(table_out(table)?),
        other => return Err(no_type(other)),
    })
}
