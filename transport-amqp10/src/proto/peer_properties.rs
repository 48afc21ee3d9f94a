//! How a broker describes itself when it opens a connection: the `properties` of its open (§2.7.1).

use super::{decode::Cursor, fault::Fault};

/// How a broker describes itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PeerProperties {
    pub(crate) product: Option<String>,
    pub(crate) version: Option<String>,
}

impl PeerProperties {
    /// Reads the fields of an open, of which there are `count`. The properties are the tenth.
    pub(crate) fn of_open(mut fields: Cursor<'_>, count: usize) -> Result<Self, Fault> {
        let mut properties = Self::default();
        if count < 10 {
            return Ok(properties);
        }
        for _ in 0..9 {
            fields.skip()?;
        }
        for (name, value) in fields.pairs()? {
            let text = || value.as_str().map(|text| text.chars().take(LONGEST).collect());
            match name.as_str() {
                "product" => properties.product = text(),
                "version" => properties.version = text(),
                _ => {}
            }
        }
        Ok(properties)
    }
}

/// How many characters are kept of a text that the broker chose. They are shown in errors and logs.
const LONGEST: usize = 64;
