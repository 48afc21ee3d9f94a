//! Header values: what every wire can carry, and nothing else.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    short_str::ShortStr,
};

/// A typed header value or queue argument.
///
/// ```
/// use enoki_core::Value;
///
/// let attempts = Value::from(3);
/// assert_eq!(attempts.as_int(), Some(3));
/// assert_eq!(Value::from("eu"), Value::String("eu".into()));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// No value.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer; RabbitMQ reads no unsigned 64-bit values, so this is all the wires share.
    Int(i64),
    /// A finite number; NaN and infinities are refused at publish, since RabbitMQ answers them by
    /// closing the connection.
    Float(f64),
    /// A point in time.
    Timestamp(Timestamp),
    /// Bytes. A string that another client sent and that is not UTF-8 arrives as bytes, too. More
    /// than 4096 that are text are refused at publish: they could arrive as text.
    Bytes(Bytes),
    /// Text. One with a zero byte is refused at publish: it could arrive as bytes.
    String(String),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Table(Table),
}

impl Value {
    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if this is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The truth value, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The number, if this is a float.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The point in time, if this is one.
    pub fn as_timestamp(&self) -> Option<Timestamp> {
        match self {
            Self::Timestamp(time) => Some(*time),
            _ => None,
        }
    }

    /// The bytes, if these are some.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The values, if this is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Self::List(values) => Some(values),
            _ => None,
        }
    }

    /// The table, if this is one.
    pub fn as_table(&self) -> Option<&Table> {
        match self {
            Self::Table(table) => Some(table),
            _ => None,
        }
    }
}

macro_rules! value_from {
    ($($from:ty => |$name:ident| $value:expr),+ $(,)?) => {$(
        impl From<$from> for Value {
            fn from($name: $from) -> Self {
                $value
            }
        }
    )+};
}

value_from! {
    bool => |truth| Self::Bool(truth),
    i64 => |number| Self::Int(number),
    i32 => |number| Self::Int(number.into()),
    i16 => |number| Self::Int(number.into()),
    i8 => |number| Self::Int(number.into()),
    u32 => |number| Self::Int(number.into()),
    u16 => |number| Self::Int(number.into()),
    u8 => |number| Self::Int(number.into()),
    f64 => |number| Self::Float(number),
    f32 => |number| Self::Float(number.into()),
    Timestamp => |time| Self::Timestamp(time),
    Bytes => |bytes| Self::Bytes(bytes),
    &str => |text| Self::String(text.to_owned()),
    String => |text| Self::String(text),
    ShortStr => |text| Self::String(text.as_str().to_owned()),
    Vec<Value> => |values| Self::List(values),
    Table => |table| Self::Table(table),
}

/// Values by name, in the order of the names.
///
/// ```
/// use enoki_core::{Table, Value};
///
/// let mut headers = Table::new();
/// headers.insert("region", "eu")?;
/// assert_eq!(headers.get("region").and_then(Value::as_str), Some("eu"));
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table(BTreeMap<ShortStr, Value>);

impl Table {
    /// A table with nothing in it.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Sets a value, and returns the one it replaced. The name has at most 255 bytes.
    pub fn insert(
        &mut self,
        name: impl TryInto<ShortStr, Error: Into<Error>>,
        value: impl Into<Value>,
    ) -> Result<Option<Value>> {
        let name = name.try_into().map_err(Into::into)?;
        Ok(self.0.insert(name, value.into()))
    }

    /// Sets a value under a name that is known to be short enough.
    pub fn set(&mut self, name: ShortStr, value: impl Into<Value>) {
        self.0.insert(name, value.into());
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Takes the value of this name out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Removes the entries with these names.
    pub(crate) fn without(&mut self, is_meant: impl Fn(&str) -> bool) {
        let meant = |name: &&ShortStr| is_meant(name);
        let names: Vec<_> = self.iter().map(|(name, _)| name).filter(meant).cloned().collect();
        for name in names {
            self.remove(&name);
        }
    }

    /// Whether there is a value of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&ShortStr, &Value)> {
        self.0.iter()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.0.values_mut()
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over all values of the other table; on the same name the other's wins.
    pub fn merge(&mut self, other: Table) {
        self.0.extend(other.0);
    }
}

impl IntoIterator for Table {
    type Item = (ShortStr, Value);
    type IntoIter = std::collections::btree_map::IntoIter<ShortStr, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<(ShortStr, Value)> for Table {
    fn from_iter<I: IntoIterator<Item = (ShortStr, Value)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl Extend<(ShortStr, Value)> for Table {
    fn extend<I: IntoIterator<Item = (ShortStr, Value)>>(&mut self, values: I) {
        self.0.extend(values);
    }
}

/// A point in time, in whole seconds since 1970: the precision that every wire keeps.
///
/// AMQP 0-9-1 carries seconds, AMQP 1.0 milliseconds. Whole seconds are what arrives equal on both.
///
/// ```
/// use enoki_core::Timestamp;
///
/// let time = Timestamp::from_unix_seconds(1_700_000_000);
/// assert_eq!(time.to_system_time().map(Timestamp::from), Some(time));
/// assert!(Timestamp::from_unix_seconds(-1) < Timestamp::from_unix_seconds(0)); // before 1970
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest that can be published: beyond it AMQP 1.0, which counts milliseconds in a signed
    /// number, has no way to write it.
    pub const MAX: Self = Self(i64::MAX / 1000);

    /// The earliest that can be published, as long before 1970 as the latest is after it.
    pub const MIN: Self = Self(-Self::MAX.0);

    /// Now, cut to the second.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Seconds since 1970; negative ones are before it.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970; negative before it.
    pub const fn unix_seconds(self) -> i64 {
        self.0
    }

    /// Whether both protocols can carry it: from [`Timestamp::MIN`] to [`Timestamp::MAX`].
    pub const fn is_portable(self) -> bool {
        Self::MIN.0 <= self.0 && self.0 <= Self::MAX.0
    }

    /// The same point in time as the standard library's type, where that reaches so far.
    pub fn to_system_time(self) -> Option<SystemTime> {
        let distance = Duration::from_secs(self.0.unsigned_abs());
        match self.0 {
            0.. => UNIX_EPOCH.checked_add(distance),
            _ => UNIX_EPOCH.checked_sub(distance),
        }
    }
}

impl From<SystemTime> for Timestamp {
    /// Cuts to the second, towards 1970, as RabbitMQ does it between the protocols.
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(0_i64.saturating_add_unsigned(since.as_secs())),
            Err(before) => Self(0_i64.saturating_sub_unsigned(before.duration().as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_values_of_the_same_size_or_larger() {
        assert_eq!(Value::from(u32::MAX).as_int(), Some(4_294_967_295));
        assert_eq!(Value::from(i64::MIN).as_int(), Some(i64::MIN));
        assert_eq!(Value::from(i8::MIN).as_int(), Some(-128));
        assert_eq!(Value::from(0.5_f32), Value::Float(0.5));
        assert_eq!(Value::from("7").as_int(), None);
        assert_eq!(Value::from(true).as_bool(), Some(true));
        assert_eq!(Value::from(1).as_bool(), None);
    }

    #[test]
    fn a_table_is_in_the_order_of_its_names_and_merging_lets_the_other_win() {
        let mut one = Table::new();
        one.insert("b", 1).unwrap();
        assert_eq!(one.insert("b", 2).unwrap(), Some(Value::from(1)));
        one.insert("c", 3).unwrap();
        let mut other = Table::new();
        other.insert("a", 4).unwrap();
        other.insert("b", 5).unwrap();
        one.merge(other);
        let all: Vec<_> = one.iter().map(|(name, value)| (&**name, value.as_int())).collect();
        assert_eq!(all, [("a", Some(4)), ("b", Some(5)), ("c", Some(3))]);
        assert_eq!(one.remove("a"), Some(Value::from(4)));
        assert!(!one.contains("a"));
    }

    #[test]
    fn time_is_cut_to_the_second_and_may_be_before_1970() {
        let time = UNIX_EPOCH + Duration::from_millis(1_999);
        assert_eq!(Timestamp::from(time).unix_seconds(), 1);
        let before = UNIX_EPOCH - Duration::from_millis(5_500);
        assert_eq!(Timestamp::from(before).unix_seconds(), -5);
        let whole = UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(Timestamp::from_unix_seconds(-5).to_system_time(), Some(whole));
        for seconds in [i64::MIN, i64::MAX] {
            let time = Timestamp::from_unix_seconds(seconds);
            assert!(time.to_system_time().is_none_or(|there| Timestamp::from(there) == time));
            assert!(!time.is_portable());
        }
        assert!(Timestamp::MIN.is_portable() && Timestamp::MAX.is_portable());
    }
}
