//! Promises that the broker can be told to break.

/// A promise that the broker breaks when told to by
/// [`MemoryTransport::with_fault`](crate::MemoryTransport::with_fault).
///
/// Each is a mistake that some transport could make, so each must make a conformance suite fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A requeued message is gone, as if it had been acknowledged.
    RequeueIsAck,
    /// A rejected message is gone; nothing is dead-lettered.
    RejectIsAck,
    /// A released message counts as tried.
    ReleaseIsCounted,
    /// A message that no queue is bound for is confirmed.
    UnroutableIsConfirmed,
    /// A published message is stored, and never confirmed or refused.
    ConfirmsAreLost,
    /// A published message is confirmed, and not stored.
    MessagesAreLost,
    /// A receiver gets whatever there is.
    PrefetchIsIgnored,
    /// A message that is requeued for later comes back at once.
    DelayIsIgnored,
    /// No delivery is marked as redelivered, and each is the first attempt.
    RedeliveredIsLost,
    /// The newest message is delivered first.
    OrderIsReversed,
}

/// A set of faults.
#[derive(Debug, Default)]
pub(crate) struct Faults(u16);

impl Faults {
    pub(crate) fn set(&mut self, fault: Fault) {
        self.0 |= 1 << fault as u16;
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.0 & (1 << fault as u16) != 0
    }
}
