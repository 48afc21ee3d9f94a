//! Messages in the form that `foreign/neutral.py` reads and writes: one JSON object for each line.

use std::time::Duration;

use enoki::message::{Message, Properties, ShortStr, Table, Timestamp, Value};
use serde_json::{Map, Value as Json, json};

use crate::Checked;

/// A message as one line.
pub fn write(message: &Message) -> String {
    let Message { body, headers, properties } = message;
    let texts = [
        ("content_type", &properties.content_type),
        ("content_encoding", &properties.content_encoding),
        ("message_id", &properties.message_id),
        ("correlation_id", &properties.correlation_id),
        ("reply_to", &properties.reply_to),
        ("kind", &properties.kind),
        ("app_id", &properties.app_id),
        ("user_id", &properties.user_id),
    ];
    let mut written: Map<_, _> = texts
        .into_iter()
        .filter_map(|(name, text)| Some((name.to_owned(), json!(text.as_deref()?))))
        .collect();
    if let Some(time) = properties.timestamp {
        written.insert("timestamp".to_owned(), json!(time.unix_seconds()));
    }
    if let Some(millis) = properties.expiration_millis() {
        written.insert("expiration".to_owned(), json!(millis));
    }
    if let Some(priority) = properties.priority {
        written.insert("priority".to_owned(), json!(priority));
    }
    written.insert("persistent".to_owned(), json!(properties.persistent));
    let line =
        json!({"body": to_hex(body), "properties": written, "headers": write_table(headers)});
    format!("{line}\n")
}

/// The message of one line.
pub fn read(line: &str) -> Checked<Message> {
    let line: Json = serde_json::from_str(line)?;
    let properties = line.get("properties").ok_or("no properties")?;
    let text = |name| match properties.get(name) {
        Some(text) => ShortStr::new(text.as_str().ok_or_else(|| format!("{name} is no text"))?)
            .map(Some)
            .map_err(Into::into),
        None => Checked::Ok(None),
    };
    let number = |name| properties.get(name).and_then(Json::as_u64);
    Ok(Message {
        body: from_hex(line.get("body").ok_or("no body")?)?.into(),
        headers: read_table(line.get("headers").ok_or("no headers")?)?,
        properties: Properties {
            content_type: text("content_type")?,
            content_encoding: text("content_encoding")?,
            message_id: text("message_id")?,
            correlation_id: text("correlation_id")?,
            reply_to: text("reply_to")?,
            kind: text("kind")?,
            app_id: text("app_id")?,
            user_id: text("user_id")?,
            timestamp: properties
                .get("timestamp")
                .and_then(Json::as_i64)
                .map(Timestamp::from_unix_seconds),
            expiration: number("expiration").map(Duration::from_millis),
            priority: number("priority").map(u8::try_from).transpose()?,
            persistent: properties.get("persistent") == Some(&Json::Bool(true)),
        },
    })
}

/// Headers as the object that they are in a line.
pub fn write_table(table: &Table) -> Json {
    table.iter().map(|(name, value)| (name.as_str().to_owned(), write_value(value))).collect()
}

fn write_value(value: &Value) -> Json {
    match value {
        Value::Bool(truth) => json!({ "bool": truth }),
        Value::Int(number) => json!({ "int": number }),
        Value::Float(number) => json!({ "float": number }),
        Value::Timestamp(time) => json!({"timestamp": time.unix_seconds()}),
        Value::Bytes(bytes) => json!({"bytes": to_hex(bytes)}),
        Value::String(text) => json!({ "string": text }),
        Value::List(values) => json!({"list": values.iter().map(write_value).collect::<Vec<_>>()}),
        Value::Table(table) => json!({"table": write_table(table)}),
        _ => json!({ "null": null }),
    }
}

/// Headers out of that object.
pub fn read_table(table: &Json) -> Checked<Table> {
    let table = table.as_object().ok_or("no table")?;
    table.iter().map(|(name, value)| Ok((ShortStr::new(name)?, read_value(value)?))).collect()
}

fn read_value(value: &Json) -> Checked<Value> {
    let (kind, content) =
        value.as_object().and_then(|value| value.iter().next()).ok_or("no value")?;
    let wrong = || format!("{content} is no {kind}");
    Ok(match kind.as_str() {
        "null" => Value::Null,
        "bool" => Value::Bool(content.as_bool().ok_or_else(wrong)?),
        "int" => Value::Int(content.as_i64().ok_or_else(wrong)?),
        "float" => Value::Float(content.as_f64().ok_or_else(wrong)?),
        "timestamp" => {
            Value::Timestamp(Timestamp::from_unix_seconds(content.as_i64().ok_or_else(wrong)?))
        }
        "bytes" => Value::Bytes(from_hex(content)?.into()),
        "string" => Value::String(content.as_str().ok_or_else(wrong)?.to_owned()),
        "list" => {
            let items = content.as_array().ok_or_else(wrong)?;
            Value::List(items.iter().map(read_value).collect::<Checked<_>>()?)
        }
        "table" => Value::Table(read_table(content)?),
        _ => return Err(format!("no type is called {kind}").into()),
    })
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &Json) -> Checked<Vec<u8>> {
    let digits = text.as_str().ok_or("no hexadecimal digits")?.as_bytes();
    let bytes =
        digits.chunks(2).map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    bytes.collect()
}
