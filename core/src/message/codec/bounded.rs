//! A deserializer with limits, below those that have none of their own.
//!
//! Binary formats end a process in two ways that a text does not. A type that contains itself is read by a function
//! that calls itself, and a byte for each level is enough to fill the stack (rmp-serde counts lists and maps, and not
//! enums; postcard and bincode count nothing). And a list of values that take no bytes may claim any length.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use erased_serde::Deserializer as Erased;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::{CodecError, Visit, redact::without_the_body};

/// How deep lists, maps, structures, enums and options may be nested: as in `serde_json`.
const MAX_DEPTH: usize = 128;

/// How many elements without bytes a body may claim.
const EMPTY_ELEMENTS: usize = 65_536;

/// Why a body was refused, without any text from it.
#[derive(Debug, Clone)]
pub(super) struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// What is left of the limits for one body, and what went wrong with it.
///
/// An error on its way up is wrapped by the format at each level. postcard forgets what it said, and
/// bincode quotes it in quotes, twice as long each time. So it is noted here, and what travels is an
/// echo.
#[derive(Debug)]
pub(super) struct Bounds {
    depth: Cell<usize>,
    elements: Cell<usize>,
    refusal: RefCell<Option<Refusal>>,
}

impl Bounds {
    /// The limits for a body of this length: each element of a list or map takes a byte of its own,
    /// or is one of the few that take none.
    pub(super) fn of(body: &[u8]) -> Self {
        Self {
            depth: Cell::new(MAX_DEPTH),
            elements: Cell::new(body.len().saturating_add(EMPTY_ELEMENTS)),
            refusal: RefCell::new(None),
        }
    }

    /// Has a value read within these limits.
    pub(super) fn visit<'de, D: Deserializer<'de>>(
        &self,
        deserializer: D,
        visit: &mut Visit<'_>,
    ) -> Result<(), CodecError> {
        let bounded = Bounded::new(deserializer, self);
        visit(&mut <dyn Erased<'_>>::erase(bounded)).map_err(|error| {
            self.note(&error.to_string());
            self.refusal.take().unwrap_or_else(|| Refusal(ECHO.to_owned())).into()
        })
    }

    fn note(&self, said: &str) {
        if !said.contains(ECHO) && said != ECHO_OF_POSTCARD {
            self.refusal.replace(Some(Refusal(without_the_body(said))));
        }
    }

    /// An error of the format, on its way to who asked for the value.
    fn up(&self, error: impl fmt::Display) -> Stop {
        self.note(&error.to_string());
        Stop(None)
    }

    /// An error of who asked for the value, on its way to the format.
    fn down<E: Error>(&self, stop: Stop) -> E {
        if let Some(said) = stop.0 {
            self.note(&said);
        }
        E::custom(ECHO)
    }

    fn exceed(&self, reason: String) -> Stop {
        self.refusal.replace(Some(Refusal(reason)));
        Stop(None)
    }

    fn deeper<T>(&self, read: impl FnOnce() -> Result<T, Stop>) -> Result<T, Stop> {
        let Some(left) = self.depth.get().checked_sub(1) else {
            return Err(self.exceed(format!("it is nested more than {MAX_DEPTH} levels deep")));
        };
        self.depth.set(left);
        let value = read();
        self.depth.set(left + 1);
        value
    }

    fn element(&self) -> Result<(), Stop> {
        let Some(left) = self.elements.get().checked_sub(1) else {
            let reason = "it claims more elements than it has room for";
            return Err(self.exceed(reason.to_owned()));
        };
        self.elements.set(left);
        Ok(())
    }
}

const ECHO: &str = "the value was not read";
const ECHO_OF_POSTCARD: &str = "Serde Deserialization Error";

/// An error between a format and who asked for the value; none if it was noted already.
#[derive(Debug)]
struct Stop(Option<String>);

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or(ECHO))
    }
}

impl std::error::Error for Stop {}

impl Error for Stop {
    fn custom<T: fmt::Display>(said: T) -> Self {
        Self(Some(said.to_string()))
    }
}

/// What serde hands back and forth, and what it is wrapped in on its way.
struct Bounded<'b, T> {
    inner: T,
    bounds: &'b Bounds,
    /// Whether the length comes from the body, and not from the type.
    counted: bool,
}

impl<'b, T> Bounded<'b, T> {
    fn new(inner: T, bounds: &'b Bounds) -> Self {
        Self { inner, bounds, counted: false }
    }

    fn counted(inner: T, bounds: &'b Bounds) -> Self {
        Self { inner, bounds, counted: true }
    }
}

macro_rules! deserialize {
    ($($method:ident($($name:ident: $type:ty),*) as $wrap:ident;)+) => {$(
        fn $method<V: Visitor<'de>>(self $(, $name: $type)*, visitor: V) -> Result<V::Value, Stop> {
            let Self { inner, bounds, .. } = self;
            let visitor = Bounded::$wrap(visitor, bounds);
            inner.$method($($name,)* visitor).map_err(|error| bounds.up(error))
        }
    )+};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = Stop;

    deserialize! {
        deserialize_any() as counted;
        deserialize_bool() as new;
        deserialize_i8() as new;
        deserialize_i16() as new;
        deserialize_i32() as new;
        deserialize_i64() as new;
        deserialize_i128() as new;
        deserialize_u8() as new;
        deserialize_u16() as new;
        deserialize_u32() as new;
        deserialize_u64() as new;
        deserialize_u128() as new;
        deserialize_f32() as new;
        deserialize_f64() as new;
        deserialize_char() as new;
        deserialize_str() as new;
        deserialize_string() as new;
        deserialize_bytes() as new;
        deserialize_byte_buf() as new;
        deserialize_option() as new;
        deserialize_unit() as new;
        deserialize_unit_struct(name: &'static str) as new;
        deserialize_newtype_struct(name: &'static str) as new;
        deserialize_seq() as counted;
        deserialize_tuple(len: usize) as new;
        deserialize_tuple_struct(name: &'static str, len: usize) as new;
        deserialize_map() as counted;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) as new;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) as new;
        deserialize_identifier() as new;
        deserialize_ignored_any() as counted;
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($($value:ident: $type:ty)?))+) => {$(
        fn $method<E: Error>(self $(, $value: $type)?) -> Result<V::Value, E> {
            self.inner.$method($($value)?).map_err(|stop| self.bounds.down(stop))
        }
    )+};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool(value: bool)
        visit_i8(value: i8)
        visit_i16(value: i16)
        visit_i32(value: i32)
        visit_i64(value: i64)
        visit_i128(value: i128)
        visit_u8(value: u8)
        visit_u16(value: u16)
        visit_u32(value: u32)
        visit_u64(value: u64)
        visit_u128(value: u128)
        visit_f32(value: f32)
        visit_f64(value: f64)
        visit_char(value: char)
        visit_str(value: &str)
        visit_borrowed_str(value: &'de str)
        visit_string(value: String)
        visit_bytes(value: &[u8])
        visit_borrowed_bytes(value: &'de [u8])
        visit_byte_buf(value: Vec<u8>)
        visit_none()
        visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, some: D) -> Result<V::Value, D::Error> {
        let Self { inner, bounds, .. } = self;
        let read = bounds.deeper(|| inner.visit_some(Bounded::new(some, bounds)));
        read.map_err(|stop| bounds.down(stop))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, only: D) -> Result<V::Value, D::Error> {
        let Self { inner, bounds, .. } = self;
        let read = inner.visit_newtype_struct(Bounded::new(only, bounds));
        read.map_err(|stop| bounds.down(stop))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        let Self { inner, bounds, counted } = self;
        let read = bounds.deeper(|| inner.visit_seq(Bounded { inner: seq, bounds, counted }));
        read.map_err(|stop| bounds.down(stop))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let Self { inner, bounds, counted } = self;
        let read = bounds.deeper(|| inner.visit_map(Bounded { inner: map, bounds, counted }));
        read.map_err(|stop| bounds.down(stop))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, choice: A) -> Result<V::Value, A::Error> {
        let Self { inner, bounds, .. } = self;
        let read = bounds.deeper(|| inner.visit_enum(Bounded::new(choice, bounds)));
        read.map_err(|stop| bounds.down(stop))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<S::Value, D::Error> {
        let Self { inner, bounds, .. } = self;
        inner.deserialize(Bounded::new(from, bounds)).map_err(|stop| bounds.down(stop))
    }
}

impl<A> Bounded<'_, A> {
    fn count<T>(&self, element: Option<T>) -> Result<Option<T>, Stop> {
        if self.counted && element.is_some() {
            self.bounds.element()?;
        }
        Ok(element)
    }

    /// Not more than there can be: what allocates by it must not be lied to.
    fn honest(&self, hint: Option<usize>) -> Option<usize> {
        hint.map(|hint| hint.min(self.bounds.elements.get()))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        let element = self.inner.next_element_seed(Bounded::new(seed, self.bounds));
        self.count(element.map_err(|error| self.bounds.up(error))?)
    }

    fn size_hint(&self) -> Option<usize> {
        self.honest(self.inner.size_hint())
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<'_, A> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        let key = self.inner.next_key_seed(Bounded::new(seed, self.bounds));
        self.count(key.map_err(|error| self.bounds.up(error))?)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        let value = self.inner.next_value_seed(Bounded::new(seed, self.bounds));
        value.map_err(|error| self.bounds.up(error))
    }

    fn size_hint(&self) -> Option<usize> {
        self.honest(self.inner.size_hint())
    }
}

impl<'de, 'b, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'b, A> {
    type Error = Stop;
    type Variant = Bounded<'b, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), Stop> {
        let Self { inner, bounds, .. } = self;
        match inner.variant_seed(Bounded::new(seed, bounds)) {
            Ok((value, variant)) => Ok((value, Bounded::new(variant, bounds))),
            Err(error) => Err(bounds.up(error)),
        }
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.inner.unit_variant().map_err(|error| self.bounds.up(error))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        let Self { inner, bounds, .. } = self;
        inner.newtype_variant_seed(Bounded::new(seed, bounds)).map_err(|error| bounds.up(error))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        let Self { inner, bounds, .. } = self;
        let value = inner.tuple_variant(len, Bounded::new(visitor, bounds));
        value.map_err(|error| bounds.up(error))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let Self { inner, bounds, .. } = self;
        let value = inner.struct_variant(fields, Bounded::new(visitor, bounds));
        value.map_err(|error| bounds.up(error))
    }
}
