//! Logins by certificate (SASL EXTERNAL, §5.3). Pure.
//!
//! fe2o3-amqp makes such logins only over its own TLS, and then sends no initial response, where RabbitMQ
//! waits for one, even an empty one. So fe2o3-amqp is offered an anonymous login, and on the wire its choice
//! becomes EXTERNAL.

use enoki_core::Value;

use super::{decode::Cursor, fault::Fault};

/// Whether a broker offers a login by certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It does, perhaps among others.
    External,
    /// It does not, but offers these.
    Others(String),
}

/// The offer in a frame, if the frame is one (`sasl-mechanisms`, §5.3.3.1).
pub(crate) fn offer(frame: &[u8]) -> Option<Offer> {
    let mechanisms = first_field(frame, MECHANISMS)?.ok()?;
    let names: Vec<_> = match &mechanisms {
        Value::List(names) => names.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    Some(if names.contains(&"EXTERNAL") {
        Offer::External
    } else {
        Offer::Others(names.join(", "))
    })
}

/// Whether fe2o3-amqp chooses its login in this frame (`sasl-init`, §5.3.3.2).
pub(crate) fn is_choice(frame: &[u8]) -> bool {
    first_field(frame, INIT).is_some()
}

/// The first field of a frame of the login, if it is the one with this code.
fn first_field(frame: &[u8], wanted: u64) -> Option<Result<Value, Fault>> {
    let (&[_, _, _, _, 2, 1, _, _], body) = frame.split_first_chunk::<8>()? else { return None };
    let mut cursor = Cursor::new(body);
    if cursor.descriptor().ok()? != wanted {
        return None;
    }
    let (_, mut fields) = cursor.list().ok()?;
    Some(fields.value())
}

/// The offer that fe2o3-amqp gets in place of the broker's.
pub(crate) const ANONYMOUS: &[u8] =
    b"\0\0\0\x19\x02\x01\0\0\0\x53\x40\xc0\x0c\x01\xa3\x09ANONYMOUS";

/// The choice that the broker gets in place of fe2o3-amqp's: the name of the mechanism and an empty initial
/// response, since the certificate says who logs in.
pub(crate) const EXTERNAL: &[u8] =
    b"\0\0\0\x1a\x02\x01\0\0\0\x53\x41\xc0\x0d\x02\xa3\x08EXTERNAL\xa0\0";

const MECHANISMS: u64 = 0x40;
const INIT: u64 = 0x41;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use fe2o3_amqp::frames::sasl::{Frame, FrameCodec};
    use tokio_util::codec::Decoder;

    use super::*;

    fn offering(field: &[u8]) -> Vec<u8> {
        let length = u32::try_from(field.len() + 14).unwrap();
        let list = [&[0, 0x53, 0x40, 0xc0, field.len() as u8 + 1, 1][..], field].concat();
        [&length.to_be_bytes()[..], &[2, 1, 0, 0], &list].concat()
    }

    #[test]
    fn an_offer_is_read_as_one_name_or_several() {
        let both = offering(b"\xe0\x11\x02\xa3\x05PLAIN\x08EXTERNAL");
        assert_eq!(offer(&both), Some(Offer::External));
        assert_eq!(offer(&offering(b"\xa3\x08EXTERNAL")), Some(Offer::External));
        let others = Offer::Others("PLAIN, AMQPLAIN".to_owned());
        assert_eq!(offer(&offering(b"\xe0\x11\x02\xa3\x05PLAIN\x08AMQPLAIN")), Some(others));
        assert_eq!(offer(EXTERNAL), None);
        assert_eq!(offer(b"\0\0\0\x08\x02\0\0\0"), None);
        assert!(is_choice(EXTERNAL) && !is_choice(&both) && !is_choice(b""));
    }

    #[test]
    fn what_takes_the_place_of_frames_are_frames() {
        for frame in [ANONYMOUS, EXTERNAL] {
            assert_eq!(frame.len(), usize::from(frame[3]));
            assert_eq!(super::super::guard::check(frame), Ok(()));
        }
        let read = |frame: &[u8]| FrameCodec {}.decode(&mut BytesMut::from(&frame[4..])).unwrap();
        assert!(matches!(read(ANONYMOUS), Some(Frame::Mechanisms(_))));
        let Some(Frame::Init(init)) = read(EXTERNAL) else { panic!("no init") };
        assert_eq!(init.mechanism.as_str(), "EXTERNAL");
        assert!(init.initial_response.is_some_and(|response| response.is_empty()));
    }
}
