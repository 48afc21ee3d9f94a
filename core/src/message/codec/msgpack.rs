//! MessagePack.

use bytes::Bytes;
use erased_serde::Serialize;

use super::{Codec, CodecError, Visit, bounded::Bounds};
use crate::short_str::ShortStr;

/// MessagePack, as `application/x-msgpack`: the name that kombu and nameko know it by.
///
/// A structure is a map from the names of its fields, so that a peer in another language can read
/// it, and fields can be added. Structures that came as plain lists are read, too, and so are the
/// names `application/msgpack` and `application/vnd.msgpack`.
///
/// It is not what serde calls human readable: a type such as `Uuid` travels as its bytes.
///
/// ```
/// use enoki_core::{Codecs, Json, MessagePack};
///
/// let codecs = Codecs::only(MessagePack).and(Json); // writes MessagePack, reads both
/// assert_eq!(&codecs.encode(&vec![1, 2])?.body[..], [0x92, 1, 2]);
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct MessagePack;

impl Codec for MessagePack {
    fn content_type(&self) -> ShortStr {
        ShortStr::from_static("application/x-msgpack")
    }

    fn reads(&self, media_type: &str) -> bool {
        let names = ["application/x-msgpack", "application/msgpack", "application/vnd.msgpack"];
        names.iter().any(|name| name.eq_ignore_ascii_case(media_type))
    }

    fn encode(&self, value: &dyn Serialize) -> Result<Bytes, CodecError> {
        Ok(rmp_serde::to_vec_named(value)?.into())
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        let mut rest = body;
        Bounds::of(body).visit(&mut rmp_serde::Deserializer::new(&mut rest), visit)?;
        if rest.is_empty() { Ok(()) } else { Err("bytes follow the value".into()) }
    }
}
