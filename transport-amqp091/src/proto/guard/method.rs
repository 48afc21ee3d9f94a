//! Whether lapin can read a method (§4.2.4) that the broker sends.

use std::ops::Range;

use super::table;
use crate::proto::{
    decode::Cursor,
    fault::FrameFault,
    methods::{
        BASIC_ACK, BASIC_CANCEL_OK, BASIC_DELIVER, BASIC_GET_OK, BASIC_NACK, BASIC_RETURN,
        CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CHANNEL_FLOW, CONNECTION_BLOCKED, CONNECTION_START,
        CONNECTION_TUNE, CONNECTION_UNBLOCKED, Method,
    },
};

/// A method that lapin can read.
#[derive(Debug)]
pub(super) struct CheckedMethod {
    pub(super) method: Method,
    /// Whether some text was not UTF-8.
    pub(super) repaired: bool,
    /// The largest frame that a `connection.tune` proposes, in bytes; `None` for no limit, and for other methods.
    pub(super) frame_max: Option<u32>,
}

/// Checks the payload of a method frame, and puts a `?` in place of each byte of a text that is not UTF-8.
pub(super) fn check(payload: &mut [u8]) -> Result<CheckedMethod, FrameFault> {
    let (method, frame_max, not_utf8) = read(payload)?;
    for text in &not_utf8 {
        repair(payload.get_mut(text.clone()).unwrap_or_default());
    }
    Ok(CheckedMethod { method, repaired: !not_utf8.is_empty(), frame_max })
}

/// The method, the largest frame that it proposes, and where its texts are that are not UTF-8.
type Read = (Method, Option<u32>, Vec<Range<usize>>);

fn read(payload: &[u8]) -> Result<Read, FrameFault> {
    let mut rest = Cursor::new(payload);
    let too_short = "a method frame that is too short";
    let method = (rest.short().ok_or(too_short)?, rest.short().ok_or(too_short)?);
    let (class, number) = method;
    let (_, arguments) = METHODS
        .iter()
        .find(|(known, _)| *known == method)
        .ok_or_else(|| format!("the method {class}.{number}, which no broker sends"))?;
    let malformed = || format!("a malformed method {class}.{number}");
    let mut not_utf8 = Vec::new();
    let mut frame_max = None;
    for kind in arguments.bytes() {
        match kind {
            b's' => {
                let text = rest.short_string().ok_or_else(malformed)?;
                if !table::is_text(text) {
                    let end = payload.len() - rest.left();
                    not_utf8.push(end - text.len()..end);
                }
            }
            b'F' => {
                let value = rest.value(kind).ok_or_else(malformed)?;
                table::check(value)
                    .map_err(|fault| format!("a method {class}.{number} with a table: {fault}"))?;
            }
            b'I' if method == CONNECTION_TUNE => {
                let max = rest.long().ok_or_else(malformed)?;
                frame_max = (max != 0).then_some(max);
            }
            kind => drop(rest.value(kind).ok_or_else(malformed)?),
        }
    }
    if rest.left() == 0 { Ok((method, frame_max, not_utf8)) } else { Err(malformed().into()) }
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

/// The methods that brokers send, and the types of their arguments: as in a table, except for `s`, a short string.
/// Bits that follow each other share a byte, `B`. The most frequent methods come first.
const METHODS: &[(Method, &str)] = &[
    (BASIC_DELIVER, "sTBss"),
    (BASIC_ACK, "TB"),
    (BASIC_NACK, "TB"),
    (BASIC_RETURN, "Usss"),
    ((60, 11), ""),   // basic.qos-ok
    ((60, 21), "s"),  // basic.consume-ok
    ((60, 30), "sB"), // basic.cancel
    (BASIC_CANCEL_OK, "s"),
    (BASIC_GET_OK, "TBssI"),
    ((60, 72), "s"), // basic.get-empty
    ((60, 111), ""), // basic.recover-ok
    (CONNECTION_START, "BBFSS"),
    ((10, 20), "S"), // connection.secure
    (CONNECTION_TUNE, "UIU"),
    ((10, 41), "s"),    // connection.open-ok
    ((10, 50), "UsUU"), // connection.close
    ((10, 51), ""),     // connection.close-ok
    (CONNECTION_BLOCKED, "s"),
    (CONNECTION_UNBLOCKED, ""),
    ((10, 71), ""),  // connection.update-secret-ok
    ((20, 11), "S"), // channel.open-ok
    (CHANNEL_FLOW, "B"),
    ((20, 21), "B"), // channel.flow-ok
    (CHANNEL_CLOSE, "UsUU"),
    (CHANNEL_CLOSE_OK, ""),
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
