//! Why a handler failed.

use std::{
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{error::ErrorKind, outcome::Outcome, printable::Printable, task::forget};

/// Why a message was not handled: by its handler, an argument of it, or a provider.
///
/// Every error converts into it by `?`, with its causes, and so does what people carry errors in:
/// `Box<dyn Error + Send + Sync>`, `anyhow::Error`, a `String`.
///
/// ```
/// use enoki_core::{Failure, Outcome};
///
/// fn parse(text: &str) -> Result<u32, Failure> {
///     if text.is_empty() {
///         // This one is not for the handler's `OnError` to decide.
///         return Err(Failure::new("nothing ordered").outcome(Outcome::Reject));
///     }
///     Ok(text.parse()?)
/// }
/// assert!(parse("x").is_err_and(|failure| failure.to_string().contains("invalid digit")));
/// ```
pub struct Failure {
    error: Box<dyn Error + Send + Sync>,
    outcome: Option<Outcome>,
    of: Option<Of>,
}

/// Who failed, where that is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// The message: it cannot be decoded.
    Message,
    /// A provider, whose codecs say nothing of the message.
    Provider,
}

impl Failure {
    /// A failure that is only a sentence.
    pub fn new(reason: impl Into<String>) -> Self {
        Self::from(reason.into())
    }

    /// What becomes of the delivery, whatever the consumer's [`OnError`](crate::OnError) says.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// What it says is to become of the delivery, if it does.
    pub(crate) fn chosen(&self) -> Option<Outcome> {
        self.outcome
    }

    /// The error it was made from.
    pub fn source(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }

    /// The message cannot be decoded.
    pub(super) fn of_message(error: crate::Error) -> Self {
        Self { of: Some(Of::Message), ..error.into() }
    }

    /// A provider failed, whose codecs say nothing of the message.
    pub(super) fn of_provider(self) -> Self {
        Self { of: Some(Of::Provider), ..self }
    }

    /// Why the message cannot be decoded, if that is what is wrong: no second try would mend it.
    pub(super) fn undecodable(&self) -> Option<&crate::Error> {
        let error = self.error.downcast_ref::<crate::Error>()?;
        let is_so = match self.of {
            Some(Of::Message) => true,
            Some(Of::Provider) => false,
            None => matches!(error.kind(), ErrorKind::Codec | ErrorKind::TooLarge),
        };
        (is_so && self.outcome.is_none()).then_some(error)
    }
}

// So that every error converts, this is not an error itself: the same way `Box<dyn Error>` is not.
impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), outcome: None, of: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Printable(chain(&*self.error)))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({self})")
    }
}

/// What an error and its causes say. They are the program's own, so that this may be called wherever
/// the toolkit has one: what panics is left out, and so are causes without end.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut said = String::new();
    let mut next = Some(error);
    for _ in 0..CAUSES {
        let walk = AssertUnwindSafe(|| next.map(|error| (error.to_string(), error.source())));
        match catch_unwind(walk) {
            Ok(None) => return said,
            Ok(Some((text, source))) => {
                said.push_str(if said.is_empty() { "" } else { ": " });
                said.push_str(&text);
                next = source;
            }
            Err(panic) => {
                forget(panic);
                said.push_str(if said.is_empty() { "" } else { ": " });
                said.push_str("(an error that panics when it is asked what it is)");
                return said;
            }
        }
    }
    if next.is_some() {
        said.push_str(": …");
    }
    said
}

/// How many causes of an error are told.
const CAUSES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_the_whole_chain_of_causes() {
        let io = std::io::Error::other("disk on fire");
        let error = crate::Error::new(crate::ErrorKind::Unexpected, "store")
            .because("no room")
            .caused_by(io);
        let failure = Failure::from(error);
        assert_eq!(failure.to_string(), "store: no room: disk on fire");
        assert_eq!(format!("{failure:?}"), "Failure(store: no room: disk on fire)");
        assert!(failure.source().is::<crate::Error>());
        assert_eq!(Failure::new("just so").to_string(), "just so");
    }

    #[derive(Debug)]
    struct Cycle;

    impl fmt::Display for Cycle {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("again")
        }
    }

    impl Error for Cycle {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }

    #[derive(Debug)]
    struct Trap;

    impl fmt::Display for Trap {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("no words")
        }
    }

    impl Error for Trap {}

    #[test]
    fn it_speaks_for_any_error() {
        let endless = Failure::from(Cycle).to_string();
        assert!(endless.starts_with("again: again") && endless.ends_with("again: …"), "{endless}");
        assert_eq!(endless.matches("again").count(), CAUSES);
        let trap = Failure::from(Trap);
        let said = "(an error that panics when it is asked what it is)";
        assert_eq!(trap.to_string(), said);
        let caused = crate::Error::new(crate::ErrorKind::Unexpected, "store").because("no room");
        let caused = Failure::from(caused.caused_by(Trap));
        assert_eq!(caused.to_string(), format!("store: no room: {said}"));
    }

    /// An error of a handler may quote the message.
    #[test]
    fn nothing_in_it_acts_on_a_terminal_or_forges_a_line() {
        let failure = Failure::new("no customer \"\u{1b}[2J\nERROR forged\"");
        assert_eq!(failure.to_string(), "no customer \"\\u{1b}[2J\\nERROR forged\"");
        let caused =
            crate::Error::new(crate::ErrorKind::Codec, "read").because("x").caused_by("\n");
        assert_eq!(Failure::from(caused).to_string(), "read: x: \\n");
    }

    #[test]
    fn every_error_converts_and_it_goes_between_threads() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<Failure>();
        fn convert(text: &str) -> Result<f64, Failure> {
            std::str::from_utf8(text.as_bytes())?;
            Ok(text.parse()?)
        }
        assert!(convert("1.5").is_ok() && convert("x").is_err());
        fn boxed() -> Result<(), Failure> {
            let error: Box<dyn Error + Send + Sync> = "boxed".into();
            Err(error)?
        }
        fn text() -> Result<(), Failure> {
            Err("text")?
        }
        fn any() -> Result<(), Failure> {
            let error = anyhow::Error::from(std::io::Error::other("disk on fire"));
            Err(error.context("no room").context("store"))?
        }
        for (failure, said) in [
            (boxed().unwrap_err(), "boxed"),
            (text().unwrap_err(), "text"),
            (String::from("string").into(), "string"),
            (any().unwrap_err(), "store: no room: disk on fire"),
        ] {
            assert_eq!(failure.to_string(), said);
        }
    }
}
