//! Tables and lists, with everything in them.

use super::{MAX_DEPTH, MessageFault};
use crate::proto::decode::Cursor;

/// Whether lapin reads this table. Follows what is nested without recursion, and not too far.
pub(super) fn check(table: &[u8]) -> Result<(), MessageFault> {
    // Allocates nothing while nothing is nested.
    let mut around = Vec::new();
    let mut inner = Level { rest: Cursor::new(table), named: true };
    loop {
        while inner.rest.left() == 0 {
            let Some(outer) = around.pop() else { return Ok(()) };
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
            if around.len() + 1 == MAX_DEPTH {
                return Err(MessageFault::TooDeep);
            }
            around.push(inner);
            inner = Level { rest: Cursor::new(value), named: kind == b'F' };
        }
    }
}

/// Whether lapin takes this for a short string.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

/// What is left of a table, or of a list, whose values have no names.
struct Level<'a> {
    rest: Cursor<'a>,
    named: bool,
}
