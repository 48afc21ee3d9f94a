//! Class and method numbers, for the methods that this crate looks at (§4.2.4).

/// A class number and a method number.
pub(super) type Method = (u16, u16);

pub(super) const CONNECTION_START: Method = (10, 10);
pub(super) const CONNECTION_TUNE: Method = (10, 30);
pub(super) const CONNECTION_TUNE_OK: Method = (10, 31);
pub(super) const CONNECTION_BLOCKED: Method = (10, 60);
pub(super) const CONNECTION_UNBLOCKED: Method = (10, 61);
pub(super) const CHANNEL_OPEN: Method = (20, 10);
pub(super) const CHANNEL_FLOW: Method = (20, 20);
pub(super) const CHANNEL_CLOSE: Method = (20, 40);
pub(super) const CHANNEL_CLOSE_OK: Method = (20, 41);
pub(super) const BASIC_CANCEL: Method = (60, 30);
pub(super) const BASIC_CANCEL_OK: Method = (60, 31);
pub(super) const BASIC_PUBLISH: Method = (60, 40);
pub(super) const BASIC_RETURN: Method = (60, 50);
pub(super) const BASIC_DELIVER: Method = (60, 60);
pub(super) const BASIC_GET_OK: Method = (60, 71);
pub(super) const BASIC_ACK: Method = (60, 80);
pub(super) const BASIC_NACK: Method = (60, 120);
