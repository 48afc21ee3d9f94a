//! What the compiler has to refuse, and what it says then; and what it has to accept.
//!
//! That these programs do not compile holds for every compiler. What is said about it is compared
//! word for word, and compilers rephrase their half of it: so the comparison is made by the one
//! that the `.stderr` files were made with, and any other says that it has skipped it. After a
//! change of the messages, or of the compiler: `TRYBUILD=overwrite cargo test -p enoki-core --test
//! compile_fail`, then read the difference as somebody who has just made the mistake.

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

#[test]
fn programs_as_the_documentation_shows_them_compile() {
    trybuild::TestCases::new().pass("tests/compile_pass/*.rs");
}

fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().expect("a compiler is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
