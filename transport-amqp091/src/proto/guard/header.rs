//! The header before a body: its length, and the properties of the message.

use super::{FRAME_END, HEADER, MessageFault, PLACEHOLDER, table};
use crate::proto::decode::Cursor;

/// A content header (§4.2.6.1).
#[derive(Debug, Clone, Copy)]
pub(super) struct ContentHeader<'a> {
    /// Its class, and a weight that nobody uses.
    class: &'a [u8],
    /// The length of the body.
    pub(super) body: u64,
    flags: u16,
    properties: Cursor<'a>,
}

impl<'a> ContentHeader<'a> {
    /// Reads the payload of a header frame; `None` if it is too short for one.
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

    /// The properties that are there: their flags, and their types.
    fn present(&self) -> impl Iterator<Item = (u16, u8)> + use<> {
        let flags = self.flags;
        (0..).map(|bit| 0x8000 >> bit).zip(*PROPERTIES).filter(move |(flag, _)| flags & flag != 0)
    }

    /// A whole frame for a message that cannot be read.
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
