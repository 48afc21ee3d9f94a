//! Bodies to bytes and back, by content type.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use erased_serde::{Deserializer, Serialize};
use serde::de::DeserializeOwned;

use crate::{
    error::{Error, ErrorKind, Result},
    message::Message,
    short_str::ShortStr,
};

/// What reads a value out of the deserializer that a [`Codec`] hands it.
pub type Visit<'v> = dyn FnMut(&mut dyn Deserializer<'_>) -> Result<(), erased_serde::Error> + 'v;

/// The cause of a failure to encode or decode.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// An encoding of bodies, with the media type that names it.
pub trait Codec: fmt::Debug + Send + Sync + 'static {
    /// The media type, without parameters, in lower case: `application/json`.
    fn content_type(&self) -> ShortStr;

    /// Writes a value.
    fn encode(&self, value: &dyn Serialize) -> Result<Bytes, CodecError>;

    /// Hands the visitor a deserializer over the body, then checks that all of the body was read.
    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError>;
}

/// JSON (RFC 8259), the default.
///
/// ```
/// use enoki_core::{Codecs, Json, Message};
///
/// let codecs = Codecs::only(Json);
/// let body = codecs.encode(&vec![1, 2])?;
/// assert_eq!(&body.body[..], b"[1,2]");
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl Codec for Json {
    fn content_type(&self) -> ShortStr {
        ShortStr::from_static("application/json")
    }

    fn encode(&self, value: &dyn Serialize) -> Result<Bytes, CodecError> {
        Ok(serde_json::to_vec(value)?.into())
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        let mut json = serde_json::Deserializer::from_slice(body);
        visit(&mut <dyn Deserializer<'_>>::erase(&mut json))?;
        Ok(json.end()?)
    }
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
        Self(Arc::new(Registry { writes: codec.clone(), reads: vec![codec] }))
    }

    /// Accepts this encoding as well.
    #[must_use]
    pub fn and(mut self, codec: impl Codec) -> Self {
        Arc::make_mut(&mut self.0).reads.push(Arc::new(codec));
        self
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

    /// Reads the body of a message by its content type. Parameters (`; charset=utf-8`) and case do
    /// not matter.
    pub fn decode<T: DeserializeOwned>(&self, message: &Message) -> Result<T> {
        let codec = self.codec_for(message)?;
        let mut value = None;
        codec
            .decode(&message.body, &mut |deserializer| {
                value = Some(erased_serde::deserialize::<T>(deserializer)?);
                Ok(())
            })
            .map_err(|cause| {
                undecodable(format!("as {}", codec.content_type()))
                    .because(cause.to_string())
                    .caused_by(cause)
            })?;
        value.ok_or_else(|| {
            undecodable(format!("as {}", codec.content_type())).because("the codec read no value")
        })
    }

    fn codec_for(&self, message: &Message) -> Result<&dyn Codec> {
        let named = message.properties.content_type.as_deref();
        let media_type =
            named.and_then(|text| text.split(';').next()).map(str::trim).unwrap_or_default();
        let codec =
            self.0.reads.iter().find(|codec| codec.content_type().eq_ignore_ascii_case(media_type));
        codec.map(AsRef::as_ref).ok_or_else(|| {
            let accepted: Vec<_> =
                self.0.reads.iter().map(|codec| codec.content_type().to_string()).collect();
            let got =
                named.map_or("no content type".to_owned(), |text| format!("content type {text:?}"));
            undecodable(format!("with {got}"))
                .because(format!("accepted are {}", accepted.join(", ")))
        })
    }
}

fn undecodable(subject: String) -> Error {
    Error::new(ErrorKind::Codec, "decode a body").on(subject)
}
