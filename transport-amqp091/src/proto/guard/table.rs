//! Whether lapin can read a table, with all tables and lists inside it.

use crate::{
    limits::MAX_DEPTH,
    proto::{decode::Cursor, fault::MessageFault},
};

/// Checks a table. Follows nested tables and lists without recursion, and [`MAX_DEPTH`] levels deep at most.
pub(super) fn check(table: &[u8]) -> Result<(), MessageFault> {
    // Allocates nothing while nothing is nested.
    let mut outer_levels = Vec::new();
    let mut inner = Level { rest: Cursor::new(table), named: true };
    loop {
        while inner.rest.left() == 0 {
            let Some(outer) = outer_levels.pop() else { return Ok(()) };
            inner = outer;
        }
        if inner.named {
            let name = inner.rest.short_string().ok_or(MessageFault::Malformed)?;
            if !is_text(name) {
                return Err(MessageFault::NotUtf8);
            }
        }
        let kind = inner.rest.byte().ok_or(MessageFault::Malformed)?;
        let value = inner.rest.value(kind).ok_or(MessageFault::Malformed)?;
        if matches!(kind, b'A' | b'F') {
            if outer_levels.len() + 1 == MAX_DEPTH {
                return Err(MessageFault::TooDeep);
            }
            outer_levels.push(inner);
            inner = Level { rest: Cursor::new(value), named: kind == b'F' };
        }
    }
}

/// Whether lapin accepts these bytes as a short string.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

/// A table or list that is being read.
struct Level<'a> {
    /// What is left of it.
    rest: Cursor<'a>,
    /// Whether its values have names: those of a table do, those of a list do not.
    named: bool,
}
