//! Who the broker says it is, in the first frame it sends (`connection.start`). Pure.
//!
//! lapin reads the server's properties and keeps none of them.

use crate::proto::decode::Cursor;

/// What a broker says of itself before the login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PeerProperties {
    pub(crate) product: Option<String>,
    pub(crate) version: Option<String>,
}

/// The greeting in this frame; an empty one if it is no `connection.start`.
pub(crate) fn read(frame: &[u8]) -> PeerProperties {
    start(frame).unwrap_or_default()
}

/// A method of class 10, method 10: a version of two bytes, then the properties.
fn start(frame: &[u8]) -> Option<PeerProperties> {
    let mut cursor = Cursor::new(frame);
    if cursor.byte()? != 1 {
        return None;
    }
    cursor.take(6)?;
    if (cursor.short()?, cursor.short()?) != (10, 10) {
        return None;
    }
    cursor.take(2)?;
    let mut table = Cursor::new(cursor.long_string()?);
    let mut greeting = PeerProperties::default();
    while let Some(name) = table.short_string() {
        let kind = table.byte()?;
        let value = table.value(kind)?;
        let text = || String::from_utf8_lossy(value).chars().take(64).collect();
        match name {
            b"product" => greeting.product = Some(text()),
            b"version" => greeting.version = Some(text()),
            _ => {}
        }
    }
    Some(greeting)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// A `connection.start` of RabbitMQ's, with a table and a boolean before what is looked for.
    fn frame() -> Vec<u8> {
        let mut table = Vec::new();
        let mut field = |name: &str, kind: u8, value: &[u8]| {
            table.push(name.len() as u8);
            table.extend_from_slice(name.as_bytes());
            table.push(kind);
            if b"SF".contains(&kind) {
                table.extend_from_slice(&(value.len() as u32).to_be_bytes());
            }
            table.extend_from_slice(value);
        };
        field("capabilities", b'F', b"\x12publisher_confirmst\x01");
        field("cluster", b't', &[1]);
        field("product", b'S', b"RabbitMQ");
        field("version", b'S', b"4.0.5");
        let mut payload = vec![0, 10, 0, 10, 0, 9];
        payload.extend_from_slice(&(table.len() as u32).to_be_bytes());
        payload.extend_from_slice(&table);
        payload.extend_from_slice(b"\0\0\0\x05PLAIN\0\0\0\x05en_US");
        let mut frame = vec![1, 0, 0];
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(&payload);
        frame.push(0xce);
        frame
    }

    #[test]
    fn product_and_version_are_found() {
        let frame = frame();
        let greeting = PeerProperties {
            product: Some("RabbitMQ".to_owned()),
            version: Some("4.0.5".to_owned()),
        };
        assert_eq!(read(&frame), greeting);
    }

    #[test]
    fn another_first_frame_has_no_greeting() {
        for frame in [&b"\x01\0\0\0\0\0\x04\0\x0a\0\x32\xce"[..], b"AMQP\0\x01\0\0", b"", b"\x08"] {
            assert_eq!(read(frame), PeerProperties::default());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in vec(any::<u8>(), 0..200), at in 0..200usize, byte: u8) {
            let _ = read(&bytes);
            let mut frame = frame();
            let at = at % frame.len();
            frame[at] = byte;
            let _ = read(&frame);
        }
    }
}
