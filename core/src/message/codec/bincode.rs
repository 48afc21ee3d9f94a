//! Bincode.

use bincode::{
    config::{Configuration, Limit, LittleEndian, Varint, standard},
    enc::write::SizeWriter,
    serde::{encode_into_writer, encode_to_vec, seed_decode_from_slice},
};
use bytes::Bytes;
use erased_serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _};

use super::{Codec, CodecError, Visit, bounded::Bounds};
use crate::short_str::ShortStr;

/// Bincode 2 with its standard configuration, as `application/x-bincode`: for peers that speak it
/// already.
///
/// The crate is no longer maintained (RUSTSEC-2025-0141), so it is pinned to 2.0.1, its last
/// release; new programs are better off with [`Postcard`](super::Postcard), which has the same limits
/// as to types. It has no registered media type, so the name is ours. A body of more than 16 MiB
/// once decoded is neither written nor read.
///
/// ```
/// use enoki_core::{Bincode, Codecs};
///
/// assert_eq!(&Codecs::only(Bincode).encode(&("id", 300_u16))?.body[..], b"\x02id\xfb\x2c\x01");
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Bincode;

/// As [`Limits::max_body`](crate::Limits). Bincode allocates what a length claims, so there has to
/// be one, and its limits are constants.
const MAX_DECODED: usize = 16 * 1024 * 1024;

const CONFIGURATION: Configuration<LittleEndian, Varint, Limit<MAX_DECODED>> =
    standard().with_limit::<MAX_DECODED>();

impl Codec for Bincode {
    fn content_type(&self) -> ShortStr {
        ShortStr::from_static("application/x-bincode")
    }

    fn encode(&self, value: &dyn Serialize) -> Result<Bytes, CodecError> {
        let body = encode_to_vec(value, CONFIGURATION)?;
        // The limit counts numbers in full, and on the wire one of 16 bytes may be one.
        if body.len() > MAX_DECODED / 16 && decoded_size(value)? > MAX_DECODED {
            return Err(format!("it has more than {MAX_DECODED} bytes once decoded").into());
        }
        Ok(body.into())
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        let mut failed = None;
        let seed = Seed { bounds: Bounds::of(body), visit, failed: &mut failed };
        let read = seed_decode_from_slice(seed, body, CONFIGURATION);
        match (failed, read) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(error.into()),
            (None, Ok(((), read))) if read < body.len() => Err("bytes follow the value".into()),
            (None, Ok(_)) => Ok(()),
        }
    }
}

fn decoded_size(value: &dyn Serialize) -> Result<usize, CodecError> {
    let mut size = SizeWriter::default();
    encode_into_writer(value, &mut size, standard().with_fixed_int_encoding())?;
    Ok(size.bytes_written)
}

/// Only a seed is told how much of the body was read.
struct Seed<'s, 'v> {
    bounds: Bounds,
    visit: &'s mut Visit<'v>,
    failed: &'s mut Option<CodecError>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.bounds.visit(from, self.visit).map_err(|error| {
            *self.failed = Some(error);
            D::Error::custom("the value was not read")
        })
    }
}
