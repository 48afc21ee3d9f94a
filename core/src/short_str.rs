//! The string type of names, keys and short properties.

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use crate::error::{Error, ErrorKind, Result};

/// A UTF-8 string of at most 255 bytes: what AMQP calls a short string.
///
/// Names of exchanges and queues, routing keys and string properties all have this limit on the
/// wire (AMQP 0-9-1 §4.2.5.3), so it is checked once, here, whichever transport carries them.
/// Cloning never copies the text.
///
/// ```
/// use enoki_core::ShortStr;
///
/// const SHOP: ShortStr = ShortStr::from_static("shop");
/// assert_eq!(SHOP, ShortStr::new("shop")?);
/// assert!(ShortStr::new("x".repeat(256)).is_err());
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ShortStr(Repr);

#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Shared(Arc<str>),
}

impl ShortStr {
    /// The longest text, in bytes.
    pub const MAX: usize = 255;

    /// The empty text.
    pub const EMPTY: Self = Self(Repr::Static(""));

    /// A text made at run time; longer than [`ShortStr::MAX`] bytes is a configuration error.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        Self::named("text", text)
    }

    /// Like [`ShortStr::new`], and the error names the field the text was meant for.
    pub fn named(field: &'static str, text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.len() > Self::MAX {
            let start: String = text.chars().take(32).collect();
            return Err(Error::new(ErrorKind::Configuration, "check a name")
                .on(format!("{field} \"{start}…\""))
                .because(format!("{} bytes exceed the limit of {} bytes", text.len(), Self::MAX)));
        }
        Ok(Self(Repr::Shared(text.into())))
    }

    /// A constant text; one that is too long does not compile.
    ///
    /// # Panics
    ///
    /// Only outside constants, when the text is longer than [`ShortStr::MAX`] bytes.
    pub const fn from_static(text: &'static str) -> Self {
        assert!(text.len() <= Self::MAX, "a name or key has at most 255 bytes");
        Self(Repr::Static(text))
    }

    /// A text that is short by the way it was made.
    pub(crate) fn within_limit(text: &str) -> Self {
        debug_assert!(text.len() <= Self::MAX);
        Self(Repr::Shared(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(text) => text,
            Repr::Shared(text) => text,
        }
    }
}

impl Default for ShortStr {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Deref for ShortStr {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for ShortStr {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for ShortStr {
    fn borrow(&self) -> &str {
        self
    }
}

impl TryFrom<&str> for ShortStr {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for ShortStr {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(text)
    }
}

impl PartialEq for ShortStr {
    fn eq(&self, other: &Self) -> bool {
        let (text, other) = (self.as_str(), other.as_str());
        // Mostly one is a clone of the other: a name that a publisher keeps for all its messages.
        std::ptr::eq(text, other) || text == other
    }
}

impl PartialEq<str> for ShortStr {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for ShortStr {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl Eq for ShortStr {}

impl PartialOrd for ShortStr {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShortStr {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl std::hash::Hash for ShortStr {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for ShortStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for ShortStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;

    #[test]
    fn the_limit_is_255_bytes_and_not_letters() {
        assert_eq!(ShortStr::new("x".repeat(255)).unwrap().len(), 255);
        assert!(ShortStr::new("é".repeat(127)).is_ok());
        let error = ShortStr::named("routing key", "é".repeat(128)).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("routing key \"éé"), "{said}");
        assert!(said.contains("256 bytes exceed the limit of 255 bytes"), "{said}");
        assert!(said.len() < 200, "the start is enough: {said}");
        assert!(ShortStr::try_from("x".repeat(256)).is_err());
        assert!(ShortStr::try_from(&*"x".repeat(256)).is_err());
    }

    #[test]
    fn a_constant_is_the_same_as_one_made_at_run_time() {
        const SHOP: ShortStr = ShortStr::from_static("shop");
        let shop = ShortStr::new("shop").unwrap();
        assert_eq!(SHOP, shop);
        assert_eq!(SHOP, "shop");
        assert_eq!(SHOP.cmp(&shop), std::cmp::Ordering::Equal);
        assert_eq!(HashMap::from([(SHOP, 1)]).get("shop"), Some(&1));
        assert_eq!(HashMap::from([(SHOP, 1)]).get(&shop), Some(&1));
        assert_eq!(BTreeMap::from([(shop, 1)]).get("shop"), Some(&1));
        assert_eq!(format!("{SHOP} {SHOP:?}"), "shop \"shop\"");
        assert_eq!((ShortStr::default(), ShortStr::EMPTY.is_empty()), (ShortStr::EMPTY, true));
    }
}
