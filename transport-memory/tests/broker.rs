//! What this broker does that a suite over several brokers does not ask: the order in which things
//! expire, the history of dead letters, circles, wake-ups, and what is left when something is
//! dropped.

mod broker {
    mod support;

    mod settling;
}
