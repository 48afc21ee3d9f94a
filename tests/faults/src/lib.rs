//! What breaks on purpose in the tests, and who notices: the equipment, written once.
//!
//! - [`proxy`]: a TCP relay that knows AMQP frames, between a program and a real broker.
//! - [`peer`]: a broker that follows a script, for what no real one would say.
//! - [`ledger`]: what became of every message, and whether that may be.
//! - [`seed`]: chance that can be replayed, and faults placed by message index.
//! - [`interposed`]: the same between the toolkit and any transport, the one in memory included.
//! - [`patience`]: the time that a test gives to what it is not about.
//! - [`broker_process`]: a real broker of the test's own, to kill, freeze and alarm.

pub mod broker_process;
pub mod interposed;
pub mod ledger;
pub mod patience;
pub mod peer;
pub mod proxy;
pub mod seed;
