//! JSON.

use bytes::Bytes;
use erased_serde::{Deserializer, Serialize};

use super::{Codec, CodecError, Visit};
use crate::short_str::ShortStr;

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
