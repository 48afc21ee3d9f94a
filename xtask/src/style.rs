//! The part of "How we write" in CONTRIBUTING.md that a program can see: words that hide the actor, case
//! numbers that the repository does not define, links and paths that lead nowhere, pages that the book
//! does not list, and names of core that the facade does not have.

mod facade;

use std::{
    fmt, fs, io,
    path::{Component, Path, PathBuf},
    process::Command,
};

/// These words hide who acts: the broker, the publisher, the consumer, or this process.
const HIDDEN_ACTORS: [&str; 3] = ["nobody", "somebody", "whoever"];

/// Defines the case numbers that comments may name.
const CASES: &str = "tests/faults/CASES.md";

/// Lists the pages of the book.
const SUMMARY: &str = "docs/SUMMARY.md";

/// This file has to contain the words in order to look for them.
const THIS_FILE: &str = "xtask/src/style.rs";

/// One place that does not follow the rules. Shown as `file:line: what is wrong`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    file: String,
    line: usize,
    problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

/// Checks every file of the repository at `root` that git knows.
pub(crate) fn check(root: &Path) -> io::Result<Vec<Finding>> {
    let listed = Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).output()?;
    if !listed.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&listed.stderr).into_owned()));
    }
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let cases = fs::read_to_string(root.join(CASES))?;
    let summary = fs::read_to_string(root.join(SUMMARY))?;
    let mut findings = Vec::new();
    for file in listed.split('\0').filter(|file| is_prose_or_code(file)) {
        // A file that is deleted and not yet committed is still listed.
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        findings.extend(words(file, &text));
        if Path::new(file).extension().is_some_and(|it| it == "rs") {
            findings.extend(case_numbers(file, &text, &cases));
        }
        if Path::new(file).extension().is_some_and(|it| it == "md") {
            findings.extend(dead_links(file, &text, |path| root.join(path).exists()));
        }
        if let Some(page) = file.strip_prefix("docs/").filter(|page| page.ends_with(".md")) {
            findings.extend(unlisted(page, &summary));
        }
        if ["DESIGN.md", "CONTRIBUTING.md"].contains(&file) || file.starts_with("docs/design/") {
            findings.extend(missing_files(file, &text, |path| root.join(path).exists()));
        }
    }
    findings.extend(facade::check(root)?);
    Ok(findings)
}

fn is_prose_or_code(file: &str) -> bool {
    let extension = Path::new(file).extension().and_then(|it| it.to_str());
    let is_script = extension.is_none() && (file.starts_with("dev/") || file.starts_with(".ci/"));
    let is_text = matches!(extension, Some("rs" | "md" | "toml" | "py" | "yml" | "xml" | "conf"));
    (is_text || is_script) && file != THIS_FILE
}

/// The words that hide who acts. In Markdown, what stands in backticks is quoted and may have them.
fn words(file: &str, text: &str) -> Vec<Finding> {
    let is_markdown = Path::new(file).extension().is_some_and(|it| it == "md");
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = if is_markdown { without_code_spans(line) } else { line.to_owned() };
        for word in line.split(|letter: char| !letter.is_alphanumeric() && letter != '_') {
            if HIDDEN_ACTORS.iter().any(|hidden| word.eq_ignore_ascii_case(hidden)) {
                let problem = format!("`{word}` hides who acts: name the actor");
                findings.push(Finding { file: file.to_owned(), line: number, problem });
            }
        }
    }
    findings
}

fn without_code_spans(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// Case numbers (`K08`) in comments that the table of cases does not have.
fn case_numbers(file: &str, text: &str, cases: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let Some((_, comment)) = line.split_once("//") else { continue };
        for word in comment.split(|letter: char| !letter.is_alphanumeric()) {
            if is_case_number(word) && !cases.contains(&format!("| {word} |")) {
                let problem = format!("{word} is no case of {CASES}: say it in words");
                findings.push(Finding { file: file.to_owned(), line: number, problem });
            }
        }
    }
    findings
}

fn is_case_number(word: &str) -> bool {
    matches!(word.as_bytes(), [letter, tens, ones]
        if letter.is_ascii_uppercase() && tens.is_ascii_digit() && ones.is_ascii_digit())
}

/// Paths in backticks or parentheses of a design page that lead nowhere.
fn missing_files(file: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for word in line.split(|letter: char| letter.is_whitespace() || "`(),;".contains(letter)) {
            // `transport-*/src/peer.rs` stands for several.
            let is_path =
                FOLDERS.iter().any(|folder| word.starts_with(folder)) && !word.contains('*');
            if is_path && !exists(word.trim_end_matches('.')) {
                let problem = format!("{word} is not there");
                findings.push(Finding { file: file.to_owned(), line: number, problem });
            }
        }
    }
    findings
}

/// Links of a Markdown file to files that are not there. Links to elsewhere are not followed.
fn dead_links(file: &str, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = without_code_spans(line);
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for (target, _) in targets {
            let path = target.split('#').next().unwrap_or_default();
            let is_elsewhere = path.is_empty() || path.contains(':');
            if !is_elsewhere && !exists(&resolved(&folder.join(path))) {
                let problem = format!("the link to {target} leads nowhere");
                findings.push(Finding { file: file.to_owned(), line: number, problem });
            }
        }
    }
    findings
}

/// The path without `..`, so that it can be looked for in a list.
fn resolved(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                resolved.pop();
            }
            other => resolved.push(other),
        }
    }
    resolved
}

/// A page in `docs/` that the book's summary does not list.
fn unlisted(page: &str, summary: &str) -> Option<Finding> {
    let is_listed = page == "SUMMARY.md" || summary.contains(&format!("]({page})"));
    (!is_listed).then(|| Finding {
        file: format!("docs/{page}"),
        line: 1,
        problem: format!("{SUMMARY} does not list it"),
    })
}

/// A word of a design page that begins with one of these is a path in the repository.
const FOLDERS: [&str; 9] =
    ["src/", "core/", "transport-", "amqp/", "tests/", "xtask/", "dev/", "benches/", "examples/"];

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_word_that_hides_the_actor_is_found_with_its_line() {
        let text = "//! Fine.\n/// Somebody must settle it.\nlet nobody_else = 1; // whoever asks";
        assert_eq!(
            problems(&words("a.rs", text)),
            [
                "a.rs:2: `Somebody` hides who acts: name the actor",
                "a.rs:3: `whoever` hides who acts: name the actor"
            ]
        );
    }

    #[test]
    fn markdown_may_quote_such_a_word() {
        assert!(words("a.md", "Never write `nobody`, or `whoever`.").is_empty());
        assert_eq!(words("a.md", "`ok` says nobody `here`").len(), 1);
    }

    #[test]
    fn a_case_number_must_be_in_the_table() {
        let cases = "| Case | What |\n| K08 | A channel ends |\n";
        let text = "/// K08, W06: no guess.\nlet b22 = \"B22\"; // U+00B5, RFC 822, 0xC05\n// B22";
        assert_eq!(
            problems(&case_numbers("a.rs", text, cases)),
            [
                format!("a.rs:1: W06 is no case of {CASES}: say it in words"),
                format!("a.rs:3: B22 is no case of {CASES}: say it in words"),
            ]
        );
    }

    #[test]
    fn a_link_leads_to_a_file() {
        let text = "[a](b.md#c), [d](../e.md)\n[f](https://g), [h](#i) `[j](k)` [l](m.md)";
        let found = dead_links("docs/p/q.md", text, |path| path == Path::new("docs/e.md"));
        assert_eq!(
            problems(&found),
            [
                "docs/p/q.md:1: the link to b.md#c leads nowhere",
                "docs/p/q.md:2: the link to m.md leads nowhere"
            ]
        );
    }

    #[test]
    fn every_page_is_in_the_book() {
        let summary = "- [Publish](publish.md)";
        assert_eq!(unlisted("publish.md", summary), None);
        assert_eq!(unlisted("SUMMARY.md", summary), None);
        let found = unlisted("failures/denied.md", summary).unwrap().to_string();
        assert_eq!(found, "docs/failures/denied.md:1: docs/SUMMARY.md does not list it");
    }

    #[test]
    fn a_design_page_names_files_that_are_there() {
        let text = "See (core/src/a.rs) and\n`core/src/b.rs`, `dev/test`; std/src/c.rs.";
        let found = missing_files("d.md", text, |path| path != "core/src/b.rs");
        assert_eq!(problems(&found), ["d.md:2: core/src/b.rs is not there"]);
    }
}
