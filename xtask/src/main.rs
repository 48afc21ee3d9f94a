//! What the scripts in `dev/` run: `dev/test` is `cargo run --package xtask -- test`.

// It is a program for the terminal.
#![allow(clippy::print_stderr)]

mod cargo;
mod load;
mod options;
mod prepare;
mod programs;
mod report;
mod results;
mod screen;
mod shell;
mod test;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("test") => test::main(arguments.collect()),
        _ => {
            eprintln!("xtask: the one command is `test`; see `dev/test --help`");
            ExitCode::from(2)
        }
    }
}
