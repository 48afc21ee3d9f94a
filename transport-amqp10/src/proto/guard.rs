//! Which frames fe2o3-amqp may read. Pure. docs/design/12-guard.md has the reasons.
//!
//! fe2o3-amqp's decoder has three faults:
//!
//! - it follows nested values without a limit, on a stack of 2 MiB;
//! - of a list it trusts the number of values, and ignores the number of bytes. Where the two differ, it
//!   reads the rest of one value as the next value;
//! - it subtracts from sizes without a comparison, which panics or wraps.
//!
//! So a frame passes only if there is exactly one way to read it, from end to end, and no value is nested too
//! deep. The message in a transfer is not checked, since fe2o3-amqp does not read it.
//!
//! This is a parser of its own beside `decode.rs`, because it is stricter: the decoder takes what the message
//! of some client may have, such as a list with more fields than are known.

use super::fault::Fault;
use crate::limits::{MAX_DEPTH, MAX_VALUES};

type Check<T> = Result<T, Fault>;

/// Whether fe2o3-amqp may read a whole frame. A fault ends the connection.
pub(crate) fn check(frame: &[u8]) -> Check<()> {
    let Some(([_, _, _, _, offset, kind, _, _], body)) = frame.split_first_chunk::<8>() else {
        return Ok(());
    };
    if frame.starts_with(b"AMQP") {
        return Ok(());
    }
    if *offset != 2 {
        return Err("a frame with a longer header than any that is known".into());
    }
    let most = match kind {
        // A heartbeat.
        0 if body.is_empty() => return Ok(()),
        0 => PERFORMATIVES,
        1 => SASL,
        _ => return Err("a frame of unknown type".into()),
    };
    let mut walk = Walk { rest: body, values: MAX_VALUES };
    let code = walk.performative(most)?;
    if code != TRANSFER && !walk.rest.is_empty() {
        return Err("a frame with something behind its performative".into());
    }
    Ok(())
}

/// The part of a frame that is not checked yet.
struct Walk<'a> {
    rest: &'a [u8],
    /// How many more values there may be: an array of a billion nulls fits in nine bytes.
    values: u32,
}

impl<'a> Walk<'a> {
    fn take(&mut self, count: usize) -> Check<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("bytes are missing")?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Check<u8> {
        match self.take(1)? {
            [byte] => Ok(*byte),
            _ => Err("bytes are missing".into()),
        }
    }

    fn length(&mut self, wide: bool) -> Check<usize> {
        if !wide {
            return self.byte().map(usize::from);
        }
        let bytes = self.take(4)?.try_into().map_err(|_| "bytes are missing")?;
        usize::try_from(u32::from_be_bytes(bytes)).map_err(|_| "too long".into())
    }

    /// Checks a described list with one of these codes, and returns the code.
    fn performative(&mut self, known: &[(u64, usize)]) -> Check<u64> {
        if self.byte()? != DESCRIBED {
            return Err("a description is missing".into());
        }
        let code = self.descriptor()?.ok_or("a performative that is not named by a number")?;
        let (_, most) = known
            .iter()
            .find(|(known, _)| *known == code)
            .ok_or_else(|| format!("an unknown performative {code:#04x}"))?;
        let list = self.byte()?;
        if !matches!(list, 0x45 | 0xc0 | 0xd0) {
            return Err("a performative that is no list".into());
        }
        self.of(list, Some(*most), 1)?;
        Ok(code)
    }

    /// Checks a descriptor, and returns its number if it is one.
    fn descriptor(&mut self) -> Check<Option<u64>> {
        Ok(match self.byte()? {
            0x44 => Some(0),
            0x53 => Some(self.byte()?.into()),
            0x80 => {
                let bytes = self.take(8)?.try_into().map_err(|_| "bytes are missing")?;
                Some(u64::from_be_bytes(bytes))
            }
            code @ (0xa3 | 0xb3) => {
                self.of(code, None, 0)?;
                None
            }
            other => return Err(format!("a description of type {other:#04x}").into()),
        })
    }

    fn value(&mut self, depth: usize) -> Check<()> {
        match self.byte()? {
            DESCRIBED => {
                let code = self.descriptor()?;
                let known = COMPOSITES.iter().find(|(known, _)| Some(*known) == code);
                match self.byte()? {
                    DESCRIBED => Err("a description of a description".into()),
                    code => self.of(code, known.map(|(_, most)| *most), depth + 1),
                }
            }
            code => self.of(code, None, depth),
        }
    }

    /// Checks a value of this type, whose code was read. If it is a list it has `most` values at most.
    fn of(&mut self, code: u8, most: Option<usize>, depth: usize) -> Check<()> {
        if depth > MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} levels deep").into());
        }
        self.values =
            self.values.checked_sub(1).ok_or_else(|| format!("more than {MAX_VALUES} values"))?;
        let wide = code & 0x10 != 0;
        match code {
            0x40..=0x45 => {}
            0x50..=0x56 => drop(self.take(1)?),
            0x60 | 0x61 => drop(self.take(2)?),
            0x70..=0x74 => drop(self.take(4)?),
            0x80..=0x84 => drop(self.take(8)?),
            0x94 | 0x98 => drop(self.take(16)?),
            0xa0 | 0xb0 => {
                let length = self.length(wide)?;
                self.take(length)?;
            }
            0xa1 | 0xa3 | 0xb1 | 0xb3 => {
                let length = self.length(wide)?;
                std::str::from_utf8(self.take(length)?).map_err(|_| "a text that is not UTF-8")?;
            }
            0xc0 | 0xd0 | 0xc1 | 0xd1 => {
                let (count, mut items) = self.compound(wide)?;
                if code & 1 == 1 && count % 2 == 1 {
                    return Err("a map with a key that has no value".into());
                }
                if most.is_some_and(|most| count > most) {
                    return Err(format!("a list of {count} fields, more than there are").into());
                }
                for _ in 0..count {
                    items.value(depth + 1)?;
                }
                self.after(&items)?;
            }
            0xe0 | 0xf0 => {
                let (count, mut items) = self.compound(wide)?;
                if count > 0 {
                    let code = items.byte()?;
                    for _ in 0..count {
                        items.of(code, None, depth + 1)?;
                    }
                }
                self.after(&items)?;
            }
            other => return Err(format!("a value of unknown type {other:#04x}").into()),
        }
        Ok(())
    }

    /// How many values a list, map or array has, and their bytes.
    fn compound(&mut self, wide: bool) -> Check<(usize, Self)> {
        let size = self.length(wide)?;
        let mut items = Self { rest: self.take(size)?, values: self.values };
        Ok((items.length(wide)?, items))
    }

    /// Goes on behind a list, map or array, all of whose bytes must have been read.
    fn after(&mut self, items: &Self) -> Check<()> {
        self.values = items.values;
        if items.rest.is_empty() { Ok(()) } else { Err("a list longer than its values".into()) }
    }
}

/// The first byte of a described value (§1.2). In an array it would describe all elements; no frame has such
/// an array.
const DESCRIBED: u8 = 0x00;

const TRANSFER: u64 = 0x14;

/// The performatives (§2.7), and how many fields they have at most. fe2o3-amqp would read a further field as
/// the next value.
const PERFORMATIVES: &[(u64, usize)] = &[
    (TRANSFER, 11),
    (0x15, 6),  // disposition
    (0x13, 11), // flow
    (0x10, 10), // open
    (0x11, 8),  // begin
    (0x12, 14), // attach
    (0x16, 3),  // detach
    (0x17, 1),  // end
    (0x18, 1),  // close
];

/// The performatives of a login (§5.3.3).
const SASL: &[(u64, usize)] = &[
    (0x40, 1), // mechanisms
    (0x41, 3), // init
    (0x42, 1), // challenge
    (0x43, 1), // response
    (0x44, 2), // outcome
];

/// The described lists that fields of performatives may be: errors, delivery states (§3.4), sources and
/// targets (§3.5), transactions (§4.5).
const COMPOSITES: &[(u64, usize)] = &[
    (0x1d, 3),  // error
    (0x23, 2),  // received
    (0x24, 0),  // accepted
    (0x25, 1),  // rejected
    (0x26, 0),  // released
    (0x27, 3),  // modified
    (0x28, 11), // source
    (0x29, 7),  // target
    (0x30, 1),  // coordinator
    (0x33, 1),  // declared
    (0x34, 2),  // transactional state
];

#[cfg(test)]
mod tests;
