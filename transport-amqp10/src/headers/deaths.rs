//! The history of a dead letter. Pure.

use enoki_core::{ShortStr, Value};

/// The history of a dead letter, under the names that AMQP 0-9-1 gives to its parts.
pub(super) fn deaths(mut history: Value) -> Value {
    if let Value::List(deaths) = &mut history {
        for death in deaths {
            if let Value::Table(death) = death
                && let Some(time) = death.remove("first-time")
            {
                death.set(ShortStr::from_static("time"), time);
                death.remove("last-time");
            }
        }
    }
    history
}
