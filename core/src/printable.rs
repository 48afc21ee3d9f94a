//! Text from outside, made fit for one line of a log or an error.
//!
//! What a broker says, what a message carries and what names a queue may hold any character. A line
//! break forges a line of a log, ESC begins a command to a terminal, and bidirectional controls show
//! a text in another order than it has.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// The text with its control characters written as escapes, `\n` or `\u{1b}`, so that it stays one
/// line and nothing in it acts on a terminal.
///
/// Those are the control characters of Unicode (category Cc), the separators of lines and paragraphs, and
/// the invisible characters that change the direction of a text (Unicode Annex 9). Anything else stays as it
/// is, a backslash too, so that a text which went through here before is not changed again.
///
/// [`Error`](crate::Error) does this with all that it is made of. A transport needs it for what it logs itself.
///
/// ```
/// use enoki_core::transport::printable;
///
/// assert_eq!(printable("no queue 'a\u{1b}[31m\r\n'"), "no queue 'a\\u{1b}[31m\\r\\n'");
/// assert_eq!(printable("größe"), "größe");
/// ```
pub fn printable<'t>(text: impl Into<Cow<'t, str>>) -> Cow<'t, str> {
    let text = text.into();
    if text.contains(acts) { Cow::Owned(Printable(&text).to_string()) } else { text }
}

/// Shows a value with its control characters escaped; see [`printable`].
pub(crate) struct Printable<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(acts) {
            let (plain, found) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut letters = found.chars();
            if let Some(letter) = letters.next() {
                write!(self.0, "{}", letter.escape_default())?;
            }
            rest = letters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Whether a character does something where it is shown.
fn acts(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{061c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_acts_is_escaped_and_all_else_stays() {
        for (text, shown) in [
            ("", ""),
            ("plain \\n \u{1f344} größe \"x\"", "plain \\n \u{1f344} größe \"x\""),
            ("a\nb\r\n\tc", "a\\nb\\r\\n\\tc"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("\0\u{7f}\u{9b}", "\\u{0}\\u{7f}\\u{9b}"),
            ("\u{202e}cod\u{2066}\u{200f}\u{61c}", "\\u{202e}cod\\u{2066}\\u{200f}\\u{61c}"),
            ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
        ] {
            assert_eq!(printable(text), shown);
            assert_eq!(Printable(text).to_string(), shown);
        }
    }

    #[test]
    fn a_clean_text_is_not_copied() {
        assert!(matches!(printable("clean"), Cow::Borrowed("clean")));
    }

    proptest! {
        #[test]
        fn nothing_acts_afterwards_and_twice_is_once(text: String) {
            let shown = printable(&*text).into_owned();
            prop_assert!(!shown.contains(acts), "{shown:?}");
            prop_assert_eq!(printable(&*shown), &*shown);
        }
    }
}
