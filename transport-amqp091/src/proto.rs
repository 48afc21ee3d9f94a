//! The wire format of AMQP 0-9-1, without a socket: bytes in, events out.
//!
//! ```text
//!   broker ── bytes ──> inbound ── frames ──> guard ── verdict ──> lapin
//!                          └────── InboundEvent ──> publishing
//!   lapin ─── bytes ──> outbound ── frames ──────────────────────> broker
//!                          └────── OutboundEvent ──> publishing, inbound
//!   publishing ── Outgoing ──> encode ───────────────────────────> broker
//! ```
//!
//! Nothing here imports tokio, the standard library's I/O, or `io/`; a test of this crate reads the files.
//! The next library-independent step, to receive without lapin, belongs here: `inbound` would then return a
//! delivery as an event, where it passes its frames to lapin today.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod event;
pub(crate) mod fault;
pub(crate) mod frame;
mod guard;
pub(crate) mod inbound;
mod methods;
pub(crate) mod outbound;
pub(crate) mod peer_properties;
#[cfg(test)]
pub(crate) mod test_frames;
