//! The suite that every transport passes.

#[path = "harness/memory.rs"]
mod memory;

use std::process::ExitCode;

fn main() -> ExitCode {
    enoki_conformance::main(memory::Memory(None))
}
