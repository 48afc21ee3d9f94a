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

mod equipment;
mod publisher;
mod stage;

use std::{
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::time::timeout;

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
);

/// Cases that harm a broker.
const HARMFUL: &[Case] = cases!(TheBroker:
    equipment::a_broker_can_be_killed_frozen_and_alarmed_and_brought_back,
);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for place in Place::all() {
        for case in GENTLE.iter().chain(HARMFUL) {
            let name = format!("{place}::{}", case.name);
            trials.push(Trial::ignorable_test(name, move || perform(place, case)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn perform(place: Place, case: &Case) -> Result<Completion, Failed> {
    let url = match place.url(case.harms) {
        Ok(url) => url,
        Err(variable) if std::env::var_os("ENOKI_REQUIRE_BROKERS").is_some_and(|it| it == "1") => {
            return Err(format!("{variable} is not set, and brokers are required").into());
        }
        Err(variable) => return Ok(Completion::ignored_with(format!("needs {variable}"))),
    };
    // What one case does to a broker must not be another's business.
    static HARMED: Mutex<()> = Mutex::new(());
    let _alone = (case.harms == Harms::TheBroker)
        .then(|| HARMED.lock().unwrap_or_else(PoisonError::into_inner));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failed::from(error.to_string()))?;
    let result = runtime.block_on(async {
        let running = async {
            let stage = Stage::open(place, case.harms, &url).await?;
            (case.run)(stage).await
        };
        timeout(LONG, running).await.unwrap_or_else(|_| Err("it hangs".into()))
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    result.map(|()| Completion::Completed).map_err(|error| Failed::from(error.to_string()))
}

/// A case that takes longer hangs.
const LONG: Duration = Duration::from_secs(120);
