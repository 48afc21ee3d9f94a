//! The suite that every transport passes.

#[path = "harness/memory.rs"]
mod memory;

use std::{process::ExitCode, sync::Arc};

use enoki_conformance::Harness;
use enoki_transport_memory::Version;

fn main() -> ExitCode {
    let harness = |version: &Version| Arc::new(memory::Memory(*version, None)) as Arc<dyn Harness>;
    enoki_conformance::main_all(Version::ALL.iter().map(harness).collect())
}
