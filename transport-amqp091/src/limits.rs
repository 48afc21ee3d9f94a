//! Sizes and times that more than one file needs.

use std::time::Duration;

/// The largest frame, in bytes, that this side agrees to: the size that RabbitMQ proposes. It is fixed here, so
/// that a broker that proposes no limit, or gigabytes, does not decide how much memory this process takes.
pub(crate) const FRAME_MAX: u32 = 131_072;

/// The smallest limit for frames, in bytes, that a broker may propose (§4.2.3): `frame-min-size`.
pub(crate) const FRAME_MIN: u32 = 4096;

/// How many tables and lists may be inside each other; the headers themselves count as one. Twice as many as
/// this toolkit publishes, since other clients may publish more.
pub(crate) const MAX_DEPTH: usize = 64;

/// How long the broker may take to answer a request.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
