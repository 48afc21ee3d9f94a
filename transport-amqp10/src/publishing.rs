//! What publishing has to know of messages without an outcome.

pub(crate) mod close_reason;
