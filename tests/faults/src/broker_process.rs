//! A real broker of the test's own, run by `dev/brokers`: to kill, freeze and alarm.
