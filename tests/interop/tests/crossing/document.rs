//! The table in the docs: its rows are those that are tested, and what it says of them is what is
//! tested.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    refused::Refused,
    rows::{Row, Verdict},
};

const DOCUMENT: &str = include_str!("../../../../docs/crossing.md");

/// By the row's name, what becomes of it from 0-9-1 to 1.0 and the other way round, in a word each.
type Verdicts<'a> = BTreeMap<&'a str, [&'a str; 2]>;

pub(crate) fn check(rows: &[Row], refused: &[Refused]) -> Result<(), String> {
    let word = |verdict| match verdict {
        Verdict::Equal => "equal",
        Verdict::Lost => "lost",
        Verdict::Text => "text",
    };
    let tested: Verdicts<'_> = rows
        .iter()
        .map(|row| (row.name, [word(row.from_091_to_10), word(row.from_10_to_091)]))
        .chain(refused.iter().map(|row| (row.name, ["refused", "refused"])))
        .collect();
    let written: Verdicts<'_> = DOCUMENT.lines().filter_map(row).collect();
    let names: BTreeSet<_> = tested.keys().chain(written.keys()).collect();
    let differing: Vec<_> = names
        .into_iter()
        .filter(|name| tested.get(*name) != written.get(*name))
        .map(|name| {
            format!("{name}: {:?} is tested, {:?} is written", tested.get(name), written.get(name))
        })
        .collect();
    if differing.is_empty() { Ok(()) } else { Err(differing.join("\n")) }
}

/// A row of a table: it begins with a name in code, and each of its last two cells begins with a
/// verdict.
fn row(line: &'static str) -> Option<(&'static str, [&'static str; 2])> {
    let (name, rest) = line.strip_prefix("| `")?.split_once("` |")?;
    let mut cells = rest.trim_end().trim_end_matches('|').rsplit('|');
    let mut word = || {
        cells.next()?.split_whitespace().next().map(|word| word.trim_end_matches([',', ':', ';']))
    };
    let (last, before) = (word()?, word()?);
    Some((name, [before, last]))
}
