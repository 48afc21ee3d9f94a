//! Compressed bodies, marked as kombu marks them.

#[cfg(feature = "compression")]
mod zlib;

#[cfg(feature = "compression")]
pub use self::zlib::Compression;
#[cfg(feature = "compression")]
use crate::short_str::ShortStr;
use crate::{
    error::{Error, ErrorKind, Result},
    message::Message,
};

/// The header that says how a body is compressed.
const HEADER: &str = "compression";

/// What the header and the content encoding may say that is read here: the name that kombu writes,
/// its short forms, and those of HTTP.
#[cfg(feature = "compression")]
const NAMES: &[&str] = &["application/x-gzip", "gzip", "x-gzip", "zlib", "deflate"];

/// Content encodings that say how a body is compressed. Others name a character set.
const CONTENT_ENCODINGS: &[&str] = &["gzip", "x-gzip", "deflate", "br", "zstd"];

/// What the content encoding names. Others write a list there, as HTTP does (`gzip, identity`), or the character
/// set behind a colon, as Spring AMQP does (`gzip:UTF-8`).
pub(crate) fn content_encodings(message: &Message) -> impl Iterator<Item = &str> {
    let text = message.properties.content_encoding.as_deref().unwrap_or_default();
    text.split([',', ':']).map(str::trim).filter(|name| !name.is_empty())
}

fn is_compression(name: &str) -> bool {
    CONTENT_ENCODINGS.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// How the body is compressed, by what its message says. Where it is compressed twice that is all the content
/// encoding, which no name of a compression is equal to.
pub(crate) fn compression_of(message: &Message) -> Option<&str> {
    if let Some(value) = message.headers.get(HEADER) {
        // kombu takes an empty text or a null for none.
        return value.as_str().filter(|name| !name.is_empty());
    }
    let mut compressions = content_encodings(message).filter(|name| is_compression(name));
    match (compressions.next(), compressions.next()) {
        (Some(_), Some(_)) => message.properties.content_encoding.as_deref(),
        (one, _) => one,
    }
}

/// The message with its body as it was before it was compressed; `None` where it is not, or in a way
/// that is not known here.
#[cfg(feature = "compression")]
pub(crate) fn unpack(compression: &Compression, message: &Message) -> Result<Option<Message>> {
    let Some(name) = compression_of(message) else { return Ok(None) };
    if !NAMES.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(None);
    }
    let mut unpacked = message.clone();
    unpacked.body = compression.decompress(&message.body)?;
    match message.headers.contains(HEADER) {
        true => drop(unpacked.headers.remove(HEADER)),
        false => {
            let others: Vec<_> =
                content_encodings(message).filter(|name| !is_compression(name)).collect();
            unpacked.properties.content_encoding = match others.is_empty() {
                true => None,
                false => Some(ShortStr::new(others.join(", "))?),
            };
        }
    }
    Ok(Some(unpacked))
}

/// The message with its body compressed, if that makes it smaller and it is not compressed yet.
#[cfg(feature = "compression")]
pub(crate) fn pack(compression: &Compression, message: Message) -> Result<Message> {
    if compression_of(&message).is_none()
        && let Some(body) = compression.compress(&message.body)?
    {
        let mut packed = Message { body, ..message };
        packed.headers.insert(HEADER, "application/x-gzip")?;
        return Ok(packed);
    }
    Ok(message)
}

/// Refuses a body that is still compressed: no encoding could read it.
pub(crate) fn refuse_compressed(message: &Message) -> Result<()> {
    let Some(name) = compression_of(message) else { return Ok(()) };
    let shown: String = name.chars().take(64).collect();
    Err(Error::new(ErrorKind::Codec, "decode a body")
        .on(format!("compressed as {shown:?}"))
        .because("this is not accepted here")
        .remedy("accept it with `Codecs::compressed`, of the feature \"compression\", if it is zlib or gzip"))
}
