//! The table of cases and the tests it names agree.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const CASES: &str = include_str!("../CASES.md");

/// What is to be shown.
const IDS: &str = "P01 P03 P04 P05 P06 P07 P08 P09 P10 P11 P12 P13 P14 P15 P16 P19 P21 P24 P25 \
    K01 K02 K03 K04 K06 K07 K08 K09 K10 K11 K16 K17 K19 K20 K21 \
    R01 R02 R03 R04 R05 R08 R09 R10 R12 R15 R16 R17 R28 R30 \
    T-S1 T-S2 T-S3 T-S4 T-S8";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A line of the table: the case, and what shows it.
struct Row {
    id: &'static str,
    shown_by: &'static str,
    /// Files and the tests in them.
    tests: Vec<(&'static str, &'static str)>,
}

fn rows() -> Vec<Row> {
    let lines = CASES.lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect());
    cells
        .filter(|cells: &Vec<_>| cells.first() != Some(&"Case"))
        .map(|cells| {
            let [id, _, shown_by] = cells[..] else { panic!("not three cells: {cells:?}") };
            let mut file = "";
            let mut tests = Vec::new();
            // Every second piece is between backticks.
            for code in shown_by.split('`').skip(1).step_by(2) {
                match code {
                    code if code.ends_with(".rs") => file = code,
                    code if code.contains('/') => {}
                    test => tests.push((file, test)),
                }
            }
            Row { id, shown_by, tests }
        })
        .collect()
}

#[test]
fn every_case_has_a_line_with_its_tests_or_the_reason_why_there_are_none() {
    let ids: Vec<_> = rows().iter().map(|row| row.id).collect();
    assert_eq!(ids, IDS.split_whitespace().collect::<Vec<_>>());
    for Row { id, shown_by, tests } in rows() {
        let is_open = shown_by.starts_with("Open: ");
        assert_ne!(tests.is_empty(), !is_open, "{id}: either tests, or why there are none");
    }
}

#[test]
fn every_test_that_the_table_names_is_in_its_file() {
    let mut sources = BTreeMap::new();
    for Row { id, tests, .. } in rows() {
        for (file, test) in tests {
            let source = sources.entry(file).or_insert_with(|| {
                fs::read_to_string(root().join(file))
                    .unwrap_or_else(|error| panic!("{id}: {file:?}: {error}"))
            });
            // As a function, or as what a trial is called.
            let is_there =
                source.contains(&format!("fn {test}(")) || source.contains(&format!("\"{test}\""));
            assert!(is_there, "{id}: there is no {test} in {file}");
        }
    }
}

#[test]
fn every_test_with_the_number_of_a_case_is_in_the_table() {
    let cases: Vec<_> = rows();
    let ids: Vec<_> =
        IDS.split_whitespace().map(|id| id.replace('-', "_").to_lowercase()).collect();
    let mut files = Vec::new();
    let mut folders = vec![root().join("tests/faults/tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let mut found = 0;
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        for (_, rest) in
            source.match_indices("async fn ").map(|(at, it)| source.split_at(at + it.len()))
        {
            let test = rest.split('(').next().unwrap_or_default();
            for id in ids.iter().filter(|id| {
                test.strip_prefix(id.as_str()).is_some_and(|rest| rest.starts_with('_'))
            }) {
                found += 1;
                let is_named = cases.iter().any(|row| {
                    row.id.replace('-', "_").to_lowercase() == *id
                        && row.tests.iter().any(|(_, named)| *named == test)
                });
                assert!(is_named, "{test} of {} is not in the table", file.display());
            }
        }
    }
    assert!(found > 30, "only {found} tests were found: are they elsewhere?");
}
