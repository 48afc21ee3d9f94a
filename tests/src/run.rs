//! Running the cases: each on a runtime and a thread of its own, within its deadline.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    panic::AssertUnwindSafe,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use enoki_core::Capability;
use futures_util::FutureExt;
use libtest_mimic::{Arguments, Completion, Trial};
use tokio::time::timeout;

use crate::{case::Case, cases, harness::Harness, stage::Stage};

/// The result of a case.
///
/// Exhaustive: a case passes, fails, or does not apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not, and why.
    Failed(String),
    /// It does not apply here, and why.
    Ignored(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
            Self::Ignored(reason) => write!(f, "ignored: {reason}"),
        }
    }
}

/// Runs the suite: the `main` of a test target with `harness = false`. Takes the arguments that
/// `cargo test` passes on: filters, `--skip`, `--exact`, `--test-threads`, `--list`.
pub fn main(harness: impl Harness) -> ExitCode {
    main_all(vec![Arc::new(harness)])
}

/// Like [`main`], against several brokers.
pub fn main_all(harnesses: Vec<Arc<dyn Harness>>) -> ExitCode {
    let trials = harnesses.iter().flat_map(|harness| {
        cases::all().map(|case| {
            let harness = harness.clone();
            let name = harness.name().to_owned();
            let trial = Trial::ignorable_test(case.name, move || match run_case(&harness, case) {
                Verdict::Passed => Ok(Completion::Completed),
                // The list of failures names the case, but not the broker.
                Verdict::Failed(reason) => Err(format!("[{}] {reason}", harness.name()).into()),
                Verdict::Ignored(reason) => Ok(Completion::ignored_with(reason)),
            });
            trial.with_kind(name)
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// Runs all cases and returns the result of each, by name: for tests of the suite itself.
pub fn run(harness: Arc<dyn Harness>) -> BTreeMap<&'static str, Verdict> {
    let waiting = Mutex::new(cases::all());
    let verdicts = Mutex::new(BTreeMap::new());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some(case) = next() {
                    let verdict = run_case(&harness, case);
                    let mut verdicts = verdicts.lock().unwrap_or_else(PoisonError::into_inner);
                    verdicts.insert(case.name, verdict);
                }
            });
        }
    });
    verdicts.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one case.
pub fn run_case(harness: &Arc<dyn Harness>, case: &'static Case) -> Verdict {
    if let Some(reason) = harness.unavailable() {
        let required = std::env::var_os("ENOKI_REQUIRE_BROKERS").is_some_and(|value| value == "1");
        return if required { Verdict::Failed(reason) } else { Verdict::Ignored(reason) };
    }
    if let Some(reason) = case.missing(&**harness) {
        return Verdict::Ignored(reason);
    }
    let (report, reported) = mpsc::channel();
    let harness = harness.clone();
    let paused = is_paused(&*harness);
    let thread = thread::Builder::new().name(case.name.to_owned()).spawn(move || {
        // The receiver is gone if this took too long.
        let _ = report.send(perform(harness, case));
    });
    if let Err(error) = thread {
        return Verdict::Failed(format!("no thread to run it on: {error}"));
    }
    // The case keeps its deadline by itself, unless it blocks its thread or its clock stands still.
    let patience = if paused { SPIN_UNMEASURED * 5 } else { case.deadline + TIDYING + GRACE };
    match reported.recv_timeout(patience) {
        Ok(Ok(())) => Verdict::Passed,
        Ok(Err(reason)) => Verdict::Failed(reason),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Verdict::Failed(format!("it hangs, and blocks its thread: {patience:?} passed"))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Verdict::Failed("its thread ended without a word".to_owned())
        }
    }
}

/// How long it may take to remove what a case has declared.
const TIDYING: Duration = Duration::from_secs(20);

/// How long the end of a runtime may take.
const GRACE: Duration = Duration::from_secs(5);

/// Whether its cases run on a paused clock.
fn is_paused(harness: &dyn Harness) -> bool {
    harness.capabilities().contains(&Capability::VirtualTime)
}

fn perform(harness: Arc<dyn Harness>, case: &'static Case) -> Result<(), String> {
    let paused = is_paused(&*harness);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(paused);
    let runtime = runtime.build().map_err(|error| format!("no runtime: {error}"))?;
    let spinning = async { if paused { spinning().await } else { std::future::pending().await } };
    let result = runtime.block_on(async {
        let stage = AssertUnwindSafe(Stage::open(harness)).catch_unwind();
        let stage = timeout(case.deadline, stage)
            .await
            .map_err(|_| format!("the harness had no transport after {:?}", case.deadline))?
            .map_err(|panic| format!("the harness panicked: {}", said(&*panic)))?
            .map_err(|error| format!("the harness has no transport: {error:?}"))?;
        let running = AssertUnwindSafe((case.run)(&stage)).catch_unwind();
        let result = tokio::select! {
            running = timeout(case.deadline, running) => match running {
                Ok(Ok(Ok(()))) => Ok(()),
                Ok(Ok(Err(failed))) => Err(failed.to_string()),
                Ok(Err(panic)) => Err(format!("it panicked: {}", said(&*panic))),
                Err(_) => Err(format!("it hangs: {:?} passed", case.deadline)),
            },
            () = spinning => Err("it spins, and the clock does not move".to_owned()),
        };
        let tidying = AssertUnwindSafe(stage.tidy()).catch_unwind();
        let tidied = match timeout(TIDYING, tidying).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(format!("it could not be tidied up: {error:?}")),
            Ok(Err(panic)) => Err(format!("tidying up panicked: {}", said(&*panic))),
            Err(_) => Err(format!("it could not be tidied up: {TIDYING:?} passed")),
        };
        result.and(tidied)
    });
    runtime.shutdown_timeout(GRACE / 2);
    result
}

/// How much processor time a case on a paused clock may use: there is nothing to wait for. It is many
/// times what the largest takes, and it is not the time that passes: on a busy machine that says nothing.
const SPIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// Where the system does not tell how busy a thread was, so much time may pass instead.
const SPIN_UNMEASURED: Duration = Duration::from_secs(120);

/// Waits until this thread was busy for too long. A paused clock does not move while there is something
/// to run, so a case that goes round and round would never reach its deadline.
async fn spinning() {
    let (rung, rings) = tokio::sync::oneshot::channel();
    let (_case_ends, ends) = mpsc::channel::<()>();
    let case = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    let began = Instant::now();
    let spins = move || match processor_time(&case) {
        Some(busy) => busy > SPIN,
        None => began.elapsed() > SPIN_UNMEASURED,
    };
    let alarm = thread::Builder::new().name("alarm".to_owned()).spawn(move || {
        while let Err(mpsc::RecvTimeoutError::Timeout) = ends.recv_timeout(LOOK) {
            if spins() {
                let _ = rung.send(());
                return;
            }
        }
    });
    match (alarm, rings.await) {
        (Ok(_), Ok(())) => {}
        _ => std::future::pending().await,
    }
}

/// How often it is looked whether a case spins.
const LOOK: Duration = Duration::from_millis(200);

/// How much time a thread has had, by its folder in `/proc`; Linux counts it in hundredths of a second.
fn processor_time(thread: &Path) -> Option<Duration> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(thread).join("stat")).ok()?;
    // Its name, in brackets, may have anything in it. After that, user and system time are the 12th and
    // the 13th.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<u64> =
        fields.split_whitespace().skip(11).take(2).map_while(|field| field.parse().ok()).collect();
    let [user, system] = fields[..] else { return None };
    Some(Duration::from_millis(user.checked_add(system)?.checked_mul(10)?))
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("something that is no text")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use async_trait::async_trait;
    use enoki_core::{Error, ErrorKind, Purpose, Result, Transport, transport::Session};
    use tokio::time::sleep;

    use super::*;
    use crate::{
        case::Need,
        expect::{Failed, expect_eq},
        harness::Broken,
    };

    /// Reaches nothing, and needs to reach nothing.
    #[derive(Debug)]
    struct Nowhere {
        unavailable: bool,
    }

    #[async_trait]
    impl Transport for Nowhere {
        fn name(&self) -> &'static str {
            "nowhere"
        }

        async fn connect(&self, _: Purpose, _: tokio::time::Instant) -> Result<Arc<dyn Session>> {
            Err(Error::new(ErrorKind::Connection, "connect"))
        }
    }

    #[async_trait]
    impl Harness for Nowhere {
        fn name(&self) -> &str {
            "nowhere"
        }

        fn capabilities(&self) -> Vec<Capability> {
            vec![Capability::VirtualTime]
        }

        async fn transport(&self) -> Result<Arc<dyn Transport>> {
            Ok(Arc::new(Self { unavailable: false }))
        }

        fn unavailable(&self) -> Option<String> {
            self.unavailable.then(|| "needs a somewhere".to_owned())
        }
    }

    async fn holds(_: &Stage) -> Result<(), Failed> {
        // A paused clock: this takes no time.
        sleep(Duration::from_secs(20)).await;
        Ok(())
    }

    async fn does_not_hold(_: &Stage) -> Result<(), Failed> {
        expect_eq("two and two", 2 + 2, 5)
    }

    async fn reaches_nothing(stage: &Stage) -> Result<(), Failed> {
        stage.broker().await.map(drop)
    }

    async fn panics(_: &Stage) -> Result<(), Failed> {
        std::panic::resume_unwind(Box::new("what it said"))
    }

    async fn hangs(_: &Stage) -> Result<(), Failed> {
        std::future::pending().await
    }

    async fn spins(_: &Stage) -> Result<(), Failed> {
        loop {
            tokio::task::yield_now().await;
        }
    }

    async fn needs_more(_: &Stage) -> Result<(), Failed> {
        Ok(())
    }

    crate::case::cases! { "example":
        holds,
        does_not_hold,
        reaches_nothing,
        panics,
        hangs,
        spins,
        needs_more [DeadLetter],
    }

    fn verdict(name: &str, unavailable: bool) -> Verdict {
        let harness: Arc<dyn Harness> = Arc::new(Nowhere { unavailable });
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        run_case(&harness, case)
    }

    fn reason(name: &str) -> String {
        match verdict(name, false) {
            Verdict::Failed(reason) => reason,
            other => panic!("{name}: {other}"),
        }
    }

    #[test]
    fn a_case_that_holds_passes() {
        assert_eq!(verdict("example::holds", false), Verdict::Passed);
    }

    #[test]
    fn a_failure_says_where_and_why() {
        let reason = reason("example::does_not_hold");
        assert!(reason.contains("run.rs:"), "{reason}");
        assert!(reason.contains("two and two: got 4, expected 5"), "{reason}");
        assert!(self::reason("example::reaches_nothing").contains("Connection"));
    }

    #[test]
    fn a_panic_is_a_failure_with_its_words() {
        assert_eq!(reason("example::panics"), "it panicked: what it said");
    }

    #[test]
    fn what_does_not_end_is_a_failure() {
        assert!(reason("example::hangs").contains("it hangs"));
        assert!(reason("example::spins").contains("it spins"));
    }

    #[test]
    fn what_does_not_apply_is_ignored_with_its_reason() {
        let ignored = Verdict::Ignored("needs dead-letter".to_owned());
        assert_eq!(verdict("example::needs_more", false), ignored);
    }

    #[test]
    fn without_a_broker_nothing_passes() {
        // `ENOKI_REQUIRE_BROKERS` may be set where this runs.
        match verdict("example::holds", true) {
            Verdict::Ignored(reason) | Verdict::Failed(reason) => {
                assert_eq!(reason, "needs a somewhere");
            }
            Verdict::Passed => panic!("passed without a broker"),
        }
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let names: BTreeSet<_> = cases::all().map(|case| case.name).collect();
        assert_eq!(names.len(), cases::all().count());
        assert!(names.len() >= 70);
        for group in [
            "connect", "topology", "publish", "consume", "settle", "headers", "codec", "errors",
            "service", "shutdown",
        ] {
            assert!(names.iter().any(|name| name.starts_with(&format!("{group}::"))), "{group}");
        }
        // A case that no transport could run would be worth nothing.
        assert!(cases::all().any(|case| case.needs.contains(&Need::Broken(Broken::Silent))));
    }
}
