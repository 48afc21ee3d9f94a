//! Bodies to bytes and back, by content type.

#[cfg(feature = "bincode")]
mod bincode;
#[cfg(any(feature = "msgpack", feature = "postcard", feature = "bincode"))]
mod bounded;
mod charset;
mod json;
#[cfg(feature = "msgpack")]
mod msgpack;
#[cfg(feature = "postcard")]
mod postcard;
mod redact;
mod text;

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use erased_serde::{Deserializer, Serialize};
use serde::de::DeserializeOwned;

#[cfg(feature = "bincode")]
pub use self::bincode::Bincode;
#[cfg(feature = "msgpack")]
pub use self::msgpack::MessagePack;
#[cfg(feature = "postcard")]
pub use self::postcard::Postcard;
use self::redact::without_the_body;
pub use self::{
    json::{AnyJson, Json},
    text::Text,
};
#[cfg(feature = "compression")]
use crate::message::compression::Compression;
use crate::{
    error::{Error, ErrorKind, Result},
    message::Message,
    message::compression,
    short_str::ShortStr,
};

/// What reads a value out of the deserializer that a [`Codec`] hands it.
pub type Visit<'v> = dyn FnMut(&mut dyn Deserializer<'_>) -> Result<(), erased_serde::Error> + 'v;

/// The cause of a failure to encode or decode.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// An encoding of bodies, with the media type that names it.
///
/// The toolkit's are [`Json`], [`AnyJson`], [`Text`] and, each behind a feature, `MessagePack`, `Postcard` and
/// `Bincode`; [`Raw`](crate::Raw) is a body that none of them touches. One of your own takes any
/// format that speaks serde, through [`erased_serde`]:
///
/// ```
/// use bytes::Bytes;
/// use enoki_core::{Codec, CodecError, Codecs, Json, ShortStr, Visit, erased_serde};
///
/// /// JSON for people: indented.
/// #[derive(Debug)]
/// struct Pretty;
///
/// impl Codec for Pretty {
///     fn content_type(&self) -> ShortStr {
///         ShortStr::from_static("application/x-pretty-json")
///     }
///
///     fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Bytes, CodecError> {
///         Ok(serde_json::to_vec_pretty(value)?.into())
///     }
///
///     fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
///         let mut json = serde_json::Deserializer::from_slice(body);
///         visit(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut json))?;
///         Ok(json.end()?) // nothing but white space follows
///     }
/// }
///
/// let codecs = Codecs::only(Pretty).and(Json); // writes the one, reads both
/// assert_eq!(&codecs.encode(&[1])?.body[..], b"[\n  1\n]");
/// # Ok::<(), enoki_core::Error>(())
/// ```
pub trait Codec: fmt::Debug + Send + Sync + 'static {
    /// The media type, without parameters, in lower case: `application/json`.
    fn content_type(&self) -> ShortStr;

    /// Whether it reads bodies of this media type, given without parameters: by default the one that
    /// it writes, in upper or lower case. For encodings that go by several names.
    fn reads(&self, media_type: &str) -> bool {
        self.content_type().eq_ignore_ascii_case(media_type)
    }

    /// Whether it reads bodies in this character set, which a message may name in its content type
    /// (`; charset=utf-16`) or content encoding. By default in any: an encoding that is no text has none.
    /// One that it does not read is named as the reason why the body is refused.
    fn reads_charset(&self, charset: &str) -> bool {
        let _ = charset;
        true
    }

    /// Writes a value.
    fn encode(&self, value: &dyn Serialize) -> Result<Bytes, CodecError>;

    /// Hands the visitor a deserializer over the body, then checks that all of the body was read.
    ///
    /// What the visitor returns is returned on. An error of the codec's own quotes nothing of the
    /// body: it is logged. Bodies come from anywhere: however deep one is nested and whatever
    /// lengths it claims, the answer is an error, and neither a panic nor a full stack.
    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError>;
}

/// A body and the media type that says how to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The bytes.
    pub body: Bytes,
    /// Their media type, if it is known.
    pub content_type: Option<ShortStr>,
}

/// The encodings that a publisher writes (the first) and a consumer accepts (all of them).
///
/// A body of another content type, or of none, is not guessed at: it is undecodable.
#[derive(Debug, Clone)]
pub struct Codecs(Arc<Registry>);

#[derive(Debug, Clone)]
struct Registry {
    writes: Arc<dyn Codec>,
    reads: Vec<Arc<dyn Codec>>,
    #[cfg(feature = "compression")]
    compression: Option<Compression>,
}

impl Default for Codecs {
    fn default() -> Self {
        Self::only(Json)
    }
}

impl Codecs {
    /// Writes and accepts this encoding and no other.
    pub fn only(codec: impl Codec) -> Self {
        let codec: Arc<dyn Codec> = Arc::new(codec);
        Self(Arc::new(Registry {
            writes: codec.clone(),
            reads: vec![codec],
            #[cfg(feature = "compression")]
            compression: None,
        }))
    }

    /// Accepts this encoding as well.
    #[must_use]
    pub fn and(mut self, codec: impl Codec) -> Self {
        Arc::make_mut(&mut self.0).reads.push(Arc::new(codec));
        self
    }

    /// Reads compressed bodies as well, and compresses those it writes.
    #[cfg(feature = "compression")]
    #[must_use]
    pub fn compressed(mut self, compression: Compression) -> Self {
        Arc::make_mut(&mut self.0).compression = Some(compression);
        self
    }

    /// The message with its body as it was before it was compressed, if these codecs read such
    /// bodies. A compression that they do not know is left as it is.
    pub(crate) fn unpack<'m>(&self, message: &'m Message) -> Result<Cow<'m, Message>> {
        #[cfg(feature = "compression")]
        if let Some(compression) = &self.0.compression
            && let Some(unpacked) = compression::unpack(compression, message)?
        {
            return Ok(Cow::Owned(unpacked));
        }
        Ok(Cow::Borrowed(message))
    }

    /// The message with its body compressed, if these codecs do that and it helps.
    pub(crate) fn pack(&self, message: Message) -> Result<Message> {
        #[cfg(feature = "compression")]
        if let Some(compression) = &self.0.compression {
            return compression::pack(compression, message);
        }
        Ok(message)
    }

    /// Writes a value as the first encoding.
    pub fn encode(&self, value: &dyn Serialize) -> Result<Encoded> {
        let content_type = self.0.writes.content_type();
        let body = self.0.writes.encode(value).map_err(|cause| {
            Error::new(ErrorKind::Codec, "encode the body")
                .on(format!("as {content_type}"))
                .because(cause.to_string())
                .caused_by(cause)
        })?;
        Ok(Encoded { body, content_type: Some(content_type) })
    }

    /// Reads the body of a message by its content type. Case does not matter, nor do parameters other than
    /// the character set: what names one that the encoding does not read, in its content type or content
    /// encoding, is refused.
    pub fn decode<T: DeserializeOwned>(&self, message: &Message) -> Result<T> {
        let message = &*self.unpack(message)?;
        compression::refuse_compressed(message)?;
        let codec = self.codec_for(message)?;
        let failed = || undecodable(format!("as {}", codec.content_type()));
        if let Some(charset) = charset::named(message).find(|name| !codec.reads_charset(name)) {
            let shown: String = charset.chars().take(64).collect();
            return Err(failed().because(format!(
                "its character set is {shown:?}, and only UTF-8 and ASCII are read"
            )));
        }
        let mut value = None;
        let mut misfit = None;
        let read = codec.decode(&message.body, &mut |deserializer| {
            let read = erased_serde::deserialize::<T>(deserializer);
            value = Some(read.inspect_err(|error| {
                misfit = Some(without_the_body(&error.to_string()));
            })?);
            Ok(())
        });
        match (read, misfit) {
            #[cfg(any(feature = "msgpack", feature = "postcard", feature = "bincode"))]
            (Err(cause), _) if cause.is::<bounded::Refusal>() => {
                Err(failed().because(cause.to_string()))
            }
            // Not with the cause: serde quotes the value that did not fit.
            (Err(_), Some(reason)) => Err(failed().because(reason)),
            (Err(cause), None) => Err(failed().because(cause.to_string()).caused_by(cause)),
            (Ok(()), _) => value.ok_or_else(|| failed().because("the codec read no value")),
        }
    }

    fn codec_for(&self, message: &Message) -> Result<&dyn Codec> {
        let named = message.properties.content_type.as_deref();
        let media_type =
            named.and_then(|text| text.split(';').next()).map(str::trim).unwrap_or_default();
        let codec = self.0.reads.iter().find(|codec| codec.reads(media_type));
        codec.map(AsRef::as_ref).ok_or_else(|| {
            let accepted: Vec<_> =
                self.0.reads.iter().map(|codec| codec.content_type().to_string()).collect();
            let got =
                named.map_or("no content type".to_owned(), |text| format!("content type {text:?}"));
            let refused = undecodable(format!("with {got}"))
                .because(format!("accepted are {}", accepted.join(", ")));
            match AnyJson.reads(media_type) && accepted.iter().any(|name| AnyJson.reads(name)) {
                true => {
                    refused.remedy("accept the codec `AnyJson`, if what is published so is JSON")
                }
                false => refused,
            }
        })
    }
}

fn undecodable(subject: String) -> Error {
    Error::new(ErrorKind::Codec, "decode a body").on(subject)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize as _};

    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        id: u8,
        note: Option<String>,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    enum Kind {
        Rush,
        Usual,
    }

    fn message(body: impl Into<Bytes>, content_type: Option<&'static str>) -> Message {
        let mut message = Message::new(body);
        message.properties.content_type = content_type.map(ShortStr::from_static);
        message
    }

    fn json<T: DeserializeOwned>(body: impl Into<Bytes>) -> Result<T> {
        Codecs::default().decode(&message(body, Some("application/json")))
    }

    fn refused<T: DeserializeOwned + fmt::Debug>(body: impl Into<Bytes>, part: &str) -> String {
        let error = json::<T>(body).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec);
        let said = format!("{error}");
        assert!(said.starts_with("decode a body as application/json: "), "{said}");
        assert!(said.contains(part), "{part:?} is missing in {said:?}");
        said
    }

    #[test]
    fn what_is_written_can_be_read() {
        let order = Order { id: 7, note: Some("ä\u{1F344}\n\"".to_owned()), kind: Kind::Rush };
        let encoded = Codecs::default().encode(&order).unwrap();
        assert_eq!(encoded.content_type.as_deref(), Some("application/json"));
        assert_eq!(json::<Order>(encoded.body).unwrap(), order);
    }

    #[test]
    fn the_content_type_decides_and_case_and_parameters_do_not_matter() {
        for content_type in [
            "application/json",
            "APPLICATION/JSON",
            "Application/Json; charset=utf-8",
            "application/json;charset=UTF-8;x=y",
            " application/json ;",
        ] {
            let read: u8 = Codecs::default().decode(&message("7", Some(content_type))).unwrap();
            assert_eq!(read, 7, "{content_type}");
        }
    }

    #[test]
    fn a_character_set_that_is_not_read_is_the_reason() {
        let read = |codecs: &Codecs, content_type: &'static str, encoding: &'static str| {
            let mut message = message("7", Some(content_type));
            message.properties.content_encoding = Some(ShortStr::from_static(encoding));
            codecs.decode::<u8>(&message)
        };
        let both = Codecs::only(Json).and(Text);
        for (content_type, encoding) in [
            ("application/json; charset=\"UTF-8\"", ""),
            ("application/json;charset=utf8; x=y", "binary"),
            ("text/plain; Charset=US-ASCII", "UTF-8"),
            ("application/json; charset=", "identity"),
            ("application/json; x=charset", "8bit"),
            ("application/json", "us-ascii"),
        ] {
            assert_eq!(
                read(&both, content_type, encoding).unwrap(),
                7,
                "{content_type} {encoding}"
            );
        }
        for (content_type, encoding, charset) in [
            ("application/json; charset=utf-16", "", "utf-16"),
            ("application/json; charset=utf-16", "utf-16", "utf-16"),
            ("application/json", "UTF-16LE", "UTF-16LE"),
            ("text/plain ; x=y ; CHARSET = \"iso-8859-1\"", "", "iso-8859-1"),
            ("application/json; charset=utf-8", "windows-1252", "windows-1252"),
        ] {
            let said = read(&both, content_type, encoding).unwrap_err().to_string();
            let expected =
                format!("its character set is {charset:?}, and only UTF-8 and ASCII are read");
            assert!(said.contains(&expected), "{said}");
        }
        // An encoding of one's own may read any.
        let own = Codecs::only(Backwards);
        assert_eq!(read(&own, "text/backwards; charset=utf-16", "").unwrap(), 7);
    }

    #[test]
    fn json_by_other_names_is_read_where_a_program_says_so() {
        let any = Codecs::only(AnyJson);
        for content_type in [
            None,
            Some(""),
            Some("application/json"),
            Some("application/cloudevents+json; charset=utf-8"),
            Some("application/vnd.masstransit+JSON"),
            Some("text/json"),
        ] {
            assert_eq!(
                any.decode::<u8>(&message("7", content_type)).unwrap(),
                7,
                "{content_type:?}"
            );
            if content_type != Some("application/json") {
                let strict = Codecs::default().decode::<u8>(&message("7", content_type));
                let said = strict.unwrap_err().to_string();
                assert!(said.contains("accept the codec `AnyJson`"), "{said}");
            }
        }
        for content_type in ["text/plain", "application/jsonp", "+json", "application/+json"] {
            assert!(any.decode::<u8>(&message("7", Some(content_type))).is_err(), "{content_type}");
            let strict = Codecs::default().decode::<u8>(&message("7", Some(content_type)));
            assert!(!strict.unwrap_err().to_string().contains("AnyJson"), "{content_type}");
        }
        let encoded = any.encode(&7).unwrap();
        assert_eq!(encoded.content_type.as_deref(), Some("application/json"));
        assert!(any.decode::<u8>(&message("\u{feff}x", None)).is_err());
    }

    /// No guess at what it might be.
    #[test]
    fn another_content_type_or_none_is_refused_and_what_is_accepted_is_named() {
        for (content_type, expected) in [
            (None, "with no content type"),
            (Some(""), "with content type \"\""),
            (Some("text/plain"), "with content type \"text/plain\""),
            (Some("application/x-python-serialize"), "\"application/x-python-serialize\""),
            (Some("application/jsonp"), "\"application/jsonp\""),
            (Some("application/octet-stream"), "\"application/octet-stream\""),
        ] {
            let error = Codecs::default().decode::<u8>(&message("7", content_type)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Codec);
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.to_string().contains("accepted are application/json"), "{error}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_is_refused_with_the_place() {
        refused::<u8>("", "EOF while parsing a value at line 1 column 0");
        refused::<u8>("7 8", "trailing characters at line 1 column 3");
        refused::<u8>("{\n  ]", "expected");
        refused::<Vec<u8>>("[1,", "EOF while parsing");
        refused::<Vec<u8>>("[1,]", "trailing comma");
        refused::<f64>("1e999", "number out of range at line 1");
        refused::<f64>("NaN", "expected value");
        refused::<String>(&b"\"\xff\""[..], "invalid unicode code point at line 1");
        refused::<String>("\"\\ud800\"", "at line 1");
        refused::<String>("\"a", "EOF while parsing a string");
        refused::<Order>("{\"id\":1,\"id\":2}", "duplicate field `id`");
        refused::<Order>("{\"id\":1}", "missing field `kind`");
        // One mark of byte order is not content, as .NET writes it; more are.
        assert_eq!(json::<u8>("\u{feff}7").unwrap(), 7);
        refused::<u8>("\u{feff}\u{feff}7", "expected value");
        refused::<u8>("\u{feff}", "EOF while parsing a value");
    }

    #[test]
    fn a_body_nested_100_000_deep_is_refused_and_overflows_no_stack() {
        for open in ["[", "{\"a\":"] {
            refused::<serde_json::Value>(open.repeat(100_000), "recursion limit exceeded");
            refused::<serde::de::IgnoredAny>(open.repeat(100_000), "");
        }
    }

    #[derive(Debug)]
    struct Picky;

    impl<'de> Deserialize<'de> for Picky {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let text = String::deserialize(from)?;
            Err(serde::de::Error::custom(format!("{text:?} is not picky enough")))
        }
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only that it cannot be read matters")]
    enum Either {
        Number(u8),
        Texts(Vec<String>),
    }

    #[test]
    fn no_error_has_a_word_of_the_body() {
        let said =
            refused::<u8>("\"s3cr3t\"", "a value of another type, expected u8 at line 1 column 8");
        let mut all = vec![said];
        all.push(refused::<u8>("300987", "a value out of range, expected u8 at line 1"));
        all.push(refused::<bool>("300987", "a value of another type, expected a boolean"));
        all.push(refused::<Kind>("\"s3cr3t\"", "an unknown variant, expected `Rush` or `Usual`"));
        all.push(refused::<Order>("{\"s3cr3t\":1}", "an unknown field, expected one of `id`"));
        all.push(refused::<u8>(
            "\"s3cr3t, expected 300987 at line s3cr3t\"",
            ", expected u8 at line 1",
        ));
        all.push(refused::<u8>("\"a\\\", expected s3cr3t\"", ", expected u8 at line 1"));
        all.push(refused::<Picky>("\"s3cr3t\"", "the value does not fit the type"));
        all.push(refused::<Picky>(
            "\"s3cr3t at line 300987 column 300987\"",
            "does not fit the type",
        ));
        all.push(refused::<Either>("\"s3cr3t\"", "the value does not fit the type"));
        all.push(refused::<BTreeMap<u8, u8>>("{\"s3cr3t\":1}", ""));
        all.push(refused::<(u8, u8)>("[1,2,300987]", ""));
        all.push(refused::<u8>("s3cr3t", "expected value"));
        all.push(refused::<u8>("7 s3cr3t", "trailing characters"));
        all.push(refused::<char>("\"s3cr3t\"", "expected a character"));
        for said in all {
            assert!(!said.contains("s3cr3t") && !said.contains("300987"), "{said}");
        }
    }

    #[test]
    fn no_source_of_an_error_has_a_word_of_the_body() {
        let error = json::<u8>("\"s3cr3t\"").unwrap_err();
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        while let Some(cause) = source {
            assert!(!format!("{cause} {cause:?}").contains("s3cr3t"), "{cause:?}");
            source = cause.source();
        }
    }

    /// Writes the JSON text backwards; a body that does not begin with `}` or a digit is not its own.
    #[derive(Debug)]
    struct Backwards;

    impl Codec for Backwards {
        fn content_type(&self) -> ShortStr {
            ShortStr::from_static("text/backwards")
        }

        fn encode(&self, value: &dyn Serialize) -> Result<Bytes, CodecError> {
            Ok(serde_json::to_vec(value)?.into_iter().rev().collect::<Vec<_>>().into())
        }

        fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
            if body.is_empty() {
                return Ok(());
            }
            if body.starts_with(b"?") {
                return Err("it begins with a question".into());
            }
            let forwards: Vec<_> = body.iter().rev().copied().collect();
            Json.decode(&forwards, visit)
        }
    }

    #[test]
    fn a_codec_of_the_programs_own_writes_and_is_chosen_by_its_content_type() {
        let codecs = Codecs::only(Backwards).and(Json);
        let encoded = codecs.encode(&12).unwrap();
        assert_eq!(
            (&encoded.body[..], encoded.content_type.as_deref()),
            (&b"21"[..], Some("text/backwards"))
        );
        assert_eq!(codecs.decode::<u8>(&message("21", Some("text/backwards"))).unwrap(), 12);
        assert_eq!(codecs.decode::<u8>(&message("21", Some("application/json"))).unwrap(), 21);
        let only = Codecs::default().decode::<u8>(&message("21", Some("text/backwards")));
        assert_eq!(only.unwrap_err().kind(), ErrorKind::Codec);
        let error = codecs.decode::<u8>(&message("21", Some("text/plain"))).unwrap_err();
        assert!(
            error.to_string().contains("accepted are text/backwards, application/json"),
            "{error}"
        );
    }

    #[test]
    fn a_codecs_own_error_is_passed_on_and_one_that_reads_nothing_is_noticed() {
        let codecs = Codecs::only(Backwards);
        let read = |body| codecs.decode::<u8>(&message(body, Some("text/backwards"))).unwrap_err();
        let error = read("?");
        assert!(error.to_string().contains("it begins with a question"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
        assert!(read("").to_string().contains("the codec read no value"));
        let error = read("\"t3rc3s\"");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    }

    #[test]
    fn clones_are_independent() {
        let one = Codecs::default();
        let two = one.clone().and(Backwards);
        assert!(one.decode::<u8>(&message("21", Some("text/backwards"))).is_err());
        assert!(two.decode::<u8>(&message("21", Some("text/backwards"))).is_ok());
    }

    #[test]
    fn a_value_that_cannot_be_written_is_the_publishers_error() {
        let map = BTreeMap::from([((1, 2), 3)]);
        assert!(map.serialize(serde_json::value::Serializer).is_err());
        let error = Codecs::default().encode(&map).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec);
        assert!(error.to_string().starts_with("encode the body as application/json: "), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = json::<Order>(body.clone());
            let _ = json::<serde_json::Value>(body.clone());
            let _ = json::<Vec<String>>(body);
        }

        #[test]
        fn nothing_that_a_type_says_gets_through(text in "[\\PC]{0,30}", start in 0_usize..6) {
            let starts = ["", "invalid type: ", "unknown variant `", "unknown field `", "x at line ", "invalid"];
            let said = format!("{}hunter2{text}", starts[start]);
            prop_assert!(!without_the_body(&said).contains("hunter2"));
        }

        #[test]
        fn every_text_is_read_as_it_was_written(text in ".*") {
            let encoded = Codecs::default().encode(&text).unwrap();
            prop_assert_eq!(json::<String>(encoded.body).unwrap(), text);
        }
    }
}
