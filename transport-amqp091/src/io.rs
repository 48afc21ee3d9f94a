//! The task that owns the socket, and the stream that lapin has in its place.
//!
//! ```text
//!   session, senders ── PublishChannels ──┐
//!                                         ├── ConnectionIo ── Task ── socket
//!   lapin ───────────── ClientStream ─────┘
//! ```
//!
//! `docs/design/16-amqp091.md` says why lapin does not have the socket itself.

pub(crate) mod connection_io;
mod liveness;
pub(crate) mod open;
mod output;
mod runtime;
pub(crate) mod socket_state;
mod stream;
mod task;
#[cfg(test)]
mod tests;
