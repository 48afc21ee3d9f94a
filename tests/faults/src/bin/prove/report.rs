//! What came of all runs: a table for the screen, a page for the browser.

use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use enoki_faults::{
    ledger::{FaultReport, Late},
    seed::Seed,
};

use crate::{chart, recovery::Recoveries, run::Run, timeline};

/// A run as a table.
pub(crate) fn text(run: &Run) -> String {
    let failures = run.failures();
    let mut text = String::new();
    let verdict = if failures.is_empty() { "as promised" } else { "BROKEN" };
    let _ = writeln!(
        text,
        "\n{} ({}): {verdict} in {:.1} s, memory {} → {} MB",
        run.target,
        run.peer,
        run.took.as_secs_f64(),
        run.memory.0 / 1024,
        run.memory.1 / 1024
    );
    let _ = write!(text, "{}", run.report);
    let slowest = run.marks.iter().max_by_key(|mark| mark.recovery);
    if let Some(mark) = slowest {
        let (seconds, name) = (mark.recovery.as_secs_f64(), mark.fault);
        let _ = writeln!(text, "  slowest recovery: {seconds:.1} s after {name}");
        let _ = writeln!(text, "  recovery: {}", Recoveries::of(&run.marks));
    }
    if let Some((length, from)) = timeline::standstill(&run.samples, &run.marks) {
        let (length, from) = (length.as_secs_f64(), from.as_secs_f64());
        let _ = writeln!(
            text,
            "  longest standstill with no fault open: {length:.1} s, {from:.1} s after the start"
        );
    }
    for late in run.report.late.iter().take(LISTED) {
        let name = |at: usize| run.report.faults.get(at).map_or("?", |fault| &*fault.name);
        let faults = match late.faults {
            None => "no fault explains it".to_owned(),
            Some((first, last)) if first == last => name(first).to_owned(),
            Some((first, last)) => format!("{} … {}", name(first), name(last)),
        };
        let Late { number, after, is_marked, .. } = late;
        let mark = if *is_marked { "redelivered" } else { "not redelivered" };
        let _ = writeln!(text, "  late: message {number}, after {after}, {mark}: {faults}");
    }
    for failure in failures {
        let _ = writeln!(text, "  BROKEN: {failure}");
    }
    text
}

/// Writes the page, and says where it is.
pub(crate) fn write(folder: &Path, seed: Seed, runs: &[Run]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let mut page = format!(
        "<!doctype html><meta charset=utf-8><title>dev/prove, seed {seed}</title>\n\
         <style>body{{font:14px sans-serif;margin:2em}}td,th{{padding:2px 10px;text-align:right}}\n\
         td:first-child,th:first-child{{text-align:left}}.broken{{color:#b00}}</style>\n\
         <h1>dev/prove, seed {seed}</h1>\n"
    );
    for run in runs {
        let _ = writeln!(page, "<h2>{}</h2>", escape(&format!("{} ({})", run.target, run.peer)));
        for failure in run.failures() {
            let _ = writeln!(page, "<p class=broken>{}</p>", escape(&failure));
        }
        let _ = writeln!(page, "<pre>{}</pre>", escape(&text(run)));
        match chart::svg(run) {
            Ok(picture) => {
                fs::write(folder.join(format!("{}.svg", run.target.slug())), &picture)?;
                page.push_str(&picture);
            }
            Err(error) => {
                let _ =
                    writeln!(page, "<p class=broken>no chart: {}</p>", escape(&error.to_string()));
            }
        }
        page.push_str(&faults(run));
    }
    let file = folder.join("index.html");
    fs::write(&file, page)?;
    Ok(file)
}

fn faults(run: &Run) -> String {
    let mut table = String::from(
        "<table><tr><th>fault<th>at message<th>outstanding<th>in flight<th>published again\
         <th>at most<th>delivered again<th>at most<th>forgotten<th>at most<th>oldest<th>recovery</tr>\n",
    );
    for (at, fault) in run.report.faults.iter().enumerate() {
        let FaultReport { name, at_message, outstanding, in_flight, .. } = fault;
        let (published, delivered) = (fault.published_again, fault.delivered_again);
        let recovery = run.marks.get(at).map_or(0.0, |mark| mark.recovery.as_secs_f64());
        let oldest = fault
            .oldest_forgotten
            .map_or(String::new(), |age| format!("{:.2} s", age.as_secs_f64()));
        let _ = writeln!(
            table,
            "<tr><td>{}<td>{at_message}<td>{outstanding}<td>{in_flight}<td>{}<td>{}<td>{}<td>{}\
             <td>{}<td>{}<td>{oldest}<td>{recovery:.1} s</tr>",
            escape(name),
            published.0,
            published.1,
            delivered.0,
            delivered.1,
            fault.forgotten.0,
            fault.forgotten.1
        );
    }
    table + "</table>\n"
}

/// How many late messages are listed one by one.
const LISTED: usize = 100;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
