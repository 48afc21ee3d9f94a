//! The interface for authors of transports. Programs need none of it.

pub use enoki_core::transport::*;
pub use enoki_core::{Disposition, Purpose, QueueDeclaration, QueueOption, Transport};
