//! JSON.

use bytes::Bytes;
use erased_serde::{Deserializer, Serialize};

use super::{Codec, CodecError, Visit, charset};
use crate::short_str::ShortStr;

/// JSON (RFC 8259), the default: `application/json`, in UTF-8, with or without a mark of byte order.
///
/// [`AnyJson`] also reads what is published under other names.
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

    fn reads_charset(&self, charset: &str) -> bool {
        charset::is_utf8(charset)
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        // A parser may leave a mark of byte order out (RFC 8259 §8.1); .NET writes one.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let mut json = serde_json::Deserializer::from_slice(body);
        visit(&mut <dyn Deserializer<'_>>::erase(&mut json))?;
        Ok(json.end()?)
    }
}

/// [`Json`] that also reads what other programs publish under another name, or under none.
///
/// It writes `application/json`. It reads that, `text/json`, every media type that ends with `+json` (RFC 6839),
/// such as `application/cloudevents+json`, and bodies of messages that have no content type at all: for a queue
/// whose publishers are known to send JSON. A body that is none is an error, as with [`Json`].
///
/// ```
/// use enoki_core::{AnyJson, Codecs, Message, ShortStr};
///
/// let codecs = Codecs::only(AnyJson);
/// let mut event = Message::new("[1,2]"); // with no content type
/// assert_eq!(codecs.decode::<Vec<u8>>(&event)?, [1, 2]);
/// event.properties.content_type = Some(ShortStr::from_static("application/cloudevents+json"));
/// assert_eq!(codecs.decode::<Vec<u8>>(&event)?, [1, 2]);
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyJson;

impl Codec for AnyJson {
    fn content_type(&self) -> ShortStr {
        Json.content_type()
    }

    fn reads(&self, media_type: &str) -> bool {
        let media_type = media_type.to_ascii_lowercase();
        let by_suffix = |name: &str| name.split_once('/').is_some_and(|(_, name)| !name.is_empty());
        matches!(&*media_type, "" | "application/json" | "text/json")
            || media_type.strip_suffix("+json").is_some_and(by_suffix)
    }

    fn reads_charset(&self, charset: &str) -> bool {
        Json.reads_charset(charset)
    }

    fn encode(&self, value: &dyn Serialize) -> Result<Bytes, CodecError> {
        Json.encode(value)
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        Json.decode(body, visit)
    }
}
