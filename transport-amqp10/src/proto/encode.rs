//! AMQP 1.0 values as bytes. Pure.
//!
//! fe2o3-amqp leaves out a priority of 4, because it is the default (§3.2.1), and RabbitMQ then takes the
//! priority for 0. So whole messages are written here, and fe2o3-amqp gets bytes.

use enoki_core::{Table, Value};

/// Writes values one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Begins a section, or another described value.
    pub(crate) fn descriptor(&mut self, code: u8) {
        self.0.extend_from_slice(&[0x00, 0x53, code]);
    }

    pub(crate) fn null(&mut self) {
        self.0.push(0x40);
    }

    pub(crate) fn bool(&mut self, truth: bool) {
        self.0.push(if truth { 0x41 } else { 0x42 });
    }

    pub(crate) fn ubyte(&mut self, number: u8) {
        self.0.extend_from_slice(&[0x50, number]);
    }

    pub(crate) fn uint(&mut self, number: u32) {
        self.0.push(0x70);
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub(crate) fn ulong(&mut self, number: u64) {
        self.0.push(0x80);
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn long(&mut self, number: i64) {
        self.0.push(0x81);
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub(crate) fn uuid(&mut self, bytes: [u8; 16]) {
        self.0.push(0x98);
        self.0.extend_from_slice(&bytes);
    }

    pub(crate) fn millis(&mut self, seconds: i64) {
        self.0.push(0x83);
        self.0.extend_from_slice(&seconds.saturating_mul(1000).to_be_bytes());
    }

    pub(crate) fn string(&mut self, text: &str) {
        self.variable(0xa1, text.as_bytes());
    }

    pub(crate) fn symbol(&mut self, text: &str) {
        self.variable(0xa3, text.as_bytes());
    }

    pub(crate) fn binary(&mut self, bytes: &[u8]) {
        self.variable(0xa0, bytes);
    }

    fn variable(&mut self, short: u8, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(length) => self.0.extend_from_slice(&[short, length]),
            Err(_) => {
                self.0.push(short | 0x10);
                self.0.extend_from_slice(&wide(bytes.len()));
            }
        }
        self.0.extend_from_slice(bytes);
    }

    /// A list. `items` writes its values, and returns how many it wrote.
    pub(crate) fn list(&mut self, items: impl FnOnce(&mut Self) -> u32) {
        self.compound(0xd0, items);
    }

    /// A map. `entries` writes its names and values, and returns how many pairs it wrote.
    pub(crate) fn map(&mut self, entries: impl FnOnce(&mut Self) -> u32) {
        self.compound(0xd1, |encoder| entries(encoder) * 2);
    }

    fn compound(&mut self, code: u8, contents: impl FnOnce(&mut Self) -> u32) {
        self.0.push(code);
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 8]);
        let count = contents(self);
        let size = wide(self.0.len() - at - 4);
        if let Some(place) = self.0.get_mut(at..at + 4) {
            place.copy_from_slice(&size);
        }
        if let Some(place) = self.0.get_mut(at + 4..at + 8) {
            place.copy_from_slice(&count.to_be_bytes());
        }
    }

    /// Any value. Names in tables are strings, as maps in messages have them.
    pub(crate) fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(truth) => self.bool(*truth),
            Value::Int(number) => self.long(*number),
            Value::Float(number) => {
                self.0.push(0x82);
                self.0.extend_from_slice(&number.to_be_bytes());
            }
            Value::Timestamp(time) => self.millis(time.unix_seconds()),
            Value::Bytes(bytes) => self.binary(bytes),
            Value::String(text) => self.string(text),
            Value::List(values) => self.list(|encoder| {
                values.iter().for_each(|value| encoder.value(value));
                count(values.len())
            }),
            Value::Table(table) => self.table(table),
            // `Null`, and kinds of value that a later version of the core may add: no peer could read them.
            _ => self.null(),
        }
    }

    /// A map with strings for names.
    pub(crate) fn table(&mut self, table: &Table) {
        self.map(|encoder| {
            for (name, value) in table.iter() {
                encoder.string(name);
                encoder.value(value);
            }
            count(table.len())
        });
    }
}

/// A length that is written in 32 bits. Messages are far smaller than the largest.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn wide(length: usize) -> [u8; 4] {
    count(length).to_be_bytes()
}
