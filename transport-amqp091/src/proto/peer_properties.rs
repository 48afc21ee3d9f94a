//! The product and version that the broker names in its first frame, `connection.start` (§1.4.2.1).
//!
//! They are read here because lapin reads the server's properties and keeps none of them.

use enoki_amqp::PeerProperties;

use super::{decode::Cursor, frame::METHOD, methods::CONNECTION_START};

/// The properties in this frame; none if it is no `connection.start`.
pub(crate) fn read(frame: &[u8]) -> PeerProperties {
    start(frame).unwrap_or_default()
}

/// Reads a version of the protocol (2 bytes), then the table of properties.
fn start(frame: &[u8]) -> Option<PeerProperties> {
    let mut cursor = Cursor::new(frame);
    if cursor.byte()? != METHOD {
        return None;
    }
    cursor.take(6)?;
    if (cursor.short()?, cursor.short()?) != CONNECTION_START {
        return None;
    }
    cursor.take(2)?;
    let mut table = Cursor::new(cursor.long_string()?);
    let mut properties = PeerProperties::default();
    while let Some(name) = table.short_string() {
        let kind = table.byte()?;
        let value = table.value(kind)?;
        properties.set(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
    }
    Some(properties)
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
        let mut properties = PeerProperties::default();
        properties.set("product", "RabbitMQ");
        properties.set("version", "4.0.5");
        assert_eq!(read(&frame), properties);
    }

    #[test]
    fn another_first_frame_has_no_properties() {
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
