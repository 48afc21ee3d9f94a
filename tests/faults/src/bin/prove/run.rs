//! One run: the work, the faults, and what came of both.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use enoki::{Broker, service::RunningService};
use enoki_faults::{
    ledger::Report,
    seed::{self, Placed, Seed},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    fault::Fault,
    load::{self, Probe, Queues, Shared},
    log,
    progress::Progress,
    recovery::Recoveries,
    target::Target,
    testbed::{Outcome, Testbed},
    timeline::{self, Mark, Meter, Sample},
};

/// What to do.
pub(crate) struct Task {
    pub(crate) target: Target,
    pub(crate) seed: Seed,
    pub(crate) messages: u64,
    pub(crate) faults: usize,
    pub(crate) only: Option<String>,
}

/// What came of it.
pub(crate) struct Run {
    pub(crate) target: Target,
    pub(crate) peer: String,
    pub(crate) took: Duration,
    pub(crate) samples: Vec<Sample>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) report: Report,
    /// What went wrong besides.
    pub(crate) errors: Vec<String>,
    /// Kilobytes of memory when it began and when it ended.
    pub(crate) memory: (u64, u64),
}

impl Run {
    /// What must not be, in words.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = self.errors.clone();
        failures.extend(self.report.failures());
        failures.extend(Recoveries::of(&self.marks).failure());
        failures
    }
}

pub(crate) async fn run(task: Task, progress: &Progress) -> Run {
    let testbed = Testbed::start(task.target, task.seed).await;
    run_on(testbed, task, progress).await
}

async fn run_on(testbed: Outcome<Testbed>, task: Task, progress: &Progress) -> Run {
    let mut run = Run {
        target: task.target,
        peer: String::new(),
        took: Duration::ZERO,
        samples: Vec::new(),
        marks: Vec::new(),
        report: Report::default(),
        errors: Vec::new(),
        memory: (memory(), 0),
    };
    let shared = Arc::new(Shared::new(task.target, Arc::new(Meter::default())));
    let began = Instant::now();
    let (sender, mut samples) = mpsc::unbounded_channel();
    let measuring = tokio::spawn(timeline::measure(shared.meter.clone(), began, sender));
    if let Err(error) = attempt(testbed, &task, &shared, began, progress, &mut run).await {
        run.errors.push(error.to_string());
    }
    measuring.abort();
    while let Ok(sample) = samples.try_recv() {
        run.samples.push(sample);
    }
    run.took = began.elapsed();
    run.report = shared.ledger.report();
    run.memory.1 = memory();
    run
}

async fn attempt(
    testbed: Outcome<Testbed>,
    task: &Task,
    shared: &Arc<Shared>,
    began: Instant,
    progress: &Progress,
    run: &mut Run,
) -> Outcome {
    let testbed = testbed?;
    let tasks = alive_tasks();
    let queues = Queues::of(task.target)?;
    let broker = testbed.connect().await?;
    run.peer = broker.peer().to_string();
    let watching = tokio::spawn(load::watch_losses(broker.health(), shared.clone()));
    let service = load::serve(&broker, &queues, shared).await?;
    testbed.write_down().await?;
    let kinds: Vec<Fault> = testbed
        .faults()
        .iter()
        .copied()
        .filter(|fault| task.only.as_ref().is_none_or(|only| fault.to_string().contains(only)))
        .collect();
    let plan = seed::plan(task.seed, &kinds, task.faults, task.messages);
    let (gate, opened) = watch::channel(0);
    let publishing = {
        let (broker, queues, shared) = (broker.clone(), queues.clone(), shared.clone());
        let (seed, messages) = (task.seed, task.messages);
        tokio::spawn(async move {
            load::publish(&broker, &queues, &shared, seed, messages, opened).await
        })
    };
    let mut driver = FaultDriver {
        publishing: &publishing,
        testbed: &testbed,
        broker: &broker,
        queues: &queues,
        shared,
        began,
        progress,
        probe: Probe::new(&broker, &queues).await?,
        service: Some(service),
        marks: &mut run.marks,
        errors: &mut run.errors,
    };
    driver.drive(&plan, task.messages, &gate).await;
    let service = driver.service.take();
    drop(driver);
    let ticking = async {
        loop {
            progress.handled(shared.meter.handled.load(Ordering::Relaxed));
            sleep(Duration::from_millis(200)).await;
        }
    };
    let finishing = async {
        publishing.await??;
        load::drain(shared, PATIENCE).await
    };
    let finished = tokio::select! {
        finished = finishing => finished,
        () = ticking => Ok(()),
    };
    watching.abort();
    let stopped = stop(service, &broker, &queues, shared).await;
    drop(broker);
    let left = nothing_is_left(tasks).await;
    finished.and(stopped).and(left).and(testbed.clear().await)
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Waits until there are no more tasks than before the run: whatever was opened again and again, and could
/// not be opened, has left nothing behind.
async fn nothing_is_left(tasks: usize) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while alive_tasks() > tasks {
        if Instant::now() > deadline {
            return Err(
                format!("{} tasks are left, and {tasks} were there before", alive_tasks()).into()
            );
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn stop(
    mut service: Option<RunningService>,
    broker: &Broker,
    queues: &Queues,
    shared: &Arc<Shared>,
) -> Outcome {
    let within = Duration::from_secs(10);
    for _ in 0..ROUNDS {
        if let Some(service) = service.take() {
            service.stop(within).await?;
        }
        if load::ready(broker, queues).await? == 0 {
            break;
        }
        // What came again when all was handled had not begun, and is handled now: the ledger says whether
        // there was a reason for it.
        service = Some(load::serve(broker, queues, shared).await?);
        let deadline = Instant::now() + PATIENCE;
        while load::ready(broker, queues).await? > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        load::drain(shared, PATIENCE).await?;
    }
    if let Some(service) = service {
        service.stop(within).await?;
    }
    load::clean_up(broker, queues).await?;
    timeout(PATIENCE, broker.close(within)).await.map_err(|_| "closing hangs")?;
    Ok(())
}

struct FaultDriver<'r> {
    publishing: &'r JoinHandle<Outcome>,
    testbed: &'r Testbed,
    broker: &'r Broker,
    queues: &'r Queues,
    shared: &'r Arc<Shared>,
    began: Instant,
    progress: &'r Progress,
    probe: Probe,
    service: Option<RunningService>,
    marks: &'r mut Vec<Mark>,
    errors: &'r mut Vec<String>,
}

impl FaultDriver<'_> {
    /// Has the faults happen at their messages. Meanwhile publishing goes on as far as the message of the
    /// next fault: slower the nearer it is, so that there is always something to publish while a fault
    /// lasts, and at full speed when messages get through again.
    async fn drive(&mut self, plan: &[Placed<Fault>], messages: u64, gate: &watch::Sender<u64>) {
        for (at, placed) in plan.iter().enumerate() {
            let from = placed.at.max(1);
            gate.send_replace(from);
            if let Err(error) = self.published(placed.at).await {
                self.errors.push(error.to_string());
                break;
            }
            let to = plan.get(at + 1).map_or(messages, |next| next.at.max(1));
            let lasts = self.testbed.fault_lasts();
            tokio::select! {
                () = self.happen(placed) => {}
                () = keep_busy(gate, from, to, lasts) => {}
            }
            if !self.errors.is_empty() {
                break;
            }
        }
        gate.send_replace(messages);
    }

    /// Waits until so many messages have been tried.
    async fn published(&self, messages: u64) -> Outcome {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let tried = self.shared.ledger.attempts();
            if tried >= messages {
                return Ok(());
            }
            if tried > last {
                (last, since) = (tried, Instant::now());
            }
            // What ended it is told when all has ended.
            if self.publishing.is_finished() {
                return Err(format!("publishing ended at message {tried}").into());
            }
            // A message waits for room no longer than until its deadline.
            if since.elapsed() > 2 * PATIENCE {
                return Err(format!("publishing stands still at message {tried}").into());
            }
            self.progress.handled(self.shared.meter.handled.load(Ordering::Relaxed));
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn happen(&mut self, placed: &Placed<Fault>) {
        let name = placed.fault.to_string();
        self.progress.says(name.clone());
        let from = self.began.elapsed();
        tracing::warn!(fault = name, at_message = placed.at, after = ?from, "FAULT begins");
        let fault = self.shared.ledger.broken(name.clone());
        let injected = match placed.fault {
            Fault::ConsumerCrashed => self.crash().await,
            Fault::Unreadable => self.unreadable().await,
            Fault::LogPanics => {
                self.log_panics().await;
                Ok(())
            }
            other => {
                let killed = || self.shared.ledger.killed(fault, FORGETS);
                self.testbed.inject(other, placed.chance, self.queues.doomed(), killed).await
            }
        };
        if let Err(error) = injected {
            self.errors.push(format!("{name}: {error}"));
        }
        let healed = Instant::now();
        let works = self.probe.gets_through(self.shared, healed + PATIENCE).await;
        let recovery = healed.elapsed();
        if works {
            self.shared.ledger.healed(fault);
        } else {
            self.errors.push(format!("after {name} nothing got through for {PATIENCE:?}"));
        }
        tracing::warn!(fault = name, after = ?self.began.elapsed(), ?recovery, "FAULT is over");
        self.progress.fault_over(&name, placed.at, works.then_some(recovery));
        self.marks.push(Mark { fault: placed.fault, from, to: self.began.elapsed(), recovery });
    }

    /// Ends the consumers in the middle of what they do, and starts them anew.
    async fn crash(&mut self) -> Outcome {
        if let Some(service) = self.service.take() {
            service.kill().await;
        }
        self.service = Some(load::serve(self.broker, self.queues, self.shared).await?);
        Ok(())
    }
}

impl FaultDriver<'_> {
    /// Publishes a message that the broker cannot convert, and removes it once its consumer has said so and its
    /// neighbours have gone on.
    async fn unreadable(&mut self) -> Outcome {
        let queue = &self.queues.unreadable;
        self.testbed.publish_unreadable(&queue.name).await?;
        let service = self.service.as_ref().ok_or("no service")?;
        load::is_unreadable(service, queue).await?;
        if !self.probe.gets_through(self.shared, Instant::now() + PATIENCE).await {
            return Err("one message holds up other queues".into());
        }
        load::purge(self.broker, queue).await?;
        Ok(())
    }

    /// Loses the connections while the log panics at what the toolkit says about it.
    async fn log_panics(&self) {
        log::panics(true);
        self.testbed.lose_connections();
        sleep(self.testbed.fault_lasts()).await;
        log::panics(false);
    }
}

/// Opens the gate little by little, and never quite: after each stretch that is about as long as a fault,
/// a third of what was left is left. Never ends.
async fn keep_busy(gate: &watch::Sender<u64>, from: u64, to: u64, stretch: Duration) {
    let began = Instant::now();
    loop {
        sleep(Duration::from_millis(5)).await;
        let left = (-began.elapsed().as_secs_f64() / stretch.as_secs_f64()).exp();
        let open = from + (to.saturating_sub(from) as f64 * (1.0 - left)) as u64;
        gate.send_if_modified(|now| {
            let opens = open > *now;
            *now = open.max(*now);
            opens
        });
    }
}

/// How often the service is started again for what it leaves at its stop.
const ROUNDS: u32 = 3;

/// Kilobytes of memory that this process has.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Acknowledgements of so long before its death a killed broker may have forgotten. A classic queue
/// writes them down every 200 milliseconds; this is ten times as long, for a machine under load.
const FORGETS: Duration = Duration::from_secs(2);

/// How long it may take until something goes on that should.
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use enoki::memory::{Fault as Broken, MemoryTransport};

    use super::*;

    /// A run without faults, on a broker in memory that may be broken.
    async fn on(broken: Option<Broken>) -> Vec<String> {
        let memory = match broken {
            Some(fault) => MemoryTransport::isolated().with_fault(fault),
            None => MemoryTransport::isolated(),
        };
        let testbed = Ok(Testbed::memory(memory));
        let task = Task {
            target: Target::Memory,
            seed: Seed::new(1),
            messages: 1000,
            faults: 0,
            only: None,
        };
        let progress = Progress::start(Target::Memory, 1000, 0);
        run_on(testbed, task, &progress).await.failures()
    }

    #[tokio::test(start_paused = true)]
    async fn a_sound_broker_is_found_sound() {
        assert_eq!(on(None).await, Vec::<String>::new());
    }

    /// Publishers that wait for the next fault's message would meet a fault idle.
    #[tokio::test(start_paused = true)]
    async fn there_is_something_to_publish_for_as_long_as_a_fault_lasts() {
        let (gate, opened) = watch::channel(1);
        let stretch = Duration::from_secs(4);
        for (lasts, expected) in [(2, 600..1000), (4, 1100..1400), (40, 1900..2000)] {
            let lasts = Duration::from_secs(lasts);
            assert!(timeout(lasts, keep_busy(&gate, 1, 2000, stretch)).await.is_err());
            let open = *opened.borrow();
            assert!(expected.contains(&open), "{open} after {lasts:?}");
        }
    }

    /// A run whose last fault deletes a queue may end before its consumer has declared it again.
    #[tokio::test(start_paused = true)]
    async fn a_queue_that_the_run_deleted_last_is_no_failure() {
        let task = Task {
            target: Target::Memory,
            seed: Seed::new(1001),
            messages: 200,
            faults: 3,
            only: Some("queue deleted".to_owned()),
        };
        let progress = Progress::start(Target::Memory, task.messages, task.faults);
        let testbed = Ok(Testbed::memory(MemoryTransport::isolated()));
        assert_eq!(run_on(testbed, task, &progress).await.failures(), Vec::<String>::new());
        // And however it comes about.
        let testbed = Testbed::memory(MemoryTransport::isolated());
        let broker = testbed.connect().await.unwrap();
        let queues = Queues::of(Target::Memory).unwrap();
        let error = load::clean_up(&broker, &queues).await.unwrap_err().to_string();
        assert!(error.contains("ordered"), "the others must be there: {error}");
        let shared = Arc::new(Shared::new(Target::Memory, Arc::new(Meter::default())));
        let service = load::serve(&broker, &queues, &shared).await.unwrap();
        service.stop(PATIENCE).await.unwrap();
        broker.delete_queue(&queues.doomed).await.unwrap();
        load::clean_up(&broker, &queues).await.unwrap();
    }

    /// On several threads, since it takes two to meet.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn consumers_that_crash_leave_nothing_behind_that_comes_late() {
        let task = Task {
            target: Target::Memory,
            seed: Seed::new(7),
            messages: 20_000,
            faults: 40,
            only: Some("consumer crashed".to_owned()),
        };
        let progress = Progress::start(Target::Memory, task.messages, task.faults);
        let testbed = Ok(Testbed::memory(MemoryTransport::isolated()));
        let run = run_on(testbed, task, &progress).await;
        // How soon it recovers is the machine's, too.
        assert_eq!([run.errors, run.report.failures()].concat(), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_breaks_its_word_is_found_out() {
        for (broken, complaint) in [
            (Broken::MessagesAreLost, "confirmed and lost"),
            (Broken::UnroutableIsConfirmed, "confirmed that could not be stored"),
            (Broken::RedeliveredIsLost, "delivered again for no reason"),
            (Broken::OrderIsReversed, "delivered out of order"),
        ] {
            let failures = on(Some(broken)).await;
            assert!(
                failures.iter().any(|failure| failure.contains(complaint)),
                "{broken:?}: {failures:?}"
            );
        }
    }
}
