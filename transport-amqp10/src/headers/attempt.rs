//! How often a message was delivered. Pure.

use enoki_core::{Attempt, Counted};

use crate::peer::Dialect;

/// Which attempt this is.
///
/// `failures` is the delivery-count of the header (§3.2.1): the attempts that failed, on brokers that count
/// on every queue. `earlier` is the annotation `x-delivery-count`, which RabbitMQ before 4.3 writes on quorum
/// queues only: the number that it compares with the delivery limit, which is how often the message came
/// back.
pub(super) fn attempt(
    earlier: Option<i64>,
    failures: i64,
    redelivered: bool,
    dialect: Dialect,
) -> Attempt {
    if earlier.is_none() && !dialect.counts {
        return Attempt::from_flag(redelivered);
    }
    let earlier = earlier.unwrap_or(0).max(failures).max(0);
    let number = u32::try_from(earlier).unwrap_or(u32::MAX).saturating_add(1);
    Attempt { number, counted: Counted::ByBroker }
}
