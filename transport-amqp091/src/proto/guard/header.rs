//! The content header before a body (§4.2.6.1): the length of the body, and the properties of the message.

use lapin::protocol::constants::FRAME_END;

use super::table;
use crate::proto::{
    decode::Cursor,
    fault::{MessageFault, PLACEHOLDER},
    frame::HEADER,
};

/// The payload of a header frame, of which only the first fields are read yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct ContentHeader<'a> {
    /// The class (2 bytes), and a weight that is always 0 (2 bytes).
    class: &'a [u8],
    /// The length of the body, in bytes.
    pub(super) body: u64,
    /// A bit for each property that is there, the first property in the highest bit.
    flags: u16,
    /// The properties that are there, in the order of their bits.
    properties: Cursor<'a>,
}

impl<'a> ContentHeader<'a> {
    /// Reads the first fields; `None` if the payload is too short for them.
    pub(super) fn read(payload: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let class = cursor.take(4)?;
        let body = cursor.long_long()?;
        Some(Self { class, body, flags: cursor.short()?, properties: cursor })
    }

    /// Whether lapin reads these properties.
    pub(super) fn check(&self) -> Result<(), MessageFault> {
        let mut rest = self.properties;
        for (_, kind) in self.present() {
            let value = property(&mut rest, kind).ok_or(MessageFault::Malformed)?;
            match kind {
                b'F' => table::check(value)?,
                b's' if !table::is_text(value) => return Err(MessageFault::NotUtf8),
                _ => {}
            }
        }
        if rest.left() == 0 { Ok(()) } else { Err(MessageFault::Malformed) }
    }

    /// The message id, even where the rest cannot be read.
    pub(super) fn message_id(&self) -> Option<&'a [u8]> {
        let mut rest = self.properties;
        for (flag, kind) in self.present() {
            let value = property(&mut rest, kind)?;
            if flag == MESSAGE_ID {
                return table::is_text(value).then_some(value);
            }
        }
        None
    }

    /// The properties that are there: their bits, and their types.
    fn present(&self) -> impl Iterator<Item = (u16, u8)> + use<> {
        let flags = self.flags;
        (0..).map(|bit| 0x8000 >> bit).zip(*PROPERTIES).filter(move |(flag, _)| flags & flag != 0)
    }

    /// A whole header frame for a message that cannot be read: it has the fault in place of the headers, and no
    /// property but the message id.
    pub(super) fn placeholder(
        &self,
        channel: u16,
        body: u64,
        fault: MessageFault,
        message_id: Option<&[u8]>,
    ) -> Vec<u8> {
        let mut field = vec![PLACEHOLDER.len() as u8];
        field.extend_from_slice(PLACEHOLDER.as_bytes());
        field.extend_from_slice(&[b'B', fault as u8]);
        let mut properties = (field.len() as u32).to_be_bytes().to_vec();
        properties.extend_from_slice(&field);
        let mut flags = HEADERS;
        if let Some(message_id) = message_id
            && let Ok(length) = u8::try_from(message_id.len())
        {
            flags |= MESSAGE_ID;
            properties.push(length);
            properties.extend_from_slice(message_id);
        }
        self.frame(channel, body, flags, &properties)
    }

    fn frame(&self, channel: u16, body: u64, flags: u16, properties: &[u8]) -> Vec<u8> {
        let length = self.class.len() + size_of_val(&body) + size_of_val(&flags) + properties.len();
        let mut frame = vec![HEADER];
        frame.extend_from_slice(&channel.to_be_bytes());
        frame.extend_from_slice(&(length as u32).to_be_bytes());
        frame.extend_from_slice(self.class);
        frame.extend_from_slice(&body.to_be_bytes());
        frame.extend_from_slice(&flags.to_be_bytes());
        frame.extend_from_slice(properties);
        frame.push(FRAME_END);
        frame
    }
}

/// The next property, of this type.
fn property<'a>(rest: &mut Cursor<'a>, kind: u8) -> Option<&'a [u8]> {
    match kind {
        b's' => rest.short_string(),
        kind => rest.value(kind),
    }
}

/// The types of content-type, content-encoding, headers, delivery-mode, priority, correlation-id,
/// reply-to, expiration, message-id, timestamp, type, user-id, app-id and cluster-id. As in a table,
/// but for `s`, a short string.
const PROPERTIES: &[u8; 14] = b"ssFBBssssTssss";

const HEADERS: u16 = 0x2000;
const MESSAGE_ID: u16 = 0x0080;

#[cfg(test)]
mod tests {
    use amq_protocol::frame::{AMQPFrame, parse_frame};

    use super::*;

    #[test]
    fn a_placeholder_names_each_fault() {
        for fault in MessageFault::ALL {
            let header = ContentHeader::read(&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0]).unwrap();
            let placeholder = header.placeholder(1, 0, fault, Some(&[b'i'; 255]));
            let Ok(([], AMQPFrame::Header(1, read))) = parse_frame(placeholder.as_slice()) else {
                panic!("no header")
            };
            let headers = read.properties.headers().as_ref().unwrap();
            assert_eq!(MessageFault::from_headers(headers), Some(fault));
            assert_eq!(read.body_size, 0);
            let id = read.properties.message_id().as_ref().unwrap();
            assert_eq!(id.as_str(), "i".repeat(255));
            assert!(!fault.to_string().is_empty());
        }
    }
}
