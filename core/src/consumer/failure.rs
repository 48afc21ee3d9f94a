//! Why a handler failed.

use std::{error::Error, fmt};

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
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({self})")
    }
}

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
