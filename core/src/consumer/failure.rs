//! Why a handler failed.

use std::{
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::task::forget;

/// Why a handler failed: any error converts into it by `?`.
///
/// ```
/// use enoki_core::Failure;
///
/// fn parse(text: &str) -> Result<u32, Failure> {
///     Ok(text.parse()?)
/// }
/// assert!(parse("x").is_err_and(|failure| failure.to_string().contains("invalid digit")));
/// ```
pub struct Failure(Box<dyn Error + Send + Sync>);

impl Failure {
    /// A failure that is only a sentence.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into().into())
    }

    /// The error it was made from.
    pub fn source(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

// So that every error converts, this is not an error itself: the same way `Box<dyn Error>` is not.
impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(&*self.0))
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

    #[test]
    fn every_error_converts_and_it_goes_between_threads() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<Failure>();
        fn convert(text: &str) -> Result<f64, Failure> {
            std::str::from_utf8(text.as_bytes())?;
            Ok(text.parse()?)
        }
        assert!(convert("1.5").is_ok() && convert("x").is_err());
    }
}
