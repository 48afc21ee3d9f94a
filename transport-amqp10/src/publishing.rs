//! Publishing: messages on their way through one link, and those that the broker has not confirmed yet.

pub(crate) mod close_reason;
pub(crate) mod link;
pub(crate) mod unconfirmed;
