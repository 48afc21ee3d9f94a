//! Messages and header values as AMQP 0-9-1 writes them, both directions.
//!
//! | here | out | in |
//! |---|---|---|
//! | `Null` | void | void |
//! | `Bool` | boolean | boolean |
//! | `Int` | 64-bit signed | every integer; unsigned 64-bit does not exist in RabbitMQ's dialect |
//! | `Float` | double | double, float, decimal (as the nearest double) |
//! | `Timestamp` | timestamp, seconds | timestamp, signed; beyond what AMQP 1.0 can carry it is none |
//! | `String` | long string | long string in UTF-8, short string |
//! | `Bytes` | byte array | byte array, long string that is not UTF-8 |
//! | `List`, `Table` | array, table | array, table |
//!
//! Numbers in a decimal and a timestamp are signed, as clients write them and RabbitMQ reads them, although the grammar
//! of AMQP 0-9-1 (§4.2.1) and lapin's types say unsigned. Published messages are written by `proto/encode.rs`, with the
//! same types. docs/crossing.md compares both protocols.

mod attempt;
pub(crate) mod incoming;
pub(crate) mod outgoing;
#[cfg(test)]
mod tests;
