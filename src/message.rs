//! A message as it travels: its [`Properties`], its headers (a [`Table`] of [`Value`]s), and the
//! [`Limits`] on what is published and read.

pub use enoki_core::{Limits, Message, Properties, ShortStr, Table, Timestamp, Value};
