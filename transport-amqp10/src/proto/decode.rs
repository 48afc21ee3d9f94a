//! AMQP 1.0 values (§1) as they come from the broker. Pure. It trusts no length, and has limits for depth and
//! number.
//!
//! fe2o3-amqp follows nested values without a limit, so forty kilobytes of nested lists end the process. So
//! it gets every message as opaque bytes (`inbound.rs`), and the bytes are read here.
//!
//! | on the wire | here |
//! |---|---|
//! | null | `Null` |
//! | boolean | `Bool` |
//! | every integer | `Int`; an unsigned one beyond 63 bits as text, which loses nothing |
//! | float, double | `Float` |
//! | timestamp | `Timestamp`, in whole seconds, cut towards 1970 |
//! | binary | `Bytes` |
//! | string, symbol, char | `String` |
//! | uuid | `String`: `urn:uuid:…`, as RabbitMQ writes it to AMQP 0-9-1 |
//! | decimals | `Bytes`, as they came |
//! | list, array | `List` |
//! | map | `Table`; keys that are not text are written as text |
//! | described | the value without its description |

use bytes::Bytes;
use enoki_core::{ShortStr, Table, Timestamp, Value, transport::cross_protocol::Id};

use super::fault::Fault;
use crate::limits::{MAX_DEPTH, MAX_VALUES};

pub(super) type Read<T> = Result<T, Fault>;

/// Bytes that are not read yet. A cursor for the items of a list shares the count of values with the one it
/// came from.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    /// How many more values the message may have: an array of a billion nulls fits in nine bytes.
    values: u32,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, values: MAX_VALUES }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("bytes are missing")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| "bytes are missing".into())
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn length(&mut self, wide: bool) -> Read<usize> {
        if wide {
            usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| "too long".into())
        } else {
            self.byte().map(usize::from)
        }
    }

    /// The descriptor of a described value (§1.3.2), as a number. Symbols would be names for the same
    /// numbers; no peer is known to write them.
    pub(crate) fn descriptor(&mut self) -> Read<u64> {
        if self.byte()? != 0x00 {
            return Err("a description is missing".into());
        }
        match self.byte()? {
            0x53 => self.byte().map(u64::from),
            0x80 => self.array().map(u64::from_be_bytes),
            0x44 => Ok(0),
            other => Err(format!("a description of type {other:#04x}").into()),
        }
    }

    /// Passes over the next value without reading the values in it.
    pub(crate) fn skip(&mut self) -> Read<()> {
        let code = self.byte()?;
        // The first half of a type's code says how its length is written (§1.2).
        let length = match code >> 4 {
            // A descriptor is a number or a symbol, and the described value has no descriptor of its own.
            0x0 if code == 0 && self.rest.first() != Some(&0) => {
                self.skip()?;
                if self.rest.first() == Some(&0) {
                    return Err("a description of a description".into());
                }
                return self.skip();
            }
            0x4 => 0,
            0x5 => 1,
            0x6 => 2,
            0x7 => 4,
            0x8 => 8,
            0x9 => 16,
            0xa | 0xc | 0xe => self.length(false)?,
            0xb | 0xd | 0xf => self.length(true)?,
            _ => return Err(format!("a value of unknown type {code:#04x}").into()),
        };
        self.take(length).map(drop)
    }

    /// Counts a value, or a section.
    pub(super) fn count(&mut self) -> Read<()> {
        self.values =
            self.values.checked_sub(1).ok_or_else(|| format!("more than {MAX_VALUES} values"))?;
        Ok(())
    }

    /// The next value, if it is a number that fits.
    pub(crate) fn uint(&mut self) -> Read<Option<u32>> {
        Ok(self.value()?.as_int().and_then(|number| u32::try_from(number).ok()))
    }

    /// The next value, if it is a boolean; false for any other.
    pub(crate) fn truth(&mut self) -> Read<bool> {
        Ok(self.value()?.as_bool().unwrap_or(false))
    }

    /// The items of a list, unread, and how many there are.
    pub(crate) fn list(&mut self) -> Read<(usize, Cursor<'a>)> {
        let (wide, count_size) = match self.byte()? {
            0x45 => return Ok((0, Cursor { rest: &[], values: self.values })),
            0xc0 => (false, 1),
            0xd0 => (true, 4),
            other => return Err(format!("no list, but a value of type {other:#04x}").into()),
        };
        let mut items = self.compound(wide, count_size)?;
        let count = items.length(wide)?;
        Ok((count, items))
    }

    /// Goes on behind a list whose items were read.
    pub(super) fn go_on_after(&mut self, items: &Self) {
        self.values = items.values;
    }

    fn compound(&mut self, wide: bool, count_size: usize) -> Read<Cursor<'a>> {
        let size = self.length(wide)?;
        if size < count_size {
            return Err("a list shorter than its count".into());
        }
        Ok(Cursor { rest: self.take(size)?, values: self.values })
    }

    /// All values of a list.
    pub(crate) fn values(&mut self) -> Read<Vec<Value>> {
        let (count, mut items) = self.list()?;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(items.value()?);
        }
        self.go_on_after(&items);
        Ok(values)
    }

    /// The pairs of a map, or of a null, which is an empty one.
    pub(crate) fn pairs(&mut self) -> Read<Vec<(String, Value)>> {
        match self.byte()? {
            0x40 => Ok(Vec::new()),
            code @ (0xc1 | 0xd1) => self.map(code, 1),
            other => Err(format!("no map, but a value of type {other:#04x}").into()),
        }
    }

    /// Reads an id in its type, and leaves a null in its place.
    pub(super) fn id(&mut self, id: &mut Option<Id<'static>>) -> Read<Value> {
        let code = self.byte()?;
        *id = match code {
            0x98 => Some(Id::Uuid(self.array()?)),
            0x44 => Some(Id::Number(0)),
            0x53 => Some(Id::Number(self.byte()?.into())),
            0x80 => Some(Id::Number(u64::from_be_bytes(self.array()?))),
            _ => match self.of(code, 0)? {
                Value::String(text) => Some(Id::Text(text.into())),
                Value::Bytes(bytes) => Some(Id::Bytes(bytes.to_vec().into())),
                // The specification allows no other type (§3.2.4). A number is kept as text.
                Value::Int(number) => Some(Id::Text(number.to_string().into())),
                _ => None,
            },
        };
        Ok(Value::Null)
    }

    /// The next value.
    pub(crate) fn value(&mut self) -> Read<Value> {
        self.nested(0)
    }

    fn nested(&mut self, depth: usize) -> Read<Value> {
        let code = self.byte()?;
        self.of(code, depth)
    }

    /// A value of this type, whose code was read.
    fn of(&mut self, code: u8, depth: usize) -> Read<Value> {
        if depth > MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} levels deep").into());
        }
        self.count()?;
        Ok(match code {
            0x00 => {
                self.nested(depth + 1)?;
                return self.nested(depth + 1);
            }
            0x40 => Value::Null,
            0x41 => Value::Bool(true),
            0x42 => Value::Bool(false),
            0x56 => Value::Bool(self.byte()? != 0),
            0x43 | 0x44 => Value::Int(0),
            0x50 | 0x52 | 0x53 => Value::Int(self.byte()?.into()),
            0x51 | 0x54 | 0x55 => Value::Int(i8::from_be_bytes(self.array()?).into()),
            0x60 => Value::Int(u16::from_be_bytes(self.array()?).into()),
            0x61 => Value::Int(i16::from_be_bytes(self.array()?).into()),
            0x70 => Value::Int(u32::from_be_bytes(self.array()?).into()),
            0x71 => Value::Int(i32::from_be_bytes(self.array()?).into()),
            0x80 => {
                let number = u64::from_be_bytes(self.array()?);
                i64::try_from(number).map_or_else(|_| Value::String(number.to_string()), Value::Int)
            }
            0x81 => Value::Int(i64::from_be_bytes(self.array()?)),
            0x72 => Value::Float(f32::from_be_bytes(self.array()?).into()),
            0x82 => Value::Float(f64::from_be_bytes(self.array()?)),
            0x73 => {
                let code = u32::from_be_bytes(self.array()?);
                let text = char::from_u32(code).ok_or("a char that is none")?;
                Value::String(text.to_string())
            }
            0x74 => Value::Bytes(Bytes::copy_from_slice(self.take(4)?)),
            0x84 => Value::Bytes(Bytes::copy_from_slice(self.take(8)?)),
            0x94 => Value::Bytes(Bytes::copy_from_slice(self.take(16)?)),
            0x83 => {
                let millis = i64::from_be_bytes(self.array()?);
                Value::Timestamp(Timestamp::from_unix_seconds(millis / 1000))
            }
            0x98 => Value::String(uuid(self.array()?)),
            0xa0 | 0xb0 => {
                let length = self.length(code == 0xb0)?;
                Value::Bytes(Bytes::copy_from_slice(self.take(length)?))
            }
            0xa1 | 0xa3 | 0xb1 | 0xb3 => {
                let length = self.length(code & 0xf0 == 0xb0)?;
                let text = std::str::from_utf8(self.take(length)?)
                    .map_err(|_| "a text that is not UTF-8")?;
                Value::String(text.to_owned())
            }
            0x45 => Value::List(Vec::new()),
            0xc0 | 0xd0 => Value::List(self.items(code == 0xd0, depth)?),
            0xc1 | 0xd1 => {
                let mut table = Table::new();
                for (name, value) in self.map(code, depth + 1)? {
                    let name = ShortStr::new(name).map_err(|_| "a name of more than 255 bytes")?;
                    table.set(name, value);
                }
                Value::Table(table)
            }
            0xe0 | 0xf0 => Value::List(self.elements(code == 0xf0, depth)?),
            other => return Err(format!("a value of unknown type {other:#04x}").into()),
        })
    }

    fn items(&mut self, wide: bool, depth: usize) -> Read<Vec<Value>> {
        let mut items = self.compound(wide, if wide { 4 } else { 1 })?;
        let count = items.length(wide)?;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(items.nested(depth + 1)?);
        }
        self.go_on_after(&items);
        Ok(values)
    }

    /// The elements of an array, which share one type. A descriptor is left out.
    fn elements(&mut self, wide: bool, depth: usize) -> Read<Vec<Value>> {
        let mut items = self.compound(wide, if wide { 4 } else { 1 })?;
        let count = items.length(wide)?;
        let mut values = Vec::new();
        if count == 0 {
            return Ok(values);
        }
        let mut code = items.byte()?;
        if code == 0x00 {
            items.nested(depth + 1)?;
            code = items.byte()?;
        }
        for _ in 0..count {
            values.push(items.of(code, depth + 1)?);
        }
        self.go_on_after(&items);
        Ok(values)
    }

    fn map(&mut self, code: u8, depth: usize) -> Read<Vec<(String, Value)>> {
        let wide = code == 0xd1;
        let mut items = self.compound(wide, if wide { 4 } else { 1 })?;
        let count = items.length(wide)?;
        let mut pairs = Vec::new();
        for _ in 0..count / 2 {
            let name = match items.nested(depth)? {
                Value::String(text) => text,
                Value::Int(number) => number.to_string(),
                other => format!("{other:?}"),
            };
            pairs.push((name, items.nested(depth)?));
        }
        self.go_on_after(&items);
        Ok(pairs)
    }
}

fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::from("urn:uuid:");
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 0x0f] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text
}
