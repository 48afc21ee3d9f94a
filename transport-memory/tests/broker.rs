//! What this broker does that a suite over several brokers does not ask: the order in which things
//! expire, the history of dead letters, circles, wake-ups, and what is left when something is
//! dropped.

// Helpers of tests are not tests to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod broker {
    mod support;

    mod dead_letters;
    mod expiry;
    mod faults;
    mod limits;
    mod model;
    mod routing;
    mod sessions;
    mod settling;
    mod topology;
    mod wakes;
}
