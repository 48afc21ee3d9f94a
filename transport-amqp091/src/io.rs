//! The task that owns the socket, and what lapin has in its place.

pub(crate) mod connection_io;
mod output;
pub(crate) mod stream;
mod task;
#[cfg(test)]
mod tests;
