//! To run consumers together: one [`Service`] starts, watches and stops them.
//!
//! [`Service::run_until`] runs until a future ends, such as the signal to stop;
//! [`Service::start`] returns a [`RunningService`]. An [`Extension`] lives as long as the service, and
//! an [`Entrypoint`] starts work from something other than a queue.

pub use enoki_core::{
    Entrypoint, Extension, RunningService, Scope, Service, ServiceHealth, Started,
};
