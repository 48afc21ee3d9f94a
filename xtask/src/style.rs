//! What a program can see of "How we write" in CONTRIBUTING.md: words that hide the actor, case numbers
//! that the repository does not define, and design pages that name a file which is not there.

use std::{fmt, fs, io, path::Path, process::Command};

/// These words hide who acts: the broker, the publisher, the consumer, or this process.
const HIDDEN_ACTORS: [&str; 3] = ["nobody", "somebody", "whoever"];

/// Defines the case numbers that comments may name.
const CASES: &str = "tests/faults/CASES.md";

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
    let mut findings = Vec::new();
    for file in listed.split('\0').filter(|file| is_prose_or_code(file)) {
        // A file that is deleted and not yet committed is still listed.
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        findings.extend(words(file, &text));
        if Path::new(file).extension().is_some_and(|it| it == "rs") {
            findings.extend(case_numbers(file, &text, &cases));
        }
        if file == "DESIGN.md" || file.starts_with("docs/design/") {
            findings.extend(missing_files(file, &text, |path| root.join(path).exists()));
        }
    }
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
            let is_path = FOLDERS.iter().any(|folder| word.starts_with(folder));
            if is_path && !exists(word.trim_end_matches('.')) {
                let problem = format!("{word} is not there");
                findings.push(Finding { file: file.to_owned(), line: number, problem });
            }
        }
    }
    findings
}

/// A word of a design page that begins with one of these is a path in the repository.
const FOLDERS: [&str; 10] = [
    "src/",
    "core/",
    "transport-",
    "socket/",
    "amqp/",
    "tests/",
    "xtask/",
    "dev/",
    "benches/",
    "examples/",
];

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
    fn a_design_page_names_files_that_are_there() {
        let text = "See (core/src/a.rs) and\n`core/src/b.rs`, `dev/test`; std/src/c.rs.";
        let found = missing_files("d.md", text, |path| path != "core/src/b.rs");
        assert_eq!(problems(&found), ["d.md:2: core/src/b.rs is not there"]);
    }
}
