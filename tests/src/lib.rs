//! The suite that holds every transport of enoki to one meaning.
//!
//! A transport's test file is a harness and one call. In `Cargo.toml`:
//!
//! ```toml
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//!
//! and in `tests/conformance.rs` (compiled and not run with the documentation: a harness reads the
//! arguments of its process):
//!
//! ```no_run
//! use std::{process::ExitCode, sync::Arc};
//!
//! use enoki_conformance::Harness;
//! use enoki_core::{Capability, Result, Transport};
//! # use enoki_core::{Purpose, transport::Session};
//! # #[derive(Debug)]
//! # struct CarrierPigeon;
//! # #[async_trait::async_trait]
//! # impl Transport for CarrierPigeon {
//! #     fn name(&self) -> &'static str { "pigeon" }
//! #     async fn connect(&self, _: Purpose, _: tokio::time::Instant) -> Result<Arc<dyn Session>> {
//! #         Err(enoki_core::Error::new(enoki_core::ErrorKind::Unsupported, "fly"))
//! #     }
//! # }
//!
//! #[derive(Debug)]
//! struct Loft;
//!
//! #[async_trait::async_trait]
//! impl Harness for Loft {
//!     fn name(&self) -> &str {
//!         "pigeon"
//!     }
//!
//!     fn capabilities(&self) -> Vec<Capability> {
//!         vec![Capability::Exchanges, Capability::DeadLetter]
//!     }
//!
//!     async fn transport(&self) -> Result<Arc<dyn Transport>> {
//!         Ok(Arc::new(CarrierPigeon))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     enoki_conformance::main(Loft)
//! }
//! ```
//!
//! Each case is a sentence, has a deadline, and says which capabilities it needs. A case that does not
//! apply is shown as ignored, with the reason, and never as passed. Names of queues and exchanges are made
//! for each run, and the suite removes them when the case ends, also when it fails or panics.

mod at_url;
mod case;
mod cases;
mod expect;
mod harness;
mod run;
mod stage;
mod steps;

pub use at_url::AtUrl;
pub use case::{Case, Need};
pub use cases::all as cases;
pub use harness::{Broken, Harness};
pub use run::{Verdict, main, main_all, run, run_case};
