//! Cargo's commands, and what it says about what it built.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use tokio::process::Command;

/// Cargo with these arguments: the one that runs this program.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    // Cargo set these for xtask; the programs that it runs are other packages.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_")) {
            command.env_remove(name);
        }
    }
    command.env_remove("CARGO_MANIFEST_DIR").args(arguments);
    command
}

/// A test program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// The package, and the target unless it is the library: `enoki-core scripted`.
    pub(crate) name: String,
    pub(crate) package: String,
    /// The folder of the package, which tests are run in.
    pub(crate) folder: PathBuf,
    pub(crate) executable: PathBuf,
}

impl Program {
    /// Runs it with these arguments, as cargo would.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command.args(arguments).current_dir(&self.folder);
        command.env("CARGO_MANIFEST_DIR", &self.folder).env("CARGO_PKG_NAME", &self.package);
        command
    }
}

/// The test programs that `cargo test --no-run --message-format json` names, by their name.
pub(crate) fn programs(output: &str) -> Vec<Program> {
    let found = output.lines().filter_map(program).map(|program| (program.name.clone(), program));
    // By name once: cargo names each once, and their order is that of building.
    found.collect::<BTreeMap<_, _>>().into_values().collect()
}

fn program(line: &str) -> Option<Program> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let text = |pointer: &str| message.pointer(pointer)?.as_str().map(str::to_owned);
    if text("/reason")? != "compiler-artifact" || message.pointer("/profile/test")? != true {
        return None;
    }
    let executable = PathBuf::from(text("/executable")?);
    let folder = PathBuf::from(text("/manifest_path")?).parent()?.to_owned();
    let package = package(&text("/package_id")?)?;
    let target = text("/target/name")?;
    let name = match text("/target/kind/0")?.as_str() {
        "lib" => package.clone(),
        "bin" => format!("{package} bin {target}"),
        "example" => format!("{package} example {target}"),
        _ => format!("{package} {target}"),
    };
    Some(Program { name, package, folder, executable })
}

/// The name in `path+file:///enoki/core#enoki-core@0.1.0`, or in `path+file:///enoki#0.1.0` where it is
/// the folder's.
fn package(id: &str) -> Option<String> {
    let (folder, name) = id.rsplit_once('#')?;
    match name.split_once('@') {
        Some((name, _)) => Some(name.to_owned()),
        None => folder.rsplit('/').next().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(id: &str, kind: &str, name: &str, test: bool, executable: &str) -> String {
        serde_json::json!({
            "reason": "compiler-artifact",
            "package_id": id,
            "manifest_path": "/enoki/core/Cargo.toml",
            "target": { "kind": [kind], "name": name },
            "profile": { "test": test },
            "executable": executable,
        })
        .to_string()
    }

    #[test]
    fn test_programs_are_found_among_what_cargo_says() {
        let core = "path+file:///enoki/core#enoki-core@0.1.0";
        let output = [
            "   Compiling enoki-core v0.1.0".to_owned(),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
            artifact(core, "test", "scripted", true, "/t/scripted-1"),
            artifact(core, "lib", "enoki_core", true, "/t/enoki_core-2"),
            artifact(core, "bin", "prove", false, "/t/prove"),
            artifact("path+file:///enoki/xtask#0.1.0", "bin", "xtask", true, "/t/xtask-3"),
        ];
        let programs = programs(&output.join("\n"));
        let names: Vec<_> = programs.iter().map(|program| program.name.as_str()).collect();
        assert_eq!(names, ["enoki-core", "enoki-core scripted", "xtask bin xtask"]);
        let [unit, ..] = &programs[..] else { panic!("{programs:?}") };
        assert_eq!(unit.package, "enoki-core");
        assert_eq!(unit.folder, PathBuf::from("/enoki/core"));
        assert_eq!(unit.executable, PathBuf::from("/t/enoki_core-2"));
    }
}
