//! Looks for circles among the modules of each crate: two that need each other, or more in a ring.
//!
//! A module needs another one where a `use` line, or a path that begins with `crate`, `super` or
//! `self`, names what the other one defines. A name that a module only passes on (`pub use`) counts
//! for the module that defines it. What is compiled for tests alone does not count.
//!
//! Modules are compared with their neighbours in one folder, each with all that is inside it. So a
//! module and those inside it may need each other: they are one thing in several files.

// Each index is a key of the map it is used on, or below a length that was looked at.
#![allow(clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// Circles that are there, by crate, each with its modules in the order of the alphabet. The list may
/// only become shorter: a circle that is here and not there fails, too.
const KNOWN: &[(&str, &[&str])] =
    &[("tests/faults", &["interposed::receiver", "interposed::sender", "interposed::session"])];

/// A circle that must not be, or one of [`KNOWN`] that is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding(String);

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks every crate of the workspace at `root`.
pub(crate) fn check(root: &Path) -> io::Result<Vec<Finding>> {
    let mut circles = Vec::new();
    for package in packages(&fs::read_to_string(root.join("Cargo.toml"))?) {
        let folder = root.join(&package).join("src");
        if let Some(files) = Files::read(&folder)? {
            circles.extend(files.circles().into_iter().map(|circle| (package.clone(), circle)));
        }
    }
    Ok(compare(circles, KNOWN))
}

fn compare(circles: Vec<(String, Circle)>, known: &[(&str, &[&str])]) -> Vec<Finding> {
    let is_known = |package: &str, modules: &[String]| {
        known.iter().any(|(where_, known)| *where_ == package && *known == modules)
    };
    let mut findings = Vec::new();
    for (package, circle) in &circles {
        if !is_known(package, &circle.modules) {
            findings.push(Finding(format!(
                "{package}: a circle of {}\n{}",
                circle.modules.join(", "),
                circle.why.join("\n")
            )));
        }
    }
    for (package, modules) in known {
        let is_there =
            circles.iter().any(|(it, circle)| it == package && circle.modules == *modules);
        if !is_there {
            let modules = modules.join(", ");
            findings.push(Finding(format!(
                "{package}: the circle of {modules} is not there any more: take it out of KNOWN in xtask/src/circles.rs"
            )));
        }
    }
    findings
}

/// The members of the workspace, and the package at its root.
fn packages(manifest: &str) -> Vec<String> {
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next());
    let members = members.unwrap_or_default().split('"').skip(1).step_by(2).map(str::to_owned);
    std::iter::once(".".to_owned()).chain(members).collect()
}

/// Modules of one folder that need each other.
#[derive(Debug)]
struct Circle {
    /// In the order of the alphabet.
    modules: Vec<String>,
    /// A line for each need.
    why: Vec<String>,
}

type Module = Vec<String>;

/// The files of one crate by their modules.
#[derive(Debug, Default)]
struct Files {
    modules: BTreeMap<Module, Names>,
}

/// What a file names of other files.
#[derive(Debug, Default)]
struct Names {
    /// What `use` makes of a name: a path from the root of the crate.
    imports: BTreeMap<String, Module>,
    /// The paths it names, from the root of the crate, with their lines.
    paths: Vec<(Module, usize)>,
    /// Modules of its own that are compiled for tests alone.
    tests: Vec<String>,
}

impl Files {
    fn read(folder: &Path) -> io::Result<Option<Self>> {
        let root = if folder.join("lib.rs").is_file() { "lib.rs" } else { "main.rs" };
        if !folder.join(root).is_file() {
            return Ok(None);
        }
        let mut texts = vec![(Vec::new(), fs::read_to_string(folder.join(root))?)];
        let mut waiting: Vec<(Module, PathBuf)> = vec![(Vec::new(), folder.to_owned())];
        while let Some((module, folder)) = waiting.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
                let inner: Module = module.iter().cloned().chain([name.to_owned()]).collect();
                if path.is_dir() {
                    // The programs in `bin` are crates of their own.
                    if inner != ["bin"] {
                        waiting.push((inner, path));
                    }
                } else if path.extension().is_some_and(|it| it == "rs")
                    && !(module.is_empty() && matches!(name, "lib" | "main"))
                {
                    texts.push((inner, fs::read_to_string(&path)?));
                }
            }
        }
        Ok(Some(Self::of(texts)))
    }

    fn of(texts: Vec<(Module, String)>) -> Self {
        let known: BTreeSet<_> = texts.iter().map(|(module, _)| module.clone()).collect();
        let mut modules: BTreeMap<_, _> = texts
            .into_iter()
            .map(|(module, text)| {
                let names = Reader::new(&module, &known, &text).read();
                (module, names)
            })
            .collect();
        let tests: Vec<Module> = modules
            .iter()
            .flat_map(|(module, names)| names.tests.iter().map(|test| child(module, test)))
            .collect();
        modules.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        Self { modules }
    }

    /// The file that defines what the path names; `None` where that is the crate's root, which only
    /// passes on.
    fn defines(&self, path: &[String], depth: u8) -> Option<Module> {
        let mut heads = (0..=path.len()).rev().map(|end| &path[..end]);
        let module = heads.find(|head| self.modules.contains_key(*head))?;
        if let Some(name) = path.get(module.len())
            && let Some(import) = self.modules[module].imports.get(name)
            && depth < 16
        {
            let rest = &path[module.len() + 1..];
            let import: Module = import.iter().chain(rest).cloned().collect();
            return self.defines(&import, depth + 1);
        }
        Some(module.to_vec())
    }

    fn circles(&self) -> Vec<Circle> {
        let folders: BTreeSet<&[String]> = self
            .modules
            .keys()
            .filter_map(|module| module.split_last().map(|(_, folder)| folder))
            .collect();
        let needs = self.needs();
        folders.into_iter().flat_map(|folder| rings(folder, &needs)).collect()
    }

    /// What each file names of another one.
    fn needs(&self) -> Vec<Need> {
        let mut needs = Vec::new();
        for (module, names) in &self.modules {
            for (path, line) in &names.paths {
                if let Some(to) = self.defines(path, 0)
                    && to != *module
                {
                    needs.push(Need { from: module.clone(), line: *line, to });
                }
            }
        }
        needs
    }
}

/// One file names what another one defines.
#[derive(Debug)]
struct Need {
    from: Module,
    line: usize,
    to: Module,
}

/// The circles among the modules of one folder, each with all that is inside it.
fn rings(folder: &[String], needs: &[Need]) -> Vec<Circle> {
    let inside = |module: &Module| {
        (module.len() > folder.len() && module.starts_with(folder))
            .then(|| module[..=folder.len()].to_vec())
    };
    let mut edges: BTreeMap<Module, BTreeMap<Module, &Need>> = BTreeMap::new();
    for need in needs {
        if let (Some(from), Some(to)) = (inside(&need.from), inside(&need.to))
            && from != to
        {
            edges.entry(to.clone()).or_default();
            edges.entry(from).or_default().entry(to).or_insert(need);
        }
    }
    let reached = |from: &Module| {
        let mut reached = BTreeSet::new();
        let mut waiting: Vec<&Module> = edges[from].keys().collect();
        while let Some(module) = waiting.pop() {
            if reached.insert(module) {
                waiting.extend(edges[module].keys());
            }
        }
        reached
    };
    let reach: BTreeMap<_, _> = edges.keys().map(|module| (module, reached(module))).collect();
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for module in edges.keys() {
        if seen.contains(module) || !reach[module].contains(module) {
            continue;
        }
        let back = |other: &&Module| reach[*other].contains(module);
        let ring: Vec<&Module> = reach[module].iter().copied().filter(back).collect();
        let why = ring.iter().flat_map(|from| {
            let inside = edges[*from].iter().filter(|(to, _)| ring.contains(to));
            inside.map(|(_, Need { from, line, to })| {
                format!("    {} needs {} in line {line}", from.join("::"), to.join("::"))
            })
        });
        circles.push(Circle {
            modules: ring.iter().map(|module| module.join("::")).collect(),
            why: why.collect(),
        });
        seen.extend(ring);
    }
    circles
}

fn child(module: &[String], name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// Reads what one file names.
struct Reader<'a> {
    tokens: Vec<(&'a str, usize)>,
    at: usize,
    /// The module in which the next token stands: that of the file, or one inside it.
    module: Module,
    known: &'a BTreeSet<Module>,
    names: Names,
}

impl<'a> Reader<'a> {
    fn new(module: &[String], known: &'a BTreeSet<Module>, text: &'a str) -> Self {
        Self {
            tokens: tokens(text),
            at: 0,
            module: module.to_vec(),
            known,
            names: Names::default(),
        }
    }

    fn read(mut self) -> Names {
        // For each open brace: whether it is that of a module.
        let mut braces = Vec::new();
        while let Some((token, line)) = self.next() {
            match token {
                "#" => self.attribute(),
                "use" => self.import(Vec::new()),
                "mod" => {
                    let name = self.next().map(|(name, _)| name).unwrap_or_default();
                    if self.is("{") {
                        self.at += 1;
                        self.module.push(name.to_owned());
                        braces.push(true);
                    }
                }
                "{" => braces.push(false),
                "}" => {
                    if braces.pop() == Some(true) {
                        self.module.pop();
                    }
                }
                _ => {
                    let continues = self.at >= 2 && self.tokens[self.at - 2].0 == "::";
                    if self.is("::") && !continues {
                        self.path(token, line);
                    }
                }
            }
        }
        self.names
    }

    fn next(&mut self) -> Option<(&'a str, usize)> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token
    }

    fn is(&self, token: &str) -> bool {
        self.tokens.get(self.at).is_some_and(|(it, _)| *it == token)
    }

    /// After `#`: passes over an attribute, and over the item if that is for tests alone.
    fn attribute(&mut self) {
        if self.is("!") {
            self.at += 1;
        }
        let start = self.at;
        self.group();
        let words: Vec<_> = self.tokens[start..self.at].iter().map(|(word, _)| *word).collect();
        let for_tests = matches!(words.as_slice(), ["[", "cfg", "(", "test", ")", "]"])
            || words.starts_with(&["[", "cfg", "(", "all", "(", "test"]);
        if !for_tests {
            return;
        }
        while self.is("#") {
            self.at += 1;
            self.group();
        }
        while let Some((token, _)) = self.next() {
            match token {
                "mod" => {
                    if let Some((name, _)) = self.tokens.get(self.at) {
                        self.names.tests.push((*name).to_owned());
                    }
                }
                ";" => return,
                "{" => {
                    self.at -= 1;
                    return self.group();
                }
                "(" | "[" => {
                    self.at -= 1;
                    self.group();
                }
                _ => {}
            }
        }
    }

    /// Passes over a group in brackets.
    fn group(&mut self) {
        let mut depth = 0_usize;
        while let Some((token, _)) = self.next() {
            match token {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// After `use`, or inside its braces: takes one tree of names.
    fn import(&mut self, mut path: Vec<&'a str>) {
        let mut renamed = None;
        let line = self.tokens.get(self.at).map_or(0, |(_, line)| *line);
        loop {
            match self.next() {
                Some(("::", _)) => {}
                Some(("{", _)) => {
                    while !self.is("}") && self.at < self.tokens.len() {
                        self.import(path.clone());
                    }
                    self.at += 1;
                    if self.is(",") || self.is(";") {
                        self.at += 1;
                    }
                    return;
                }
                Some(("as", _)) => renamed = self.next().map(|(name, _)| name),
                Some(("}", _)) => {
                    self.at -= 1;
                    break;
                }
                Some((";" | ",", _)) | None => break,
                Some((name, _)) => path.push(name),
            }
        }
        if path.last() == Some(&"self") && path.len() > 1 {
            path.pop();
        }
        let Some(whole) = self.resolve(&path) else { return };
        match path.last() {
            Some(&"*") => {}
            Some(last) => {
                let name = renamed.unwrap_or(last);
                self.names.imports.insert(name.to_owned(), whole.clone());
            }
            None => return,
        }
        self.names.paths.push((whole, line));
    }

    /// After the first name of a path that is not imported.
    fn path(&mut self, first: &'a str, line: usize) {
        let mut path = vec![first];
        while self.is("::") {
            self.at += 1;
            match self.tokens.get(self.at) {
                Some((name, _)) if is_name(name) => {
                    path.push(name);
                    self.at += 1;
                }
                _ => break,
            }
        }
        if let Some(whole) = self.resolve(&path) {
            self.names.paths.push((whole, line));
        }
    }

    /// The path from the root of the crate, if it leads to this crate.
    fn resolve(&self, path: &[&str]) -> Option<Module> {
        let mut base = match *path.first()? {
            "crate" => Vec::new(),
            "self" | "super" => self.module.clone(),
            first => {
                let own = child(&self.module, first);
                self.known.contains(&own).then(|| self.module.clone())?
            }
        };
        for name in path {
            match *name {
                "crate" | "self" => {}
                "super" => {
                    base.pop();
                }
                name => base.push(name.to_owned()),
            }
        }
        Some(base)
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

/// The words and signs of a text with their lines, without comments and the insides of strings.
fn tokens(text: &str) -> Vec<(&str, usize)> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let length = match bytes[at] {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'"' => string(rest),
            b'r' if is_raw_string(rest) => raw_string(rest),
            b'\'' => character(rest),
            b':' if rest.starts_with("::") => {
                tokens.push((&rest[..2], line));
                2
            }
            _ => {
                let word = rest
                    .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
                    .unwrap_or(rest.len());
                let length =
                    if word > 0 { word } else { rest.chars().next().map_or(1, char::len_utf8) };
                if !rest.starts_with(char::is_whitespace) {
                    tokens.push((&rest[..length], line));
                }
                length
            }
        };
        line += text[at..at + length].matches('\n').count();
        at += length;
    }
    tokens
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn is_raw_string(rest: &str) -> bool {
    rest[1..].trim_start_matches('#').starts_with('"')
}

fn raw_string(rest: &str) -> usize {
    let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
    let end = format!("\"{}", "#".repeat(hashes));
    let start = hashes + 2;
    rest.get(start..)
        .and_then(|inside| inside.find(&end))
        .map_or(rest.len(), |at| start + at + end.len())
}

/// The length of a character in quotes, or of the quote of a lifetime.
fn character(rest: &str) -> usize {
    let mut letters = rest.char_indices().skip(1);
    match letters.next() {
        Some((_, '\\')) => {
            rest[2..].char_indices().skip(1).find(|(_, it)| *it == '\'').map_or(1, |(at, _)| at + 3)
        }
        Some(_) => match letters.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let texts = files.iter().map(|(module, text)| {
            let module = module.split("::").filter(|part| !part.is_empty());
            (module.map(str::to_owned).collect(), (*text).to_owned())
        });
        Files::of(texts.collect()).circles().into_iter().map(|circle| circle.modules).collect()
    }

    #[test]
    fn no_crate_of_the_workspace_has_a_circle() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let findings = check(root).unwrap();
        let shown: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert!(shown.is_empty(), "{}", shown.join("\n"));
    }

    #[test]
    fn two_files_that_need_each_other_are_a_circle() {
        let files =
            [("", "mod a; mod b;"), ("a", "use crate::b::B;"), ("b", "use super::a::{A, C};")];
        assert_eq!(circles(&files), [["a", "b"]]);
    }

    #[test]
    fn a_ring_of_three_is_one_circle() {
        let files = [
            ("", "mod a; mod b; mod c;"),
            ("a", "use crate::{b::B, c};"),
            ("b", "fn f() { crate::c::g() }"),
            ("c", "fn g(_: super::a::A) {}"),
        ];
        assert_eq!(circles(&files), [["a", "b", "c"]]);
    }

    #[test]
    fn a_module_counts_with_all_that_is_inside_it() {
        let files = [("", "mod a;"), ("a", "mod b; use self::b::B;"), ("a::b", "use super::A;")];
        assert!(circles(&files).is_empty());
        let files = [
            ("", ""),
            ("a", "mod b;"),
            ("a::b", "use crate::c::C;"),
            ("c", "fn f() { super::a::g() }"),
        ];
        assert_eq!(circles(&files), [["a", "c"]]);
    }

    #[test]
    fn neighbours_in_a_folder_are_compared() {
        let files = [("a", ""), ("a::b", "use super::c::C;"), ("a::c", "use crate::a::b::B;")];
        assert_eq!(circles(&files), [["a::b", "a::c"]]);
    }

    #[test]
    fn what_is_passed_on_counts_for_the_file_that_defines_it() {
        let files = [
            ("", "mod a; mod b; pub use a::A; pub use b::B;"),
            ("a", "use crate::B;"),
            ("b", "use crate::a; pub use a::c::C;"),
            ("a::c", ""),
        ];
        assert_eq!(circles(&files), [["a", "b"]]);
        let files =
            [("", "mod a; mod b; pub use b::B as C;"), ("a", "fn f(_: crate::C) {}"), ("b", "")];
        assert!(circles(&files).is_empty());
    }

    #[test]
    fn tests_comments_and_strings_do_not_count() {
        let a = r##"
            // use crate::b::B;
            const S: &str = "use crate::b;"; const R: &str = r#"" use crate::b;"#; const C: char = '"';
            fn f<'a>(_: &'a str) {}
            #[cfg(test)]
            #[allow(unused)]
            mod tests { use crate::b::B; fn f() { crate::b::g(); } }
            #[cfg(test)]
            mod more;
        "##;
        let files = [
            ("", "mod a; mod b;"),
            ("a", a),
            ("a::more", "use crate::b::B;"),
            ("b", "use crate::a::f;"),
        ];
        assert!(circles(&files).is_empty());
    }

    #[test]
    fn a_module_inside_a_file_counts_for_the_file() {
        let files = [
            ("", "mod a; mod b;"),
            ("a", "mod inner { use super::super::b::B; use super::f; } fn f() {}"),
            ("b", "use crate::a::inner::C;"),
        ];
        assert_eq!(circles(&files), [["a", "b"]]);
    }

    #[test]
    fn a_known_circle_that_is_gone_is_a_finding() {
        let circle = Circle { modules: vec!["a".into(), "b".into()], why: Vec::new() };
        let found = vec![("core".to_owned(), circle)];
        assert!(compare(found, &[("core", &["a", "b"])]).is_empty());
        let findings = compare(Vec::new(), &[("core", &["a", "b"])]);
        assert!(findings[0].to_string().contains("a, b is not there any more"));
        let other = Circle { modules: vec!["a".into(), "c".into()], why: Vec::new() };
        assert_eq!(compare(vec![("core".to_owned(), other)], &[("core", &["a", "b"])]).len(), 2);
    }

    #[test]
    fn the_packages_are_those_of_the_manifest() {
        let manifest = "[workspace]\nmembers = [\n    \"core\",\n    \"tests/faults\",\n]\n";
        assert_eq!(packages(manifest), [".", "core", "tests/faults"]);
    }
}
