//! Who the broker says it is, in the first frame it sends (`connection.start`). Pure.
//!
//! lapin reads the server's properties and keeps none of them.

/// What a broker says of itself before the login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) product: Option<String>,
    pub(crate) version: Option<String>,
}

/// The frame that begins here: its whole length and, of a `connection.start`, the greeting.
///
/// `None` means that bytes are missing. It trusts no length in the frame.
pub(crate) fn read(bytes: &[u8]) -> Option<(usize, Greeting)> {
    let mut header = Cursor(bytes);
    let _kind_and_channel = header.take(3)?;
    let payload = header.length()?;
    let whole = payload.checked_add(8)?;
    let mut payload = Cursor(bytes.get(7..whole)?.get(..payload)?);
    Some((whole, start(&mut payload).unwrap_or_default()))
}

/// The properties of `connection.start`: class 10, method 10, a version of two bytes.
fn start(payload: &mut Cursor<'_>) -> Option<Greeting> {
    if payload.take(4)? != [0, 10, 0, 10] {
        return None;
    }
    payload.take(2)?;
    let length = payload.length()?;
    let mut table = Cursor(payload.take(length)?);
    let mut greeting = Greeting::default();
    while let Some(length) = table.byte() {
        let name = table.take(length.into())?;
        let value = table.value()?;
        let text = || String::from_utf8_lossy(value).chars().take(64).collect();
        match name {
            b"product" => greeting.product = Some(text()),
            b"version" => greeting.version = Some(text()),
            _ => {}
        }
    }
    Some(greeting)
}

/// The rest of the bytes.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn length(&mut self) -> Option<usize> {
        let bytes = self.take(4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    }

    /// The bytes of a field's value, whatever its type; tables and lists are not entered.
    fn value(&mut self) -> Option<&'a [u8]> {
        match self.byte()? {
            b'S' | b'x' | b'F' | b'A' => {
                let length = self.length()?;
                self.take(length)
            }
            b't' | b'b' | b'B' => self.take(1),
            b's' | b'u' | b'U' => self.take(2),
            b'I' | b'i' | b'f' => self.take(4),
            b'D' => self.take(5),
            b'l' | b'L' | b'd' | b'T' => self.take(8),
            b'V' => self.take(0),
            _ => None,
        }
    }
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
    fn product_and_version_are_found_once_the_frame_is_whole() {
        let frame = frame();
        let greeting =
            Greeting { product: Some("RabbitMQ".to_owned()), version: Some("4.0.5".to_owned()) };
        assert_eq!(read(&frame), Some((frame.len(), greeting.clone())));
        for length in 0..frame.len() {
            assert_eq!(read(&frame[..length]), None);
        }
        let more = [frame.as_slice(), b"more"].concat();
        assert_eq!(read(&more), Some((frame.len(), greeting)));
    }

    #[test]
    fn another_first_frame_has_no_greeting() {
        let frame = b"\x01\0\0\0\0\0\x04\0\x0a\0\x32\xce";
        assert_eq!(read(frame), Some((frame.len(), Greeting::default())));
        assert_eq!(read(b"HTTP/1.1 400 Bad Request\r\n\r\n"), None);
        assert_eq!(read(b"AMQP\0\x01\0\0"), None);
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
