//! The checks of a release, which take too long for every change: `dev/test release`.

use std::{path::Path, time::Duration};

use tokio::process::Command;

use crate::{cargo::cargo, prepare, shell::Shell};

/// The crates that are published, each after those that it depends on.
pub(crate) const PUBLISHED: [&str; 7] = [
    "enoki-core",
    "enoki-amqp",
    "enoki-transport-memory",
    "enoki-transport-amqp091",
    "enoki-transport-amqp10",
    "enoki-conformance",
    "enoki",
];

/// The crates whose public interface is written down: that of programs, and that of authors of
/// transports. The others have a type and its constructors each.
const WRITTEN_DOWN: [&str; 2] = ["enoki-core", "enoki"];

/// The features of the facade by pairs: more together would take hours.
const PAIRS: [&str; 9] = [
    "hack",
    "check",
    "--package",
    "enoki",
    "--feature-powerset",
    "--depth",
    "2",
    "--no-dev-deps",
    "--quiet",
];

/// Packages every crate, and builds each from its package alone.
pub(crate) async fn package(shell: &Shell, limit: Duration) {
    let mut arguments = vec!["package"];
    for name in PUBLISHED {
        arguments.extend(["--package", name]);
    }
    shell.step("cargo package", limit, cargo(&arguments)).await;
}

/// Builds every pair of features.
pub(crate) async fn pairs(shell: &Shell, limit: Duration) {
    let name = "pairs of features";
    if prepare::cargo_tool(shell, name, "cargo-hack").await {
        shell.step(name, limit, cargo(&PAIRS)).await;
    }
}

/// Builds everything with the oldest Rust that `Cargo.toml` names.
pub(crate) async fn oldest(shell: &Shell, limit: Duration) {
    let manifest = std::fs::read_to_string("Cargo.toml").unwrap_or_default();
    let Some(version) = rust_version(&manifest) else {
        shell.report().failed("oldest Rust: Cargo.toml names none");
        return;
    };
    let name = format!("Rust {version}");
    let mut install = Command::new("rustup");
    install.args(["toolchain", "install", version, "--profile", "minimal"]);
    let installed = shell.run(&format!("install {name}"), limit, install, |_, _| {}).await;
    if !installed.well {
        shell.skip(&name, "rustup cannot install it here");
        return;
    }
    let mut check = Command::new("rustup");
    check.args(["run", version, "cargo", "check", "--workspace", "--all-features"]);
    // Another compiler's files in the usual folder would have everything built again.
    check.args(["--target-dir", "target/oldest"]);
    shell.step(&name, limit, check).await;
}

/// Compares the public interface with that of the last release.
pub(crate) async fn semver(shell: &Shell, limit: Duration) {
    let name = "cargo semver-checks";
    let mut describe = Command::new("git");
    // The release before: the newest commit may have a tag already.
    describe.args(["describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^"]);
    let described = describe.output().await.ok().filter(|output| output.status.success());
    let Some(tag) = described.and_then(|output| String::from_utf8(output.stdout).ok()) else {
        shell.skip(name, "there is no release to compare with: no tag v*");
        return;
    };
    if prepare::cargo_tool(shell, name, "cargo-semver-checks").await {
        let arguments = ["semver-checks", "--workspace", "--baseline-rev", tag.trim()];
        shell.step(name, limit, cargo(&arguments)).await;
    }
}

/// Compares the public interface of the crates of programs and authors with the text in `api/`.
pub(crate) async fn api(shell: &Shell, limit: Duration) {
    let name = "public interface";
    if !is_nightly_there().await {
        shell.skip(name, "there is no nightly Rust, which writes it down");
        return;
    }
    if !prepare::cargo_tool(shell, name, "cargo-public-api").await {
        return;
    }
    for package in WRITTEN_DOWN {
        let step = format!("{name} of {package}");
        let ended = shell.run(&step, limit, public_api(package), |_, _| {}).await;
        let expected = std::fs::read_to_string(file(package)).unwrap_or_default();
        let difference = ended.well.then(|| difference(&expected, &items(&ended.output)));
        let is_same = difference.as_deref() == Some("");
        shell.tell(&step, &crate::shell::Ended { well: is_same, ..ended }, "");
        if is_same {
            shell.report().passed();
        } else {
            for line in difference.unwrap_or_default().lines() {
                shell.screen.say(&format!("  | {line}"));
            }
            shell
                .report()
                .failed(format!("{step}: if that is meant, run `cargo run -p xtask -- api`"));
        }
    }
}

/// Writes these public interfaces into `api/`.
pub(crate) fn write_api() -> Result<(), String> {
    std::fs::create_dir_all("api").map_err(|error| format!("api: {error}"))?;
    for package in WRITTEN_DOWN {
        let output = public_api(package).into_std().output();
        let output = output.map_err(|error| format!("{package}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{package}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let text = items(&String::from_utf8_lossy(&output.stdout));
        std::fs::write(file(package), text).map_err(|error| format!("{package}: {error}"))?;
    }
    Ok(())
}

fn file(package: &str) -> std::path::PathBuf {
    Path::new("api").join(format!("{package}.txt"))
}

/// Without the implementations that the compiler adds, which nearly every type has.
fn public_api(package: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "public-api", "--package", package]);
    command.args(["--all-features", "-sss", "--color", "never", "--target-dir", "target/api"]);
    // These name the cargo that runs xtask, which is another one.
    for name in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC", "RUSTDOC"] {
        command.env_remove(name);
    }
    command
}

/// The lines that name an item; cargo says other things, too. Mocks are generated, and left out.
fn items(output: &str) -> String {
    let is_item = |line: &&str| {
        line.starts_with("pub ") || line.starts_with("impl") || line.starts_with("#[")
    };
    let is_mock = |line: &&str| line.contains("::mock::");
    output
        .lines()
        .filter(is_item)
        .filter(|line| !is_mock(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The lines that only one of two sorted texts has.
fn difference(expected: &str, found: &str) -> String {
    let missing = expected.lines().filter(|line| !found.lines().any(|other| other == *line));
    let new = found.lines().filter(|line| !expected.lines().any(|other| other == *line));
    let missing = missing.map(|line| format!("- {line}\n"));
    missing.chain(new.map(|line| format!("+ {line}\n"))).collect()
}

async fn is_nightly_there() -> bool {
    let there =
        Command::new("rustup").args(["run", "nightly", "rustc", "--version"]).output().await;
    there.is_ok_and(|there| there.status.success())
}

fn rust_version(manifest: &str) -> Option<&str> {
    let line = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "))?;
    Some(line.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_crate_is_listed_after_those_it_depends_on() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let manifest = |folder: &str| std::fs::read_to_string(root.join(folder).join("Cargo.toml"));
        let workspace = manifest(".").unwrap();
        let members = workspace.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
        let members = members.split('"').skip(1).step_by(2);
        for folder in members.chain(["."]) {
            let text = manifest(folder).unwrap();
            let package = text.split_once("[package]\nname = \"").unwrap().1;
            let name = package.split_once('"').unwrap().0;
            let Some(at) = PUBLISHED.iter().position(|published| *published == name) else {
                assert!(text.contains("publish = false"), "{name} is published, and not listed");
                continue;
            };
            let dependencies = text.rsplit_once("[dependencies]").unwrap().1;
            let dependencies = dependencies.split("\n[").next().unwrap_or_default();
            for (later, published) in PUBLISHED.iter().enumerate().skip(at) {
                let needs = |separator| dependencies.contains(&format!("\n{published}{separator}"));
                assert!(!(needs(".") || needs(" ")), "{name} needs number {later}, {published}");
            }
        }
    }

    #[test]
    fn a_changed_interface_is_told_line_by_line() {
        let expected = "pub fn a::b()\npub struct a::C\n";
        assert_eq!(difference(expected, expected), "");
        let found = "pub fn a::b(u8)\npub struct a::C\n";
        assert_eq!(difference(expected, found), "- pub fn a::b()\n+ pub fn a::b(u8)\n");
        assert_eq!(items("  Compiling a\npub mod a\nwarning: b\n"), "pub mod a\n");
    }

    #[test]
    fn the_oldest_rust_is_read_from_the_manifest() {
        assert_eq!(rust_version("edition = \"2024\"\nrust-version = \"1.88\"\n"), Some("1.88"));
    }
}
