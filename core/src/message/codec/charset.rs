//! The character sets that a message names.

use crate::message::{Message, compression::content_encodings};

/// The character sets that a message names: in the content type (`; charset=utf-16`), and in the content
/// encoding, as kombu and Spring AMQP do. Most name one, or none.
pub(super) fn named(message: &Message) -> impl Iterator<Item = &str> {
    let parameters = message.properties.content_type.as_deref().unwrap_or_default().split(';');
    let of_type = parameters.skip(1).filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim().eq_ignore_ascii_case("charset") && !value.is_empty()).then_some(value)
    });
    of_type.chain(content_encodings(message).filter(|name| is_charset(name)))
}

/// Whether a content encoding is the name of a character set. Others say `binary`, or how a body is compressed.
fn is_charset(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Whether a character set has the bytes of UTF-8 for each of its characters.
pub(super) fn is_utf8(charset: &str) -> bool {
    ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|name| name.eq_ignore_ascii_case(charset))
}

/// What the names of character sets begin with.
const FAMILIES: &[&str] = &[
    "utf", "ucs", "us-ascii", "ascii", "iso-8859", "iso8859", "iso-2022", "latin", "windows-",
    "cp", "ibm", "koi8", "mac", "shift", "sjis", "euc-", "gb", "big5", "tis-", "ebcdic",
];
