//! Plain text.

use std::fmt::{self, Write};

use bytes::Bytes;
use erased_serde::Serialize;
use serde::de::{
    Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor, value::StrDeserializer,
};

use super::{Codec, CodecError, Visit, charset};
use crate::short_str::ShortStr;

/// Plain text in UTF-8, as `text/plain`: the body is the text and nothing else.
///
/// For messages that are one piece of text: a `String`, a `char`, the name of an enum's variant, and
/// numbers and truth values as they are displayed. Structures, lists and options are refused when
/// they are published.
///
/// A `String` is JSON like any other type unless a program picks this:
///
/// ```
/// use enoki_core::{Codecs, PublisherOptions, Text};
///
/// let options = PublisherOptions::new().codecs(Codecs::only(Text));
/// # let _ = options;
/// assert_eq!(&Codecs::only(Text).encode(&"order 1")?.body[..], b"order 1");
/// assert_eq!(&Codecs::default().encode(&"order 1")?.body[..], b"\"order 1\"");
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Text;

impl Codec for Text {
    fn content_type(&self) -> ShortStr {
        ShortStr::from_static("text/plain")
    }

    fn encode(&self, value: &dyn Serialize) -> Result<Bytes, CodecError> {
        let mut text = String::new();
        write!(text, "{}", Displayed(value))
            .map_err(|_| "a text is a string, a number, a truth value or the name of a variant")?;
        Ok(text.into())
    }

    fn reads_charset(&self, charset: &str) -> bool {
        charset::is_utf8(charset)
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        let text = std::str::from_utf8(body).map_err(|_| "a text is not UTF-8")?;
        Ok(visit(&mut <dyn erased_serde::Deserializer<'_>>::erase(Whole(text)))?)
    }
}

/// A value in the words of serde's serializer for formatters, which refuses what is no text.
struct Displayed<'v>(&'v dyn Serialize);

impl fmt::Display for Displayed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        serde::Serialize::serialize(self.0, f)
    }
}

/// A whole text as one value.
struct Whole<'t>(&'t str);

type Failure = serde::de::value::Error;

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ident),+ $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            match self.0.parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(Failure::invalid_type(Unexpected::Str(self.0), &visitor)),
            }
        }
    )+};
}

impl<'de> Deserializer<'de> for Whole<'de> {
    type Error = Failure;

    parsed! {
        deserialize_bool visit_bool bool,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128,
        deserialize_f32 visit_f32 f32,
        deserialize_f64 visit_f64 f64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let text: StrDeserializer<'_, Failure> = self.0.into_deserializer();
        text.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}
