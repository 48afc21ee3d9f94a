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
