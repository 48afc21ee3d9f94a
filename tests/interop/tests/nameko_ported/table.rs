//! The table in the docs: every test that is named there is there.

use std::{collections::BTreeSet, fs, path::Path};

const DOCUMENT: &str = include_str!("../../../../docs/nameko-tests.md");

/// Compares the table with the ports that this program has, and with the sources that it names.
pub(crate) fn check(ports: &[&str]) -> Result<(), String> {
    let rows: Vec<_> = DOCUMENT.lines().filter_map(Row::read).collect();
    let mut faults = Vec::new();
    let ported: BTreeSet<_> =
        rows.iter().filter(|row| row.here.starts_with("ported")).map(|row| row.origin).collect();
    let ports: BTreeSet<_> = ports.iter().copied().collect();
    for name in ported.symmetric_difference(&ports) {
        faults.push(format!("{name}: in one of the table and the tests, and not in the other"));
    }
    for row in &rows {
        if let Err(fault) = row.check() {
            faults.push(format!("{}: {fault}", row.origin));
        }
    }
    let origins: BTreeSet<_> = rows.iter().map(|row| row.origin).collect();
    if origins.len() != rows.len() {
        faults.push("an origin has two rows".to_owned());
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// `origin | mark | what is here`.
struct Row {
    origin: &'static str,
    mark: &'static str,
    here: &'static str,
}

impl Row {
    fn read(line: &'static str) -> Option<Self> {
        let (origin, rest) = line.strip_prefix("| `")?.split_once("` |")?;
        let (mark, here) = rest.trim_end().trim_end_matches('|').split_once('|')?;
        Some(Self { origin, mark: mark.trim(), here: here.trim() })
    }

    fn check(&self) -> Result<(), String> {
        if !["A", "U", "–"].contains(&self.mark) {
            return Err(format!("{:?} is no mark", self.mark));
        }
        let mut named = 0;
        // A path in code, and after it, with nothing but commas between, the names of tests in it.
        let mut source: Option<String> = None;
        let mut parts = self.here.split('`');
        while let (Some(between), Some(code)) = (parts.next(), parts.next()) {
            if between != ", " {
                source = None;
            }
            if code.ends_with(".rs") {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(code);
                let content = fs::read_to_string(&path);
                source = Some(content.map_err(|error| format!("{code}: {error}"))?);
                // One that must not compile is a file.
                named += usize::from(code.contains("/compile_fail/"));
            } else if let Some(source) = &source {
                named += 1;
                if !source.contains(&format!("fn {code}(")) {
                    return Err(format!("there is no test {code}"));
                }
            }
        }
        let said = ["ported", "cannot be written", "open:", "left out:"];
        match said.iter().any(|word| self.here.starts_with(word)) || named > 0 {
            true => Ok(()),
            false => Err(format!("{:?} names no test and no reason", self.here)),
        }
    }
}
