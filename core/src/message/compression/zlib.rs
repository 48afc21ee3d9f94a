//! Bodies in zlib's format, and in gzip's.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::{
    Compression as Level,
    bufread::{GzDecoder, ZlibDecoder},
    write::ZlibEncoder,
};

use crate::error::{Error, ErrorKind, Result};

/// Which bodies are compressed, and how large one may become when it is read.
///
/// A compressed body is what kombu and nameko make of `compression="gzip"`: zlib's format, with the
/// header `compression` of `application/x-gzip`; its content type is still that of the value. What
/// is read may also be in gzip's format, and may be marked by the content encoding `gzip` or
/// `deflate` alone, as other toolkits do.
///
/// A body that does not become smaller is sent as it is, and every consumer reads those, too. A
/// consumer that does not know of compression refuses a compressed one, so let the consumers read it
/// before the first publisher writes it.
///
/// ```
/// use enoki_core::{BrokerOptions, Codecs, Compression, Json};
///
/// let options = BrokerOptions::new()
///     .codecs(Codecs::only(Json).compressed(Compression::new().max_size(1024 * 1024)));
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Compression {
    min_size: usize,
    max_size: usize,
}

impl Default for Compression {
    fn default() -> Self {
        Self { min_size: 1024, max_size: 16 * 1024 * 1024 }
    }
}

impl Compression {
    /// Compresses bodies of at least 1 KiB, and reads those that become at most 16 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compresses nothing, and reads bodies that become at most 16 MiB.
    pub fn read_only() -> Self {
        Self { min_size: usize::MAX, ..Self::default() }
    }

    /// The smallest body that is compressed, in bytes; small ones gain nothing.
    #[must_use]
    pub fn min_size(mut self, bytes: usize) -> Self {
        self.min_size = bytes;
        self
    }

    /// The largest body that a compressed one may become, in bytes. This is what bounds the memory
    /// that a message of a few bytes can ask for; a larger one cannot be decoded, and is not
    /// compressed.
    #[must_use]
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.max_size = bytes;
        self
    }

    /// The compressed body, if it is worth it.
    pub(super) fn compress(&self, body: &[u8]) -> Result<Option<Bytes>> {
        if body.len() < self.min_size || body.len() > self.max_size {
            return Ok(None);
        }
        let mut encoder = ZlibEncoder::new(Vec::new(), Level::default());
        let compressed = encoder.write_all(body).and_then(|()| encoder.finish());
        let compressed = compressed
            .map_err(|cause| Error::new(ErrorKind::Codec, "compress a body").caused_by(cause))?;
        Ok((compressed.len() < body.len()).then(|| compressed.into()))
    }

    /// The body as it was.
    pub(super) fn decompress(&self, body: &[u8]) -> Result<Bytes> {
        let mut into = Vec::new();
        self.decompress_into(body, &mut into)?;
        Ok(into.into())
    }

    fn decompress_into(&self, body: &[u8], into: &mut Vec<u8>) -> Result<()> {
        let failed = |kind| Error::new(kind, "decompress a body");
        let mut rest = body;
        let one_too_many = u64::try_from(self.max_size).unwrap_or(u64::MAX).saturating_add(1);
        // No stream of zlib begins like one of gzip.
        let read = if body.starts_with(&[0x1f, 0x8b]) {
            GzDecoder::new(&mut rest).take(one_too_many).read_to_end(into)
        } else {
            ZlibDecoder::new(&mut rest).take(one_too_many).read_to_end(into)
        };
        if into.len() > self.max_size {
            return Err(failed(ErrorKind::TooLarge)
                .because(format!("its {} bytes become more than {}", body.len(), self.max_size))
                .remedy("raise `Compression::max_size`, if the publisher is to be trusted"));
        }
        if read.is_err() || !rest.is_empty() {
            return Err(failed(ErrorKind::Codec)
                .because("it is neither one stream of zlib nor one of gzip"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::{
        Message,
        codec::{Codecs, Json},
    };

    /// What kombu 5.2.4 makes of this body with `compression="gzip"`, byte for byte.
    const BY_KOMBU: &[u8] =
        b"\x78\x9c\x53\x4a\xcd\xcb\xcf\xce\x54\x18\x25\x89\x21\x95\x00\xbc\xa1\x6e\xd1";

    fn enoki_50_times() -> String {
        format!("\"{}\"", "enoki ".repeat(50))
    }

    fn codecs() -> Codecs {
        Codecs::only(Json).compressed(Compression::new().min_size(100).max_size(10_000))
    }

    /// As a publisher makes it.
    fn packed(text: &str) -> Message {
        let encoded = codecs().encode(&text).unwrap();
        let mut message = Message::new(encoded.body);
        message.properties.content_type = encoded.content_type;
        codecs().pack(message).unwrap()
    }

    fn marked(body: impl Into<Bytes>, header: &str) -> Message {
        let mut message = Message::new(body);
        message.properties.content_type = Some("application/json".try_into().unwrap());
        message.headers.insert("compression", header).unwrap();
        message
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Level::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_large_body_is_compressed_and_marked_and_becomes_what_it_was() {
        let text = "enoki ".repeat(50);
        let message = packed(&text);
        assert!(message.body.len() < 50, "{}", message.body.len());
        assert_eq!(
            message.headers.get("compression").and_then(|it| it.as_str()),
            Some("application/x-gzip")
        );
        assert_eq!(message.properties.content_type.as_deref(), Some("application/json"));
        assert_eq!(message.properties.content_encoding, None);
        assert_eq!(codecs().decode::<String>(&message).unwrap(), text);
        let unpacked = codecs().unpack(&message).unwrap();
        assert!(!unpacked.headers.contains("compression"), "it is not any more");
        assert_eq!(unpacked.body, enoki_50_times());
    }

    #[test]
    fn what_gains_nothing_is_sent_as_it_is() {
        for text in ["small", &"x".repeat(20_000)] {
            let message = packed(text);
            assert!(message.headers.is_empty(), "{} bytes", text.len());
            assert_eq!(codecs().decode::<String>(&message).unwrap(), text);
        }
        let noise: Vec<u8> =
            (0..500_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let noise = Message::new(noise);
        assert_eq!(codecs().pack(noise.clone()).unwrap(), noise);
        let once = packed(&"enoki ".repeat(50));
        assert_eq!(codecs().pack(once.clone()).unwrap(), once, "not twice");
        let plain = Message::new(enoki_50_times());
        let reader = Codecs::only(Json).compressed(Compression::read_only());
        assert_eq!(reader.pack(plain.clone()).unwrap(), plain);
    }

    #[test]
    fn what_kombu_writes_is_read_and_so_is_gzip_by_each_of_its_names() {
        let text = "enoki ".repeat(50);
        let message = marked(BY_KOMBU, "application/x-gzip");
        assert_eq!(codecs().decode::<String>(&message).unwrap(), text);
        for name in ["gzip", "zlib", "Application/X-GZIP", "deflate"] {
            for body in [BY_KOMBU.to_vec(), gzip(enoki_50_times().as_bytes())] {
                let message = marked(body.clone(), name);
                assert_eq!(codecs().decode::<String>(&message).unwrap(), text, "{name}");
            }
        }
        for (name, then) in [
            ("gzip", None),
            ("x-gzip", None),
            ("Deflate", None),
            ("gzip:UTF-8", Some("UTF-8")),
            (" gzip , identity", Some("identity")),
        ] {
            let mut message = marked(gzip(enoki_50_times().as_bytes()), "");
            message.headers.remove("compression");
            message.properties.content_encoding = Some(name.try_into().unwrap());
            assert_eq!(codecs().decode::<String>(&message).unwrap(), text, "{name}");
            let unpacked = codecs().unpack(&message).unwrap().into_owned();
            assert_eq!(unpacked.properties.content_encoding.as_deref(), then, "{name}");
            // A consumer that does not read compressed bodies is told what it is.
            let said = Codecs::default().decode::<String>(&message).unwrap_err().to_string();
            assert!(said.contains("compressed as"), "{said}");
        }
        for twice in ["gzip, deflate", "gzip, gzip"] {
            let mut message = marked(gzip(enoki_50_times().as_bytes()), "");
            message.headers.remove("compression");
            message.properties.content_encoding = Some(twice.try_into().unwrap());
            let said = codecs().decode::<String>(&message).unwrap_err().to_string();
            assert!(said.contains(&format!("compressed as {twice:?}")), "{said}");
        }
        for charset in ["utf-8", "binary", "us-ascii", ""] {
            let mut message = packed("small");
            message.properties.content_encoding = Some(charset.try_into().unwrap());
            assert_eq!(codecs().decode::<String>(&message).unwrap(), "small", "{charset}");
            assert_eq!(Codecs::default().decode::<String>(&message).unwrap(), "small");
        }
    }

    #[test]
    fn what_was_not_asked_for_is_refused_and_not_taken_for_something_else() {
        let message = marked(BY_KOMBU, "application/x-gzip");
        let error = Codecs::default().decode::<String>(&message).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec);
        assert!(error.to_string().contains("compressed as \"application/x-gzip\""), "{error}");
        let error = codecs().decode::<u8>(&marked("7", "application/x-bz2")).unwrap_err();
        assert!(error.to_string().contains("compressed as \"application/x-bz2\""), "{error}");
        let left = marked("7", "application/x-bz2");
        assert_eq!(*codecs().unpack(&left).unwrap(), left);
    }

    #[test]
    fn what_is_no_such_stream_is_refused() {
        for good in [BY_KOMBU.to_vec(), gzip(enoki_50_times().as_bytes())] {
            for length in 0..good.len() {
                let error = codecs()
                    .decode::<String>(&marked(good[..length].to_vec(), "gzip"))
                    .unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Codec, "{length} bytes of {good:?}");
            }
            let more = [&good[..], b"x"].concat();
            let error = codecs().decode::<String>(&marked(more, "gzip")).unwrap_err();
            assert!(error.to_string().contains("neither one stream of zlib"), "{error}");
            let mut other = good.clone();
            let sum = other.len() - if good.starts_with(&[0x1f]) { 8 } else { 1 };
            other[sum] ^= 1;
            assert!(codecs().decode::<String>(&marked(other, "gzip")).is_err(), "a wrong sum");
        }
    }

    /// A stream of this many megabytes of zeros, of which only the sum at its end is missing: the
    /// same block again and again.
    fn zeros(megabytes: usize) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Level::default());
        let zeros = vec![0; 1 << 20];
        encoder.write_all(&zeros).unwrap();
        encoder.flush().unwrap();
        let start = encoder.get_ref().len();
        encoder.write_all(&zeros).unwrap();
        encoder.flush().unwrap();
        let block = encoder.get_ref()[start..].to_vec();
        [&encoder.get_ref()[..start], &block.repeat(megabytes - 1)].concat()
    }

    #[test]
    fn a_bomb_of_a_gigabyte_is_refused_at_the_limit_and_takes_no_more_memory() {
        let mut some = Vec::new();
        let cut_off = ZlibDecoder::new(&zeros(4)[..]).read_to_end(&mut some);
        assert!(cut_off.is_err() && some.len() == 4 << 20, "{}", some.len());
        let bomb = zeros(1024);
        assert!(bomb.len() < 2 << 20, "{}", bomb.len());
        let mut into = Vec::new();
        let error = Compression::new().decompress_into(&bomb, &mut into).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let said = error.to_string();
        assert!(said.contains("become more than 16777216"), "{said}");
        assert_eq!(into.len(), (16 << 20) + 1);
        assert!(into.capacity() <= 2 * into.len(), "{}", into.capacity());
        let error = codecs().decode::<String>(&marked(bomb, "gzip")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn nor_does_one_in_the_format_of_gzip() {
        let mut into = Vec::new();
        let bomb = gzip(&vec![0; 1 << 20]);
        let limit = Compression::new().max_size(10_000);
        let error = limit.decompress_into(&bomb, &mut into).unwrap_err();
        assert_eq!((error.kind(), into.len()), (ErrorKind::TooLarge, 10_001));
    }

    #[test]
    fn the_limit_is_exact() {
        for (length, fits) in [(9_998, true), (9_999, false)] {
            let encoded = Codecs::default().encode(&"x".repeat(length)).unwrap();
            let body = Compression::new().compress(&encoded.body).unwrap().unwrap();
            let read = codecs().decode::<String>(&marked(body, "gzip"));
            assert_eq!(read.is_ok(), fits, "{length}");
        }
    }

    proptest! {
        #[test]
        fn every_body_becomes_what_it_was(
            start in proptest::collection::vec(any::<u8>(), 0..300),
            times in 1_usize..20,
        ) {
            let body = Message::new(start.repeat(times));
            let message = codecs().pack(body.clone()).unwrap();
            prop_assert!(message.body.len() <= body.body.len());
            prop_assert_eq!(codecs().unpack(&message).unwrap().into_owned(), body);
        }

        #[test]
        fn no_bytes_do_harm(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            for start in [&b""[..], b"\x78\x9c", b"\x1f\x8b\x08\x00", b"\x1f\x8b\x08\x1f\0\0\0\0\0\xff"] {
                let _ = Compression::new().decompress(&[start, &body].concat());
            }
        }
    }
}
