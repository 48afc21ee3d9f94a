//! What the compiler has to refuse, and what it says then; and what it has to accept.
//!
//! That these programs do not compile holds for every compiler. What is said about it is compared
//! word for word, and compilers rephrase their half of it: so the comparison is made by the one
//! that the `.stderr` files were made with, and any other says that it has skipped it. After a
//! change of the messages, or of the compiler: `TRYBUILD=overwrite cargo test -p enoki-core --test
//! compile_fail`, then read the difference as a programmer who has just made the mistake.

#![allow(clippy::expect_used)]

use std::process::Command;

/// The compiler of the `.stderr` files.
const WRITTEN_WITH: &str = "rustc 1.95.";

#[test]
fn mistakes_do_not_compile_and_the_compiler_says_what_to_do() {
    let version = compiler();
    if !version.starts_with(WRITTEN_WITH) {
        eprintln!("skipped: the expected messages are those of {WRITTEN_WITH}*, not of {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}

/// What is found out by `cargo build` and not yet by `cargo check`. The program that compiles makes
/// trybuild build them all.
#[test]
fn mistakes_that_the_types_cannot_show_do_not_build() {
    let version = compiler();
    if !version.starts_with(WRITTEN_WITH) {
        eprintln!("skipped: the expected messages are those of {WRITTEN_WITH}*, not of {version}");
        return;
    }
    let programs = trybuild::TestCases::new();
    programs.pass("tests/compile_pass/hello_world.rs");
    programs.compile_fail("tests/build_fail/*.rs");
}

/// The mistakes that are made most often with handlers, and the lines that the compiler may need.
#[test]
fn what_the_compiler_says_of_a_handler_is_read_at_one_glance() {
    let likeliest = [
        ("compile_fail/a_handler_of_another_message_type", 12),
        ("compile_fail/a_configured_handler_of_another_message_type", 13),
        ("compile_fail/a_state_that_was_forgotten", 12),
        ("compile_fail/a_state_that_the_service_does_not_have", 12),
        ("compile_fail/a_handler_that_is_not_async", 12),
        ("compile_fail/a_handler_whose_future_stays_on_its_thread", 12),
        ("compile_fail/a_handler_that_returns_a_number", 12),
        ("compile_fail/a_handler_whose_error_is_a_number", 12),
        ("compile_fail/a_handler_of_nine_arguments", 12),
        ("compile_fail/a_body_without_its_extractor", 12),
        ("compile_fail/an_argument_that_is_no_extractor", 12),
        // Found out by a constant, which takes the compiler two notes of five lines.
        ("build_fail/a_handler_of_two_bodies", 17),
        ("build_fail/a_handler_of_two_deliveries", 17),
    ];
    for (mistake, most) in likeliest {
        let file = format!("{}/tests/{mistake}.stderr", env!("CARGO_MANIFEST_DIR"));
        let said = std::fs::read_to_string(&file).expect("the mistake has its expected message");
        let lines = said.lines().count();
        assert!(lines <= most, "{mistake}: {lines} lines, and {most} are allowed:\n{said}");
    }
}

#[test]
fn programs_as_the_documentation_shows_them_compile() {
    trybuild::TestCases::new().pass("tests/compile_pass/*.rs");
}

fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().expect("a compiler is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
