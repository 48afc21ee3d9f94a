//! What has to hold when things break, on each transport and broker that it applies to.
//!
//! Each case names the faults it is about as the catalogue does: P for publishers, K for consumers,
//! R for networks and brokers. Cases that only harm their own connections use the brokers that
//! everybody uses, by way of a proxy; those that harm a broker use instances of `dev/brokers`:
//!
//! ```sh
//! dev/brokers start rabbitmq-4 rabbitmq-4@faults && eval "$(dev/brokers env)"
//! cargo test -p enoki-faults --test cases
//! ```

// What clippy lets tests do it does not see here, for want of an attribute.
#![allow(clippy::print_stdout)]

mod brokers;
mod child;
mod consumer;
mod equipment;
mod hostile;
mod network;
mod permissions;
mod publisher;
mod stage;
mod steps;

use std::{
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::time::timeout;

use self::hostile::Protocol;
use self::stage::{Checked, Harms, Place, Stage};

/// A sentence, and what checks it.
struct Case {
    name: &'static str,
    harms: Harms,
    run: fn(Stage) -> Running,
}

type Running = std::pin::Pin<Box<dyn Future<Output = Checked>>>;

/// Lists cases, so that the name of each is that of its function.
macro_rules! cases {
    ($harms:ident: $($group:ident::$case:ident),+ $(,)?) => {
        &[$(Case {
            name: concat!(stringify!($group), "::", stringify!($case)),
            harms: Harms::$harms,
            run: |stage| Box::pin($group::$case(stage)),
        }),+]
    };
}

/// Cases that harm nothing but their own connections.
const GENTLE: &[Case] = cases!(Connections:
    equipment::a_login_passes_the_proxy_and_is_understood,
    publisher::p01_a_lost_confirm_is_indeterminate_where_nothing_is_sent_again,
    publisher::p01_a_lost_confirm_is_sent_again_with_the_same_id,
    publisher::p08_a_confirm_that_never_comes_is_indeterminate_at_the_deadline,
    publisher::p19_one_byte_at_a_time_is_enough,
    publisher::p09_a_broker_that_is_down_is_told_at_once_or_waited_for,
    publisher::p10_a_publish_on_a_connection_that_died_unnoticed_arrives,
    publisher::p11_a_policy_of_two_retries_sends_three_times,
    publisher::p21_closing_leaves_no_message_without_a_word,
    consumer::k01_an_acknowledgement_after_the_connection_broke_is_stale,
    consumer::k02_a_requeue_after_the_connection_broke_is_stale,
    consumer::k03_a_lost_acknowledgement_is_a_redelivery,
    consumer::k04_a_process_that_dies_before_it_acknowledges_loses_nothing,
    consumer::k07_a_handler_that_never_returns_gives_its_message_back,
    consumer::k09_a_queue_that_is_missing_at_the_start_fails_it_by_name,
    consumer::k11_an_exclusive_queue_of_a_dead_connection_is_waited_for,
    consumer::k20_a_slow_consumer_holds_its_prefetch_and_its_connection,
    consumer::k20_a_slow_consumer_of_a_long_queue_stays_small,
    consumer::k21_a_handler_that_blocks_its_thread_keeps_its_connection,
    network::r01_a_reset_of_idle_connections_costs_nothing,
    network::r01_a_reset_inside_a_frame_costs_nothing,
    network::r01_a_reset_of_a_login_is_told_or_tried_again,
    network::r02_an_end_of_idle_connections_costs_nothing,
    network::r02_an_end_inside_a_frame_costs_nothing,
    network::r02_an_end_of_a_login_is_told_or_tried_again,
    network::r03_a_broker_that_hears_nothing_is_left_and_nothing_is_lost,
    network::r04_a_broker_that_falls_silent_is_left_and_nothing_is_lost,
    network::r08_a_partition_loses_nothing,
    network::r17_what_was_deleted_stays_away_and_what_was_exclusive_comes_back,
    network::r30_a_runtime_that_goes_away_takes_its_connections_along,
);

/// Cases that harm a broker.
const HARMFUL: &[Case] = cases!(TheBroker:
    equipment::a_broker_can_be_killed_frozen_and_alarmed_and_brought_back,
    brokers::p13_p15_a_memory_alarm_holds_publishers_and_no_consumer,
    brokers::p14_p15_a_disk_alarm_holds_publishers_and_no_consumer,
    brokers::p16_an_alarm_before_connecting_or_that_flaps_loses_nothing,
    brokers::r05_a_broker_that_freezes_is_left_and_found_again,
    brokers::r09_a_broker_that_restarts_loses_nothing,
    brokers::r10_p25_a_broker_that_is_killed_loses_nothing_that_was_confirmed,
    brokers::r28_a_connection_closed_by_an_administrator_says_so_and_comes_back,
    brokers::r28_a_limit_of_connections_that_is_reached_for_a_while_passes,
    brokers::r28_a_password_that_is_another_for_a_while_passes,
    brokers::r28_connections_that_are_closed_again_and_again_fail_nothing,
    brokers::r28_a_virtual_host_that_is_deleted_is_final,
    brokers::r28_a_user_who_is_deleted_is_denied_for_good,
    permissions::r28_what_a_user_may_not_publish_is_denied_for_good_and_disturbs_nothing_else,
);

/// Cases against a peer that follows a script.
struct Scripted {
    name: &'static str,
    run: fn(Protocol) -> Running,
}

macro_rules! scripted {
    ($($group:ident::$case:ident),+ $(,)?) => {
        &[$(Scripted {
            name: concat!(stringify!($group), "::", stringify!($case)),
            run: |protocol| Box::pin($group::$case(protocol)),
        }),+]
    };
}

const SCRIPTED: &[Scripted] = scripted!(
    hostile::r16_a_peer_that_falls_silent_is_given_up_at_the_deadline,
    hostile::t_s3_a_url_that_asks_for_tls_sends_nothing_in_the_clear,
    hostile::t_s8_what_no_broker_says_is_an_error_in_time_and_little_memory,
);

/// What panicked: nothing may, not even a task that no other waits for.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn panics() -> MutexGuard<'static, Vec<String>> {
    PANICS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn main() -> ExitCode {
    if let Some(code) = child::task() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    let mut trials = Vec::new();
    // Those that take turns come first, so that the others fill the time.
    for (cases, harms) in [(HARMFUL, Harms::TheBroker), (GENTLE, Harms::Connections)] {
        for place in Place::all() {
            if place.is_optional() && place.url(harms).is_err() {
                continue;
            }
            for case in cases {
                let name = format!("{place}::{}", case.name);
                let told = name.clone();
                let run = move || perform(place, case, &told);
                trials.push(Trial::ignorable_test(name, run));
            }
        }
    }
    // Beside those that wait for their turn; the others wait for brokers most of the time. More at a time
    // would only take the processor from each other.
    let waiting = HARMFUL.len() * Place::all().len();
    arguments.test_threads.get_or_insert(waiting + 8);
    for protocol in Protocol::ALL {
        for case in SCRIPTED {
            let name = format!("{}_scripted::{}", protocol.scheme(), case.name);
            trials.push(Trial::test(name, move || in_time(async { (case.run)(protocol).await })));
        }
    }
    std::panic::set_hook(Box::new(|panic| panics().push(panic.to_string())));
    let code = libtest_mimic::run(&arguments, trials).exit_code();
    for panic in &*panics() {
        println!("it panicked: {panic}");
    }
    // Seen from outside, a case would also take the time that it waits for its turn.
    for (name, time) in TOOK.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("took {:.2} s: {name}", time.as_secs_f64());
    }
    if panics().is_empty() { code } else { ExitCode::FAILURE }
}

/// How long each case took, without waiting for its turn; `dev/test` reads it.
static TOOK: Mutex<Vec<(String, Duration)>> = Mutex::new(Vec::new());

/// Runs a case and writes down how long it took.
fn timed(name: &str, case: impl Future<Output = Checked>) -> Result<Completion, Failed> {
    let began = Instant::now();
    let result = in_time(case);
    let mut took = TOOK.lock().unwrap_or_else(PoisonError::into_inner);
    took.push((name.to_owned(), began.elapsed()));
    result.map(|()| Completion::Completed)
}

fn perform(place: Place, case: &Case, name: &str) -> Result<Completion, Failed> {
    let url = match place.url(case.harms) {
        Ok(url) => url,
        Err(variable) if std::env::var_os("ENOKI_REQUIRE_BROKERS").is_some_and(|it| it == "1") => {
            return Err(format!("{variable} is not set, and brokers are required").into());
        }
        Err(variable) => return Ok(Completion::ignored_with(format!("needs {variable}"))),
    };
    if case.harms == Harms::Connections {
        let running = async { (case.run)(Stage::open(&url, None).await?).await };
        return timed(name, running);
    }
    let mut well = place.alone();
    let last = well.take();
    let running = async {
        let process = match last {
            Some(process) => process,
            None => place.process().await?,
        };
        (case.run)(Stage::open(&url, Some(process.clone())).await?).await?;
        // A case that fails may have left it in any state.
        *well = Some(process);
        Ok(())
    };
    timed(name, running)
}

/// Runs a case in a runtime of its own.
fn in_time(case: impl Future<Output = Checked>) -> Result<(), Failed> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failed::from(error.to_string()))?;
    let result = runtime
        .block_on(async { timeout(LONG, case).await.unwrap_or_else(|_| Err("it hangs".into())) });
    runtime.shutdown_timeout(Duration::from_secs(5));
    result.map_err(|error| Failed::from(error.to_string()))
}

/// A case that takes longer hangs.
const LONG: Duration = Duration::from_secs(1500);
