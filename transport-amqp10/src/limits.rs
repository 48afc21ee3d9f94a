//! Sizes, counts and times that more than one file needs.

use std::time::Duration;

/// The largest frame that this side takes, in bytes: as large as RabbitMQ writes them by default.
pub(crate) const FRAME_MAX: usize = 131_072;

/// The last channel that this side allows; RabbitMQ allows 63 by default.
pub(crate) const LAST_CHANNEL: u16 = 255;

/// How many bytes are read from a socket or written to it at a time.
pub(crate) const CHUNK: usize = 64 * 1024;

/// How many levels deep a value may be nested. Twice what `enoki` itself publishes; other clients may go
/// further.
pub(crate) const MAX_DEPTH: usize = 64;

/// How many values one message may have, its headers and sections included.
pub(crate) const MAX_VALUES: u32 = 100_000;

/// How long the broker may take to answer a request.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
