//! Faults of a broker process, and of the network before it.

use std::time::Duration;

use enoki_faults::{
    broker_process::BrokerProcess,
    proxy::{Act, Cut, Direction, Door, Flow, Kind, Proxy},
};
use tokio::time::{sleep, timeout};

use super::{BURST, BURST_PAUSE, Outcome, PASSWORD, PERMIT, USER};
use crate::fault::Fault;

/// A broker process and the proxy before it.
pub(super) struct ProcessFaults<'g> {
    pub(super) process: &'g BrokerProcess,
    pub(super) proxy: &'g Proxy,
    pub(super) a_while: Duration,
}

impl ProcessFaults<'_> {
    /// Breaks something for a while, and puts it right again. Calls `killed` when the broker has just died.
    pub(super) async fn inject(
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
