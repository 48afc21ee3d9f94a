//! What there is to break: a broker, and the way to it.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use enoki::{
    Broker,
    memory::MemoryTransport,
    message::ShortStr,
    transport::{Change, Purpose, Transport},
};
use enoki_faults::{
    broker_process::{BrokerProcess, Unavailable},
    interposed::{Between, Reach},
    proxy::{Act, Cut, Direction, Door, Flow, Kind, Proxy},
    seed::Seed,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    course::Course,
    fault::{self, Fault},
};

/// What went wrong, in words.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A broker, and the way to it.
pub(crate) enum Ground {
    Memory { memory: MemoryTransport, between: Between },
    Process { process: BrokerProcess, proxy: Proxy, url: String },
}

impl Ground {
    pub(crate) fn memory(memory: MemoryTransport) -> Self {
        let between = Between::new(Arc::new(memory.clone()));
        Self::Memory { memory, between }
    }

    /// Starts what is needed.
    pub(crate) async fn lay(course: Course, seed: Seed) -> Outcome<Self> {
        let (broker, scheme) = match course {
            Course::Memory => {
                return Ok(Self::memory(MemoryTransport::isolated()));
            }
            Course::Amqp091(broker) => (broker, "amqp091"),
            Course::Amqp10(broker) => (broker, "amqp10"),
        };
        let process = BrokerProcess::start(broker, "prove").await.map_err(|error| match error {
            Unavailable::NotHere(reason) => reason,
            Unavailable::Failed(error) => error.to_string(),
        })?;
        process.recover().await?;
        // A user of the run's own, whose login and permissions may change. It may be there from another.
        let _ = process.ctl(&["add_user", USER, PASSWORD]).await;
        process.ctl(&["change_password", USER, PASSWORD]).await?;
        process.ctl(PERMIT).await?;
        let url = process.url().replacen("amqp091", scheme, 1);
        let url = url.replacen("guest:guest", &format!("{USER}:{PASSWORD}"), 1);
        let authority = url.split(['@', '/']).nth(3).unwrap_or_default();
        let address: SocketAddr = authority.parse()?;
        let proxy = Proxy::seeded(address, seed.random("jitter").u64(..)).await?;
        // Seconds: what is silent is given up after twice as long.
        let url = format!("{}?heartbeat={HEARTBEAT}", proxy.url(&url));
        Ok(Self::Process { process, proxy, url })
    }

    /// What can happen here.
    pub(crate) fn faults(&self) -> &'static [Fault] {
        match self {
            Self::Memory { .. } => fault::IN_MEMORY,
            Self::Process { .. } => fault::OF_A_BROKER,
        }
    }

    /// About how long a fault lasts: in memory there is nothing to start or to wait for.
    pub(crate) fn fault_lasts(&self) -> Duration {
        match self {
            Self::Memory { .. } => Duration::from_millis(200),
            Self::Process { .. } => Duration::from_secs(4),
        }
    }

    /// Has the broker write down what was declared: a queue that it forgets because it is killed just
    /// afterwards breaks no promise that a client could keep.
    pub(crate) async fn write_down(&self) -> Outcome {
        match self {
            Self::Memory { .. } => Ok(()),
            Self::Process { process, .. } => Ok(process.write_metadata().await?),
        }
    }

    /// Ends what was started.
    pub(crate) async fn clear(&self) -> Outcome {
        match self {
            Self::Memory { .. } => Ok(()),
            Self::Process { process, .. } => Ok(process.stop().await?),
        }
    }

    /// Ends what a run on this course had started that was given up.
    pub(crate) async fn abandon(course: Course) {
        if let Course::Amqp091(broker) | Course::Amqp10(broker) = course
            && let Ok(process) = BrokerProcess::start(broker, "prove").await
        {
            let _ = process.stop().await;
        }
    }

    /// A handle on the broker, by way of what can be broken.
    pub(crate) async fn connect(&self) -> enoki::Result<Broker> {
        match self {
            Self::Memory { between, .. } => Broker::connect(Arc::new(between.clone())).await,
            Self::Process { url, .. } => enoki::connect(url).await,
        }
    }

    /// Breaks something and puts it right again, with what it leaves to chance drawn from `chance`.
    /// Calls `killed` when a broker has just died.
    pub(crate) async fn inject(
        &self,
        fault: Fault,
        chance: u64,
        doomed: &str,
        killed: impl FnOnce() + Send,
    ) -> Outcome {
        let mut random = fastrand::Rng::with_seed(chance);
        let a_while = Duration::from_millis(random.u64(200..2500));
        match self {
            Self::Memory { memory, between } => {
                in_memory(memory, between, fault, a_while, &mut random, doomed).await
            }
            Self::Process { process, proxy, .. } => {
                let harm = Harm { process, proxy, a_while };
                harm.inject(fault, &mut random, doomed, killed).await
            }
        }
    }
}

async fn in_memory(
    memory: &MemoryTransport,
    between: &Between,
    fault: Fault,
    a_while: Duration,
    random: &mut fastrand::Rng,
    doomed: &str,
) -> Outcome {
    const BOTH: &[Purpose] = &[Purpose::Publish, Purpose::Consume];
    // There is no network in here to wait for.
    let a_while = a_while / 10;
    match fault {
        Fault::ConnectionsClosed => memory.drop_connections(),
        Fault::ClosedInABurst => {
            for _ in 0..BURST {
                memory.drop_connections();
                sleep(BURST_PAUSE / 10).await;
            }
        }
        Fault::Severed => between.sever(BOTH).await,
        Fault::PublishingSevered => between.sever(&[Purpose::Publish]).await,
        Fault::ConsumingSevered => between.sever(&[Purpose::Consume]).await,
        Fault::SenderEnded => between.end_senders(),
        Fault::ReceiverEnded => between.end_receivers(),
        Fault::ReceiverCancelled => between.cancel_receivers(),
        Fault::OutcomesHeld => {
            between.hold_outcomes(true);
            sleep(a_while).await;
        }
        Fault::DeliveriesHeld => {
            between.hold_deliveries(true);
            sleep(a_while).await;
        }
        Fault::Latency => {
            between.delay(a_while / 20);
            sleep(a_while).await;
        }
        Fault::Refusing | Fault::Hanging => {
            let hanging = fault == Fault::Hanging;
            between.reach(if hanging { Reach::Hanging } else { Reach::Refused });
            between.sever(BOTH).await;
            sleep(a_while).await;
        }
        Fault::ConfirmLost | Fault::ConfirmsCutOff => {
            between.drop_outcomes(if fault == Fault::ConfirmLost { 1 } else { random.u64(2..300) });
            let _ = timeout(a_while, between.dropped()).await;
            between.sever(&[Purpose::Publish]).await;
        }
        Fault::AckLost => {
            between.drop_settlements(random.u64(1..4));
            let _ = timeout(a_while, between.dropped()).await;
            between.sever(&[Purpose::Consume]).await;
        }
        Fault::QueueDeleted => {
            let session =
                memory.connect(Purpose::Consume, Instant::now() + Duration::from_secs(1)).await?;
            session.apply(&Change::DeleteQueue(ShortStr::new(doomed)?)).await?;
        }
        other => return Err(format!("{other} cannot happen in memory").into()),
    }
    between.heal();
    Ok(())
}

/// A broker process and the proxy before it.
struct Harm<'g> {
    process: &'g BrokerProcess,
    proxy: &'g Proxy,
    a_while: Duration,
}

impl Harm<'_> {
    async fn inject(
        &self,
        fault: Fault,
        random: &mut fastrand::Rng,
        doomed: &str,
        killed: impl FnOnce() + Send,
    ) -> Outcome {
        let Self { process, proxy, a_while } = *self;
        match fault {
            Fault::BrokerKilled => {
                process.kill().await?;
                killed();
                process.restart().await?;
            }
            Fault::BrokerFrozen => {
                process.freeze().await?;
                // Now and then longer than it takes to notice.
                sleep(a_while * 3).await;
                process.thaw().await?;
            }
            Fault::BrokerRestarted => {
                process.ctl(&["stop_app"]).await?;
                process.ctl(&["start_app"]).await?;
            }
            Fault::ConnectionsClosed => process.close_connections().await?,
            Fault::ClosedInABurst => process.close_connections_often(BURST, BURST_PAUSE).await?,
            Fault::Alarm(alarm) => {
                process.alarm(alarm).await?;
                sleep(a_while).await;
                process.clear(alarm).await?;
            }
            Fault::PasswordChanged => {
                process.ctl(&["change_password", USER, "another"]).await?;
                proxy.cut(Cut::Reset);
                sleep(a_while).await;
                process.ctl(&["change_password", USER, PASSWORD]).await?;
            }
            Fault::PermissionsTaken => {
                process.ctl(&["clear_permissions", "-p", "enoki", USER]).await?;
                proxy.cut(Cut::Reset);
                sleep(a_while).await;
                process.ctl(PERMIT).await?;
            }
            Fault::QueueDeleted => {
                process.ctl(&["delete_queue", "-p", "enoki", doomed]).await?;
            }
            Fault::Reset => proxy.cut(Cut::Reset),
            Fault::Fin => proxy.cut(Cut::Fin),
            Fault::HalfClosed => {
                proxy.cut(Cut::Half(Direction::FromBroker));
                // A program that does not notice is cut off in the end.
                sleep(a_while).await;
                proxy.cut(Cut::Reset);
            }
            Fault::ResetInsideAFrame => {
                let act = Act::CutInside(Cut::Reset);
                self.frame(Direction::ToBroker, Kind::Publish, random.u64(1..50), act).await;
            }
            Fault::CutAfterBytes => {
                let direction =
                    if random.bool() { Direction::ToBroker } else { Direction::FromBroker };
                let cut = if random.bool() { Cut::Reset } else { Cut::Fin };
                let armed = proxy.cut_after(direction, random.u64(0..20_000), cut);
                let _ = timeout(PASSING, armed.fired()).await;
            }
            Fault::ConfirmLost => {
                self.frame(Direction::FromBroker, Kind::Confirm, random.u64(1..20), Act::Drop)
                    .await;
                proxy.cut(Cut::Reset);
            }
            Fault::ConfirmsCutOff => {
                let act = Act::HoldAnswers;
                self.frame(Direction::ToBroker, Kind::Publish, random.u64(1..50), act).await;
                sleep(a_while / 4).await;
                proxy.cut(Cut::Reset);
            }
            Fault::AckLost => {
                let act = Act::DropRest;
                self.frame(Direction::ToBroker, Kind::Settlement, random.u64(1..20), act).await;
                sleep(a_while / 4).await;
                proxy.cut(Cut::Reset);
            }
            Fault::BlackHoleToBroker => self.black_hole(&[Direction::ToBroker]).await,
            Fault::BlackHoleFromBroker => self.black_hole(&[Direction::FromBroker]).await,
            Fault::Partition => self.black_hole(&Direction::BOTH).await,
            Fault::Latency => {
                self.flow(Flow::delayed(Duration::from_millis(200), Duration::from_millis(100)));
                sleep(a_while).await;
            }
            Fault::Trickle => {
                self.flow(Flow::limited(20_000));
                sleep(a_while).await;
            }
            Fault::Refusing | Fault::Hanging => {
                let refusing = fault == Fault::Refusing;
                proxy.door(if refusing { Door::Refusing } else { Door::Hanging }).await;
                proxy.cut(Cut::Reset);
                sleep(a_while).await;
                // Who hangs would wait for its own deadline.
                proxy.cut(Cut::Reset);
            }
            other => return Err(format!("{other} cannot happen to a broker process").into()),
        }
        proxy.disarm();
        proxy.heal().await;
        Ok(())
    }

    /// Waits for a frame to come by; a run that is about to end may have none left.
    async fn frame(&self, direction: Direction, kind: Kind, nth: u64, act: Act) {
        let armed = self.proxy.arm(direction, kind, nth, act);
        let _ = timeout(PASSING, armed.fired()).await;
    }

    /// Long enough to be noticed, or not: both happen.
    async fn black_hole(&self, directions: &[Direction]) {
        for direction in directions {
            self.proxy.flow(*direction, Flow::held());
        }
        sleep(self.a_while * 3).await;
    }

    fn flow(&self, flow: Flow) {
        for direction in Direction::BOTH {
            self.proxy.flow(direction, flow);
        }
    }
}

/// How long to wait for something to pass by.
const PASSING: Duration = Duration::from_secs(2);

/// So often connections are closed in a burst, and so far apart: also while what was closed before is
/// being opened again.
const BURST: u32 = 20;
const BURST_PAUSE: Duration = Duration::from_millis(200);

/// The run's own user.
const USER: &str = "prove";
const PASSWORD: &str = "prove";
const PERMIT: &[&str] = &["set_permissions", "-p", "enoki", USER, ".*", ".*", ".*"];

/// Seconds.
const HEARTBEAT: u32 = 2;
