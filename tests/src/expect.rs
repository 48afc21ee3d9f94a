//! Why a case failed, and the ways to say what was expected.

use std::{
    fmt::{self, Debug},
    panic::Location,
};

use enoki_core::{Error, ErrorKind};

/// Why a case failed, and where in it. Every error converts into it by `?`.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    reason: String,
    at: &'static Location<'static>,
}

impl Failed {
    /// A failure of the line that calls this.
    #[track_caller]
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), at: Location::caller() }
    }
}

// So that every error converts, this is not an error itself.
impl<E: std::error::Error> From<E> for Failed {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::new(chain(&error))
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.at.file(), self.at.line(), self.reason)
    }
}

/// An error with all its causes, in one text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let details = format!("{error:?}");
    text = if details.contains(&text) { details } else { format!("{text} ({details})") };
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(", caused by {cause:?} ({cause})"));
        source = cause.source();
    }
    text
}

#[track_caller]
pub(crate) fn expect(truth: bool, what: impl fmt::Display) -> Result<(), Failed> {
    if truth { Ok(()) } else { Err(Failed::new(format!("expected: {what}"))) }
}

#[track_caller]
pub(crate) fn expect_eq<T: PartialEq<W> + Debug, W: Debug>(
    what: impl fmt::Display,
    got: T,
    wanted: W,
) -> Result<(), Failed> {
    if got == wanted {
        return Ok(());
    }
    Err(Failed::new(format!("{what}: got {}, expected {}", short(&got), short(&wanted))))
}

/// Expects a failure of one of these kinds, and returns it.
#[track_caller]
pub(crate) fn expect_error<T>(
    what: impl fmt::Display,
    result: Result<T, Error>,
    kinds: &[ErrorKind],
) -> Result<Error, Failed> {
    match result {
        Err(error) if kinds.contains(&error.kind()) => Ok(error),
        Err(error) => {
            Err(Failed::new(format!("{what}: expected {kinds:?}, got {}", chain(&error))))
        }
        Ok(_) => Err(Failed::new(format!("{what}: expected {kinds:?}, but it succeeded"))),
    }
}

/// Expects that the error says this.
#[track_caller]
pub(crate) fn expect_says(error: &Error, text: &str) -> Result<(), Failed> {
    expect(error.to_string().contains(text), format_args!("{text:?} in the error {error:?}"))
}

/// A value that fits on a screen.
fn short(value: &dyn Debug) -> String {
    const LONGEST: usize = 600;
    let text = format!("{value:?}");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => {
            format!("{}… ({} bytes)", text.get(..end).unwrap_or_default(), text.len())
        }
        None => text,
    }
}
