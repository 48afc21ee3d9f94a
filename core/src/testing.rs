//! Tools for testing handlers and services.
//!
//! - [`EntrypointHook`] calls a handler as a consumer would, with no broker.
//! - [`EntrypointWaiter`] waits until a worker of a running service has its result.
//! - A dependency is a field of the service's [`State`](crate::State): a test makes the state with
//!   another one. Mocks of the toolkit's own traits are in `enoki::mock`, with the feature `mock`.
//!
//! `examples/testing.rs` shows all of them in one service.

mod hook;
mod waiter;

pub use self::{hook::EntrypointHook, waiter::EntrypointWaiter};
pub use crate::worker_result::{Ended, WorkerResult};
