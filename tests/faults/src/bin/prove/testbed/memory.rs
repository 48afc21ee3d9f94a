//! Faults between the toolkit and the broker in memory.

use std::time::Duration;

use enoki::{
    memory::MemoryTransport,
    message::ShortStr,
    transport::{Change, Purpose, Transport},
};
use enoki_faults::interposed::{Between, Reach};
use tokio::time::{Instant, sleep, timeout};

use super::{BURST, BURST_PAUSE, Outcome};
use crate::fault::Fault;

/// Breaks something for a while, and puts it right again.
pub(super) async fn inject(
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
