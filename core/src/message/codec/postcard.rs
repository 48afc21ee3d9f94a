//! Postcard.

use bytes::Bytes;
use erased_serde::Serialize;

use super::{Codec, CodecError, Visit, bounded::Bounds};
use crate::short_str::ShortStr;

/// [Postcard](https://postcard.jamesmunns.com), as `application/x-postcard`: small and fast, between
/// programs in Rust that are built from the same types.
///
/// It has no registered media type, so the name is ours. Neither the names of fields nor their types
/// are in the body: a field that is added, removed or moved changes the meaning of all that follow,
/// often without an error. Types that look before they read (`#[serde(untagged)]`, `flatten`,
/// `serde_json::Value`) cannot be read.
///
/// ```
/// use enoki_core::{Codecs, Postcard};
///
/// assert_eq!(&Codecs::only(Postcard).encode(&("id", 300_u16))?.body[..], b"\x02id\xac\x02");
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

impl Codec for Postcard {
    fn content_type(&self) -> ShortStr {
        ShortStr::from_static("application/x-postcard")
    }

    fn encode(&self, value: &dyn Serialize) -> Result<Bytes, CodecError> {
        Ok(postcard::to_allocvec(value)?.into())
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        let mut postcard = postcard::Deserializer::from_bytes(body);
        Bounds::of(body).visit(&mut postcard, visit)?;
        if postcard.finalize()?.is_empty() { Ok(()) } else { Err("bytes follow the value".into()) }
    }
}
