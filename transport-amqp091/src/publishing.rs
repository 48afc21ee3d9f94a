//! Publishing on a channel that lapin has opened, beside lapin.

pub(crate) mod channel;
mod close_reason;
pub(crate) mod unconfirmed;
