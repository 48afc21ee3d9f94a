//! Bodies of AMQP 1.0 that are no bytes there. Pure; trusts no length, and enters no value.

use bytes::Bytes;

/// What RabbitMQ calls the type of a message on AMQP 0-9-1 whose body it had to leave encoded as on AMQP 1.0.
pub const ENCODED_BODY: &str = "amqp-1.0";

/// Reads a body that another client of AMQP 1.0 published in a form of its own, from its sections as they are
/// encoded there (§3.2.6 to §3.2.8).
///
/// A value that is text or bytes is that text or these bytes, and a null is nothing. It is read the same on both
/// protocols, whichever the message came by. Of anything else, a number or a map, the error says what it is: there
/// is no body to decode.
///
/// ```
/// use enoki_core::transport::cross_protocol;
///
/// let section = b"\x00\x53\x77\xa1\x02hi"[..].into();
/// assert_eq!(cross_protocol::read_body(&section).as_deref(), Ok(&b"hi"[..]));
/// let number = b"\x00\x53\x77\x55\x2a"[..].into();
/// assert!(cross_protocol::read_body(&number).is_err_and(|reason| reason.contains("a number")));
/// ```
pub fn read_body(sections: &Bytes) -> Result<Bytes, String> {
    let mut rest = &**sections;
    let mut body: Option<Bytes> = None;
    while !rest.is_empty() {
        match descriptor(&mut rest)? {
            FOOTER if body.is_some() => break,
            VALUE if body.is_none() => body = Some(value(sections, &mut rest)?),
            DATA if body.is_none() => body = Some(data(sections, &mut rest)?),
            SEQUENCE => return Err(unfit("a sequence of values")),
            VALUE | DATA => return Err(unfit("in several parts")),
            _ => return Err("its body has an unknown section".to_owned()),
        }
    }
    Ok(body.unwrap_or_default())
}

/// The same for a message of AMQP 0-9-1 whose type is [`ENCODED_BODY`], if its body is encoded so: a program may use
/// that name for something else.
pub fn read_encoded(body: &Bytes) -> Option<Result<Bytes, String>> {
    matches!(**body, [] | [0x00, 0x53 | 0x80, ..]).then(|| read_body(body))
}

fn descriptor(rest: &mut &[u8]) -> Result<u64, String> {
    match take(rest, 2)? {
        [0x00, 0x53] => Ok(byte(rest)?.into()),
        [0x00, 0x80] => {
            Ok(take(rest, 8)?.iter().fold(0, |code, byte| code << 8 | u64::from(*byte)))
        }
        _ => Err("its body is no section of AMQP 1.0".to_owned()),
    }
}

fn value(sections: &Bytes, rest: &mut &[u8]) -> Result<Bytes, String> {
    let code = byte(rest)?;
    match code {
        0x40 => Ok(Bytes::new()),
        0xa0 | 0xb0 => variable(sections, rest, code),
        0xa1 | 0xb1 | 0xa3 | 0xb3 => {
            let text = variable(sections, rest, code)?;
            match std::str::from_utf8(&text) {
                Ok(_) => Ok(text),
                Err(_) => Err("its body is a text that is not UTF-8".to_owned()),
            }
        }
        other => Err(unfit(name(other))),
    }
}

fn data(sections: &Bytes, rest: &mut &[u8]) -> Result<Bytes, String> {
    match byte(rest)? {
        code @ (0xa0 | 0xb0) => variable(sections, rest, code),
        other => Err(unfit(name(other))),
    }
}

/// What has its length before it. Not copied.
fn variable(sections: &Bytes, rest: &mut &[u8], code: u8) -> Result<Bytes, String> {
    let length = match code & 0xf0 {
        0xa0 => byte(rest)?.into(),
        _ => take(rest, 4)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
    };
    Ok(sections.slice_ref(take(rest, length)?))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, after) = rest.split_at_checked(count).ok_or("its body lacks bytes")?;
    *rest = after;
    Ok(taken)
}

fn byte(rest: &mut &[u8]) -> Result<u8, String> {
    Ok(take(rest, 1)?.first().copied().unwrap_or_default())
}

fn unfit(what: &str) -> String {
    format!(
        "its body is {what} of AMQP 1.0, and only bytes and text are read; its publisher has to send \
         a data section, or text"
    )
}

/// What a type's code (§1.6) stands for.
fn name(code: u8) -> &'static str {
    match code {
        0x00 => "a described value",
        0x41 | 0x42 | 0x56 => "a boolean",
        0x43 | 0x44 | 0x50..=0x55 | 0x60 | 0x61 | 0x70 | 0x71 | 0x80 | 0x81 => "a number",
        0x72 | 0x82 | 0x74 | 0x84 | 0x94 => "a number with a fraction",
        0x73 => "a character",
        0x83 => "a timestamp",
        0x98 => "a UUID",
        0x45 | 0xc0 | 0xd0 => "a list",
        0xc1 | 0xd1 => "a map",
        0xe0 | 0xf0 => "an array",
        _ => "a value of an unknown type",
    }
}

const DATA: u64 = 0x75;
const SEQUENCE: u64 = 0x76;
const VALUE: u64 = 0x77;
const FOOTER: u64 = 0x78;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn read(bytes: &'static [u8]) -> Result<Bytes, String> {
        read_body(&Bytes::from_static(bytes))
    }

    #[test]
    fn text_and_bytes_are_what_they_are_and_a_null_is_nothing() {
        let long = [b"\x00\x53\x77\xb1\x00\x00\x01\x2c", &*b"x".repeat(300)].concat();
        assert_eq!(read_body(&long.into()).unwrap(), "x".repeat(300));
        for (section, body) in [
            (&b"\x00\x53\x77\xa1\x04text"[..], &b"text"[..]),
            (b"\x00\x53\x77\xa3\x03sym", b"sym"),
            (b"\x00\x80\0\0\0\0\0\0\0\x77\xa1\x02hi", b"hi"),
            (b"\x00\x53\x77\xa0\x02\xff\x00", b"\xff\x00"),
            (b"\x00\x53\x77\xb0\0\0\0\x01x", b"x"),
            (b"\x00\x53\x77\x40", b""),
            (b"", b""),
            (b"\x00\x53\x75\xa0\x01d", b"d"),
            (b"\x00\x53\x77\xa1\x01a\x00\x53\x78\xc1\x01\x00", b"a"),
        ] {
            assert_eq!(read(section).unwrap(), body, "{section:?}");
        }
    }

    #[test]
    fn what_is_neither_is_named() {
        for (section, what) in [
            (&b"\x00\x53\x77\x55\x2a"[..], "a number of AMQP 1.0"),
            (b"\x00\x53\x77\x41", "a boolean"),
            (b"\x00\x53\x77\xd1\0\0\0\x04\0\0\0\0", "a map"),
            (b"\x00\x53\x77\x45", "a list"),
            (b"\x00\x53\x77\x00\x53\x01\x40", "a described value"),
            (b"\x00\x53\x76\x45", "a sequence"),
            (b"\x00\x53\x76\x45\x00\x53\x76\x45", "a sequence"),
            (b"\x00\x53\x77\x40\x00\x53\x77\x40", "in several parts"),
            (b"\x00\x53\x77\xa1\x01\xff", "not UTF-8"),
            (b"\x00\x53\x77\xa1\x05text", "lacks bytes"),
            (b"\x00\x53\x77\xb1\xff\xff\xff\xfftext", "lacks bytes"),
            (b"\x00\x53\x77", "lacks bytes"),
            (b"\x00\x53\x70\x45", "unknown section"),
            (b"{\"a\":1}", "no section"),
        ] {
            let said = read(section).unwrap_err();
            assert!(said.contains(what), "{what:?} is missing in {said:?}");
        }
    }

    #[test]
    fn a_program_may_call_its_own_type_so() {
        assert_eq!(read_encoded(&Bytes::from_static(b"{\"a\":1}")), None);
        assert_eq!(read_encoded(&Bytes::new()), Some(Ok(Bytes::new())));
        let text = Bytes::from_static(b"\x00\x53\x77\xa1\x02hi");
        assert_eq!(read_encoded(&text), Some(Ok(Bytes::from_static(b"hi"))));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(
            noise in vec(any::<u8>(), 0..60),
            section in prop::sample::select(vec![0x75_u8, 0x76, 0x77, 0x78]),
        ) {
            let _ = read_body(&noise.clone().into());
            let _ = read_body(&[&[0, 0x53, section][..], &noise].concat().into());
        }
    }
}
