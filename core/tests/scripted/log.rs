//! Hearing what is logged on one thread, while other tests run on others.

use std::sync::Once;

use tracing::{
    Event, Metadata, Subscriber,
    span::{Attributes, Id, Record},
    subscriber::{DefaultGuard, set_default, set_global_default},
};

/// Has this subscriber hear what is logged on this thread, until the guard is dropped.
///
/// Where there is only one subscriber, tracing asks the thread on which a line comes first whether the line
/// is wanted, and keeps the answer. With two tests at a time that may be the thread of the other one, which
/// has no subscriber and wants nothing. So there is another, for all threads, that wants every line.
pub(crate) fn hear(subscriber: impl Subscriber + Send + Sync) -> DefaultGuard {
    static WANTED: Once = Once::new();
    WANTED.call_once(|| set_global_default(Wants).expect("no other subscriber for all threads"));
    set_default(subscriber)
}

/// Wants every line, and does nothing with it.
struct Wants;

impl Subscriber for Wants {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
