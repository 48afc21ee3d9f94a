//! The methods that a broker sends.

use std::ops::Range;

use super::{FrameFault, table};
use crate::proto::decode::Cursor;

/// A method that lapin can read.
#[derive(Debug)]
pub(super) struct CheckedMethod {
    /// Class and method.
    pub(super) method: (u16, u16),
    /// Whether some text was not UTF-8.
    pub(super) repaired: bool,
    /// The largest frame that it proposes, where it does and there is to be one.
    pub(super) frame_max: Option<u32>,
}

/// Looks at the payload of a method frame, and puts a `?` in place of what is not UTF-8.
pub(super) fn check(payload: &mut [u8]) -> Result<CheckedMethod, FrameFault> {
    let (method, frame_max, broken) = walk(payload)?;
    for text in &broken {
        repair(payload.get_mut(text.clone()).unwrap_or_default());
    }
    Ok(CheckedMethod { method, repaired: !broken.is_empty(), frame_max })
}

type Walked = ((u16, u16), Option<u32>, Vec<Range<usize>>);

fn walk(payload: &[u8]) -> Result<Walked, FrameFault> {
    let mut rest = Cursor::new(payload);
    let too_short = "a method frame that is too short";
    let method = (rest.short().ok_or(too_short)?, rest.short().ok_or(too_short)?);
    let (class, number) = method;
    let (_, arguments) = METHODS
        .iter()
        .find(|(known, _)| *known == method)
        .ok_or_else(|| format!("the method {class}.{number}, which no broker sends"))?;
    let malformed = || format!("a malformed method {class}.{number}");
    let mut broken = Vec::new();
    let mut frame_max = None;
    for kind in arguments.bytes() {
        match kind {
            b's' => {
                let text = rest.short_string().ok_or_else(malformed)?;
                if !table::is_text(text) {
                    let end = payload.len() - rest.left();
                    broken.push(end - text.len()..end);
                }
            }
            b'F' => {
                let value = rest.value(kind).ok_or_else(malformed)?;
                table::check(value)
                    .map_err(|fault| format!("a method {class}.{number} with a table: {fault}"))?;
            }
            b'I' if method == TUNE => {
                let max = rest.long().ok_or_else(malformed)?;
                frame_max = (max != 0).then_some(max);
            }
            kind => drop(rest.value(kind).ok_or_else(malformed)?),
        }
    }
    if rest.left() == 0 { Ok((method, frame_max, broken)) } else { Err(malformed().into()) }
}

/// Puts a `?` in place of each byte that is not part of a character.
fn repair(text: &mut [u8]) {
    let mut from = 0;
    while let Some(rest) = text.get_mut(from..)
        && let Err(error) = std::str::from_utf8(rest)
    {
        from += error.valid_up_to() + 1;
        if let Some(byte) = rest.get_mut(error.valid_up_to()) {
            *byte = b'?';
        }
    }
}

pub(super) const TUNE: (u16, u16) = (10, 30);
pub(super) const BLOCKED: (u16, u16) = (10, 60);
pub(super) const UNBLOCKED: (u16, u16) = (10, 61);
pub(super) const FLOW: (u16, u16) = (20, 20);
pub(super) const CLOSE: (u16, u16) = (20, 40);
pub(super) const CLOSE_OK: (u16, u16) = (20, 41);
pub(super) const CANCEL_OK: (u16, u16) = (60, 31);
pub(super) const RETURN: (u16, u16) = (60, 50);
pub(super) const DELIVER: (u16, u16) = (60, 60);
pub(super) const GET_OK: (u16, u16) = (60, 71);
pub(super) const ACK: (u16, u16) = (60, 80);
pub(super) const NACK: (u16, u16) = (60, 120);

/// What brokers send, and the types of the arguments: as in a table, but for `s`, a short string. Bits
/// take a byte together. The most frequent come first.
const METHODS: &[((u16, u16), &str)] = &[
    (DELIVER, "sTBss"),
    (ACK, "TB"),
    (NACK, "TB"),
    (RETURN, "Usss"),
    ((60, 11), ""),   // basic.qos-ok
    ((60, 21), "s"),  // basic.consume-ok
    ((60, 30), "sB"), // basic.cancel
    (CANCEL_OK, "s"),
    (GET_OK, "TBssI"),
    ((60, 72), "s"),     // basic.get-empty
    ((60, 111), ""),     // basic.recover-ok
    ((10, 10), "BBFSS"), // connection.start
    ((10, 20), "S"),     // connection.secure
    (TUNE, "UIU"),
    ((10, 41), "s"),    // connection.open-ok
    ((10, 50), "UsUU"), // connection.close
    ((10, 51), ""),     // connection.close-ok
    (BLOCKED, "s"),
    (UNBLOCKED, ""),
    ((10, 71), ""),  // connection.update-secret-ok
    ((20, 11), "S"), // channel.open-ok
    (FLOW, "B"),
    ((20, 21), "B"), // channel.flow-ok
    (CLOSE, "UsUU"),
    (CLOSE_OK, ""),
    ((40, 11), ""),    // exchange.declare-ok
    ((40, 21), ""),    // exchange.delete-ok
    ((40, 31), ""),    // exchange.bind-ok
    ((40, 51), ""),    // exchange.unbind-ok
    ((50, 11), "sII"), // queue.declare-ok
    ((50, 21), ""),    // queue.bind-ok
    ((50, 31), "I"),   // queue.purge-ok
    ((50, 41), "I"),   // queue.delete-ok
    ((50, 51), ""),    // queue.unbind-ok
    ((85, 11), ""),    // confirm.select-ok
    ((90, 11), ""),    // tx.select-ok
    ((90, 21), ""),    // tx.commit-ok
    ((90, 31), ""),    // tx.rollback-ok
];
