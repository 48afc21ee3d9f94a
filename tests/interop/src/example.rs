//! Examples as programs: built once, and run with nothing but another URL.

use std::{
    process::{Command, Output},
    sync::OnceLock,
};

/// An example of the facade, by its name.
#[derive(Debug)]
pub struct Example {
    name: &'static str,
    built: OnceLock<Result<(), String>>,
}

impl Example {
    /// The example of this name, with every transport in it: the URL alone decides.
    pub const fn named(name: &'static str) -> Self {
        Self { name, built: OnceLock::new() }
    }

    /// What it prints for everybody; who carried it goes to the other stream.
    pub fn run(&self, url: &str) -> Result<String, String> {
        // Built once and by itself, so that two runs do not wait for each other inside of cargo.
        let built = self.built.get_or_init(|| self.cargo("build", None).map(drop));
        built.as_ref().map_err(Clone::clone)?;
        let output = self.cargo("run", Some(url))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the example's own tests.
    pub fn test(&self, url: &str) -> Result<(), String> {
        let output = self.cargo("test", Some(url))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if said.contains("test result: ok. 0 passed") || !said.contains("test result: ok. ") {
            return Err(format!("no test ran:\n{said}"));
        }
        Ok(())
    }

    fn cargo(&self, command: &str, url: Option<&str>) -> Result<Output, String> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Dependencies ask for these. With those of the test's own package, cargo would build ring and what
        // needs it anew, while another cargo reads what it writes.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_")) {
                cargo.env_remove(name);
            }
        }
        cargo.env_remove("CARGO_MANIFEST_DIR");
        cargo.args([command, "--quiet", "--package", "enoki", "--all-features", "--example"]);
        cargo.arg(self.name).envs(url.map(|url| ("BROKER_URL", url)));
        let output = cargo.output().map_err(|error| format!("cargo {command}: {error}"))?;
        if output.status.success() {
            return Ok(output);
        }
        let said = [&output.stdout[..], &output.stderr].concat();
        Err(format!("cargo {command} --example {}: {}", self.name, String::from_utf8_lossy(&said)))
    }
}
