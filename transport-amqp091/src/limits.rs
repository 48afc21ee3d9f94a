//! Sizes and times that more than one file needs.

use std::time::Duration;

/// How long the broker may take to answer a request.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
