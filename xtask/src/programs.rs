//! Runs test programs, several at a time.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Write as _,
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    cargo::Program,
    load::Load,
    options::Options,
    prepare::Environment,
    results::{self, Line, Tally},
    shell::Shell,
};

/// Programs that run at the same time. Those that take long wait for brokers and clocks, most of the time.
const AT_A_TIME: usize = 4;

/// The file with how long each program took, so that the longest begin first in the next run.
const TIMES: &str = "target/dev-test.times";

/// Listing tests is quick.
const LISTING: Duration = Duration::from_secs(60);

/// A line that a test program prints to tell how long a test of it took: `took 1.25 s: NAME`.
const TOOK: &str = "took ";

/// Runs those programs that are wanted, as often as is wanted.
pub(crate) async fn run(
    shell: &Arc<Shell>,
    options: &Options,
    environment: &Environment,
    limit: Duration,
    programs: Vec<Program>,
) {
    let mut programs: Vec<_> =
        programs.into_iter().filter(|program| options.wants_program(&program.name)).collect();
    if programs.is_empty() {
        shell.report().failed("no test program has such a name");
        return;
    }
    let mut times = read_times(Path::new(TIMES));
    // One that is not known yet may take long.
    let expected = |program: &Program| times.get(&program.name).copied().unwrap_or(f64::MAX);
    programs.sort_by(|one, other| expected(other).total_cmp(&expected(one)));

    let load = options.under_load.then(Load::start);
    if load.is_some() {
        shell.screen.say("Every core is busy with something else while the test programs run.");
    }
    for turn in 1..=options.times {
        let queue = Mutex::new(programs.iter().cloned().collect::<VecDeque<_>>());
        let queue = Arc::new(queue);
        let mut workers = JoinSet::new();
        for _ in 0..AT_A_TIME {
            let (shell, queue, environment) = (shell.clone(), queue.clone(), environment.clone());
            let suffix = if options.times > 1 { format!(" ({turn})") } else { String::new() };
            workers.spawn(async move {
                let mut times = Vec::new();
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some(program) = next() {
                    let took = run_one(&shell, &environment, limit, &program, &suffix).await;
                    times.push((program.name, took.as_secs_f64()));
                }
                times
            });
        }
        while let Some(worker) = workers.join_next().await {
            times.extend(worker.unwrap_or_default());
        }
    }
    if !options.under_load {
        write_times(Path::new(TIMES), &times);
    }
}

async fn run_one(
    shell: &Shell,
    environment: &Environment,
    limit: Duration,
    program: &Program,
    suffix: &str,
) -> Duration {
    let name = format!("{}{suffix}", program.name);
    let mut list = program.command(&["--list", "--format", "terse"]);
    environment.apply(&mut list);
    let list = shell.run(&name, LISTING, list, |_, _| {}).await;
    let tests: Vec<_> =
        list.output.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    shell.screen.tests_to_run(tests.len());

    let mut tally = Tally::of(&name);
    let mut clock = Clock::new(&tests);
    let mut done = 0;
    let mut command = program.command(&[]);
    environment.apply(&mut command);
    let ended = shell
        .run(&name, limit, command, |line, shown| {
            if let Some(told) = line.strip_prefix(TOOK) {
                clock.told(told);
                return;
            }
            let Some(line) = results::read(line) else { return };
            if let Line::Passed(test) | Line::Failed(test) | Line::Ignored(test, _) = line {
                done += 1;
                shown.said(&format!("{done} of {}", tests.len()));
                shell.screen.test_done(!matches!(line, Line::Failed(_)));
                clock.ended(test);
            }
            if let Line::Failed(test) = line {
                shell.screen.say(&format!("FAILED {name}: {test}"));
            }
            tally.add(line);
        })
        .await;
    shell.tell(&name, &ended, &tally.to_string());
    let mut report = shell.report();
    tally.add_to(&mut report, &name, ended.well);
    for (test, time) in clock.times {
        report.took(time, format!("{name}: {test}"));
    }
    ended.took
}

/// How long each test took, seen from outside.
///
/// A program says when a test ends and not when it begins. But it begins its tests in the order in
/// which it lists them, as many at a time as there are cores: so the nth begins when so many fewer have
/// ended. A program that runs its tests otherwise tells their times itself.
#[derive(Debug)]
struct Clock {
    places: HashMap<String, usize>,
    at_a_time: usize,
    began: Instant,
    ends: Vec<Instant>,
    times: BTreeMap<String, Duration>,
}

impl Clock {
    fn new(tests: &[&str]) -> Self {
        Self {
            places: tests.iter().enumerate().map(|(place, test)| (short(test), place)).collect(),
            at_a_time: std::thread::available_parallelism().map_or(1, usize::from),
            began: Instant::now(),
            ends: Vec::new(),
            times: BTreeMap::new(),
        }
    }

    fn ended(&mut self, test: &str) {
        let now = Instant::now();
        self.ends.push(now);
        if let Some(place) = self.places.get(&short(test)) {
            let before = place.checked_sub(self.at_a_time).and_then(|nth| self.ends.get(nth));
            let began = before.copied().unwrap_or(self.began);
            self.times.insert(test.to_owned(), now - began);
        }
    }

    /// `1.25 s: NAME`
    fn told(&mut self, line: &str) {
        if let Some((seconds, test)) = line.split_once(" s: ")
            && let Some(time) =
                seconds.parse().ok().and_then(|time| Duration::try_from_secs_f64(time).ok())
        {
            self.times.insert(test.to_owned(), time);
        }
    }
}

/// A name without the spaces that line it up with others.
fn short(test: &str) -> String {
    test.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn read_times(file: &Path) -> HashMap<String, f64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let times = text.lines().filter_map(|line| {
        let (seconds, name) = line.split_once('\t')?;
        Some((name.to_owned(), seconds.parse().ok()?))
    });
    times.collect()
}

fn write_times(file: &Path, times: &HashMap<String, f64>) {
    let mut text = String::new();
    for (name, seconds) in times {
        let _ = writeln!(text, "{seconds:.1}\t{name}");
    }
    // Without it the next run is in another order, and that is all.
    let _ = fs::write(file, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_begins_when_one_before_it_ends() {
        let mut clock = Clock::new(&["[a] one", "[a] two", "[a] three"]);
        clock.at_a_time = 2;
        clock.began = Instant::now() - Duration::from_secs(10);
        clock.ended("[a] one  ");
        // The third began when the first ended, and that was just now.
        clock.ended("[a] three");
        clock.ended("[a] two  ");
        let time = |test: &str| clock.times[test];
        assert!(time("[a] one  ") >= Duration::from_secs(10));
        assert!(time("[a] two  ") >= Duration::from_secs(10));
        assert!(time("[a] three") < Duration::from_secs(5));
    }

    #[test]
    fn what_a_program_tells_itself_is_taken() {
        let mut clock = Clock::new(&["one"]);
        clock.ended("one");
        clock.told("12.50 s: one");
        clock.told("nonsense");
        clock.told("-1 s: one");
        assert_eq!(
            clock.times,
            BTreeMap::from([("one".to_owned(), Duration::from_millis(12_500))])
        );
    }

    #[test]
    fn times_are_kept_for_the_next_run() {
        let file = std::env::temp_dir().join(format!("enoki-times-{}", std::process::id()));
        let times = HashMap::from([("enoki-core scripted".to_owned(), 1.5)]);
        write_times(&file, &times);
        assert_eq!(read_times(&file), times);
        fs::remove_file(&file).unwrap();
        assert!(read_times(&file).is_empty());
    }
}
