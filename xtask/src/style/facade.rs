//! Each public name of core has a place in a module of the facade.

use std::{collections::BTreeSet, fs, io, path::Path};

use super::Finding;

const CORE: &str = "core/src/lib.rs";

pub(super) fn check(root: &Path) -> io::Result<Vec<Finding>> {
    let mut facade = String::new();
    for entry in fs::read_dir(root.join("src"))? {
        facade.push_str(&fs::read_to_string(entry?.path())?);
    }
    Ok(missing(&fs::read_to_string(root.join(CORE))?, &facade))
}

fn missing(core: &str, facade: &str) -> Vec<Finding> {
    let facade = exported(facade);
    let missing = exported(core).into_iter().filter(|name| !facade.contains(name));
    missing
        .map(|name| Finding {
            file: CORE.to_owned(),
            line: core.lines().position(|line| line.contains(&name)).map_or(1, |at| at + 1),
            problem: format!("{name} is in no module of the facade"),
        })
        .collect()
}

/// The names that `pub use` items give, without those that the documentation hides.
fn exported(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut items = text.split("pub use ");
    let mut before = items.next().unwrap_or_default();
    for item in items {
        let is_hidden = before.trim_end().ends_with("#[doc(hidden)]");
        if let (false, Some((path, _))) = (is_hidden, item.split_once(';')) {
            let list = path.rsplit_once("::{").map_or(path, |(_, list)| list);
            for name in list.trim_end_matches('}').split(',') {
                names.insert(name.rsplit("::").next().unwrap_or_default().trim().to_owned());
            }
        }
        before = item;
    }
    names.remove("");
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_only_core_has_is_found() {
        let core = "mod a;\npub use a::{Broker, b::Queue};\n#[doc(hidden)]\npub use a::Kit;\n\
                    pub use c::Route;\n";
        let facade = "pub use enoki_core::{Broker, Route};";
        let found: Vec<_> = missing(core, facade).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["core/src/lib.rs:2: Queue is in no module of the facade"]);
    }
}
