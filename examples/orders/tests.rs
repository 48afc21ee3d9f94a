//! The service's own test, as its authors would write it: it says how each order has to end, and names
//! no broker. It runs in memory by default, and with `BROKER_URL` on any broker.

use enoki::Outcome::{self, Ack, Reject, Release, Requeue};

use crate::{
    ledger::{Event, Ledger},
    scenario,
};

#[tokio::test]
async fn every_order_ends_as_it_should() -> enoki::Result<()> {
    let broker = crate::connect().await?;
    let ledger = scenario::serve(&broker).await?;

    assert_eq!(attempts(&ledger, "soup"), [(1, Ack)]);
    assert_eq!(attempts(&ledger, "bread"), [(1, Requeue), (2, Requeue), (3, Ack)]);
    // Brokers differ in whether a release counts as an attempt.
    assert_eq!(outcomes(&ledger, "fish"), [Release, Ack]);
    assert_eq!(attempts(&ledger, "jelly"), [(1, Requeue), (2, Ack)]);

    assert_eq!(attempts(&ledger, "stone"), [(1, Reject)]);
    let tried = [(1, Requeue), (2, Requeue), (3, Requeue), (4, Requeue)];
    assert_eq!(attempts(&ledger, "cursed"), tried);
    assert_eq!(attempts(&ledger, "scribble"), []);
    for (dish, reason, queue) in [
        ("stone", "rejected", "orders.kitchen"),
        ("cursed", "delivery_limit", "orders.kitchen"),
        ("scribble", "rejected", "orders.kitchen"),
        ("leftovers", "expired", "orders.shelf"),
        ("tart", "maxlen", "orders.window"),
    ] {
        let lost = Event::Lost { reason: reason.to_owned(), queue: queue.to_owned() };
        assert_eq!(ledger.of(dish).last(), Some(&lost), "{dish}");
    }

    for (dish, how) in [
        ("wine", "unroutable"),
        ("cake", "confirmed"),
        ("tiramisu", "refused"),
        ("pie", "confirmed"),
    ] {
        assert_eq!(ledger.of(dish), [Event::Published(how.to_owned())], "{dish}");
    }

    // Finished while the service stopped, and not begun again.
    assert_eq!(attempts(&ledger, "roast"), [(1, Ack)]);
    assert_eq!(attempts(&ledger, "breakfast"), [(1, Ack)]);
    Ok(())
}

/// Each delivery of an order: which attempt it was, and how it was settled. Later deliveries are
/// marked as redelivered.
fn attempts(ledger: &Ledger, dish: &str) -> Vec<(u32, Outcome)> {
    let settled = |(at, (attempt, redelivered, outcome))| {
        assert_eq!(redelivered, at > 0, "delivery {at} of {dish}");
        (attempt, outcome)
    };
    deliveries(ledger, dish).into_iter().enumerate().map(settled).collect()
}

fn outcomes(ledger: &Ledger, dish: &str) -> Vec<Outcome> {
    deliveries(ledger, dish).into_iter().map(|(_, _, outcome)| outcome).collect()
}

fn deliveries(ledger: &Ledger, dish: &str) -> Vec<(u32, bool, Outcome)> {
    let settled = |event| match event {
        Event::Settled { attempt, redelivered, outcome } => Some((attempt, redelivered, outcome)),
        _ => None,
    };
    ledger.of(dish).into_iter().filter_map(settled).collect()
}
