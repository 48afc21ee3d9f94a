//! Why bytes cannot be read.

use std::borrow::Cow;

/// Why bytes cannot be read. It is quoted in errors behind "cannot be read: ", and quotes nothing of the
/// bytes but numbers.
pub(crate) type Fault = Cow<'static, str>;
