//! The program behind the scripts in `dev/`: `dev/test` is `cargo run --package xtask -- test`.

// It is a program for the terminal.
#![allow(clippy::print_stderr)]

mod cargo;
mod circles;
mod load;
mod mutants;
mod options;
mod prepare;
mod programs;
#[cfg(test)]
mod pure;
mod release;
mod report;
mod results;
mod screen;
mod shell;
mod style;
mod test;

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("test") => test::main(arguments.collect()),
        Some("style") => check_style(),
        Some("api") => match release::write_api() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("xtask api: {error}");
                ExitCode::FAILURE
            }
        },
        Some("mutants") => mutants::main(arguments.collect()),
        _ => {
            eprintln!(
                "xtask: the commands are `test` (see `dev/test --help`), `style`, `api` and `mutants`"
            );
            ExitCode::from(2)
        }
    }
}

/// Shows every place that does not follow "How we write", and every circle among files.
fn check_style() -> ExitCode {
    match circles::check(Path::new(".")) {
        Ok(circles) if circles.is_empty() => {}
        Ok(circles) => {
            for circle in &circles {
                eprintln!("{circle}");
            }
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("xtask style: {error}");
            return ExitCode::from(2);
        }
    }
    match style::check(Path::new(".")) {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in &findings {
                eprintln!("{finding}");
            }
            eprintln!(
                "{} places do not follow \"How we write\" in CONTRIBUTING.md",
                findings.len()
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("xtask style: {error}");
            ExitCode::from(2)
        }
    }
}
