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
