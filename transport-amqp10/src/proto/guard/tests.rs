use bytes::BytesMut;
use fe2o3_amqp::frames::{amqp::FrameDecoder, sasl::FrameCodec};
use proptest::{collection::vec, prelude::*, sample::Index};
use tokio_util::codec::Decoder;

use super::*;
use crate::proto::encode::Encoder;

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &[2, kind, 0, 0], body].concat()
}

fn list(count: u32, items: &[u8]) -> Vec<u8> {
    let size = u32::try_from(items.len() + 4).unwrap();
    [&[0xd0][..], &size.to_be_bytes(), &count.to_be_bytes(), items].concat()
}

fn described(code: u8, value: &[u8]) -> Vec<u8> {
    [&[0x00, 0x53, code], value].concat()
}

/// A begin whose properties are this value.
fn begin(value: &[u8]) -> Vec<u8> {
    let fields = [&[0x40, 0x43, 0x43, 0x43, 0x40, 0x40, 0x40][..], value].concat();
    frame(0, &described(0x11, &list(8, &fields)))
}

fn passes(frame: &[u8]) {
    assert_eq!(check(frame), Ok(()), "{frame:x?}");
}

fn refused(frame: &[u8], reason: &str) {
    let fault = check(frame).expect_err("it passed");
    assert!(fault.contains(reason), "{reason:?} is not in {fault:?}");
}

/// Reads a frame as fe2o3-amqp does. The result does not matter: it must not panic.
fn read(frame: &[u8]) {
    let mut bytes = BytesMut::from(&frame[4..]);
    if frame[5] == 1 {
        let _ = FrameCodec {}.decode(&mut bytes);
    } else {
        let _ = FrameDecoder {}.decode(&mut bytes);
    }
}

#[test]
fn frames_of_brokers_pass() {
    passes(b"AMQP\x00\x01\x00\x00");
    passes(b"\x00\x00\x00\x08\x02\x00\x00\x00");
    // RabbitMQ's offer of a login, and its answer.
    let offer = list(1, b"\xe0\x11\x02\xa3\x05PLAIN\x08EXTERNAL");
    passes(&frame(1, &described(0x40, &offer)));
    passes(&frame(1, &described(0x44, &list(1, &[0x50, 0]))));
    passes(&begin(&[0x40]));
    // A map with lists, arrays, described values and all widths.
    let mut encoder = Encoder::default();
    encoder.map(|encoder| {
        encoder.symbol("product");
        encoder.string("RabbitMQ");
        1
    });
    passes(&begin(&encoder.into_bytes()));
    let values = [
        &[0x41, 0x56, 1, 0x50, 1, 0x60, 0, 1, 0x70, 0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 1][..],
        &[0x94; 17],
        b"\xa0\x01\xff\xa1\x02\xc3\xa9\xb1\0\0\0\x01x\x45\xc0\x01\x00\xc1\x01\x00",
        b"\xe0\x02\x02\x40\xe0\x01\x00",
        b"\x00\xa3\x04name\xa1\x01x",
    ];
    passes(&begin(&list(16, &values.concat())));
    // In a transfer, the message is not checked.
    let fields = [0x43, 0x43, 0xa0, 1, 7, 0x43, 0x42];
    let transfer = [&described(0x14, &list(5, &fields))[..], &[0xff; 100]].concat();
    passes(&frame(0, &transfer));
}

#[test]
fn values_that_are_too_deep_or_too_many_are_refused() {
    let nested =
        |levels, wrap: fn(&[u8]) -> Vec<u8>| (0..levels).fold(vec![0x40], |inner, _| wrap(&inner));
    let lists: fn(&[u8]) -> Vec<u8> = |inner| list(1, inner);
    let maps: fn(&[u8]) -> Vec<u8> = |inner| {
        let mut map = list(2, &[b"\xa1\x01k", inner].concat());
        map[0] = 0xd1;
        map
    };
    let arrays: fn(&[u8]) -> Vec<u8> = |inner| {
        let mut array = list(1, inner);
        array[0] = 0xf0;
        array
    };
    for wrap in [lists, maps, arrays] {
        passes(&begin(&nested(MAX_DEPTH - 3, wrap)));
        refused(&begin(&nested(MAX_DEPTH, wrap)), "nested more than");
        refused(&begin(&nested(5000, wrap)), "nested more than");
    }
    // Lists behind descriptors: each is a level, too.
    let wrapped: fn(&[u8]) -> Vec<u8> = |inner| described(0x70, &list(1, inner));
    refused(&begin(&nested(MAX_DEPTH / 2, wrapped)), "nested more than");
    refused(&begin(&[0x00; 3000]), "description");
    refused(&begin(&described(1, &described(1, &[0x40]))), "a description of a description");
    // Nine bytes, a billion nulls.
    refused(&begin(b"\xf0\0\0\0\x05\x3b\x9a\xca\x00\x40"), "more than 100000 values");
}

/// fe2o3-amqp would go on in the middle of a value.
#[test]
fn a_frame_that_can_be_read_in_two_ways_is_refused() {
    refused(&begin(&list(1, &[0x40, 0x40])), "longer than its values");
    refused(&begin(&list(3, &[0x40, 0x40])), "bytes are missing");
    refused(&begin(b"\xc0\x00\x00"), "bytes are missing");
    refused(&begin(b"\xd0\x00\x00\x00\x03\x00\x00\x00"), "bytes are missing");
    refused(&begin(b"\xc1\x04\x03\x40\x40\x40"), "a key that has no value");
    refused(&begin(b"\xe0\x02\x00\xa3"), "longer than its values");
    refused(&begin(b"\xe0\x05\x01\x00\x53\x01\x40"), "unknown type 0x00");
    refused(&begin(b"\xa1\x01\xff"), "not UTF-8");
    refused(&begin(b"\x99"), "unknown type 0x99");
    refused(&frame(0, &described(0x11, &list(9, &[0x40; 9]))), "more than there are");
    refused(&frame(0, &described(0x99, &list(0, &[]))), "an unknown performative 0x99");
    refused(&frame(0, &described(0x11, &[0x40])), "no list");
    refused(
        &frame(0, &[&described(0x17, &[0x45])[..], &[0x40]].concat()),
        "behind its performative",
    );
    refused(&frame(0, &[0x45]), "a description is missing");
    refused(&frame(1, &[]), "bytes are missing");
    refused(&frame(2, &[0x45]), "unknown type");
    let closed = described(0x1d, &list(4, &[0x40; 4]));
    refused(&frame(0, &described(0x18, &list(1, &closed))), "more than there are");
    let mut extended = frame(0, &[0; 8]);
    extended[4] = 3;
    refused(&extended, "longer header");
}

#[test]
fn the_deepest_frame_that_passes_fits_a_stack_of_two_mib() {
    for (wrap, levels) in [(0xd0, MAX_DEPTH - 3), (0xf0, MAX_DEPTH - 3), (0, 30)] {
        let value = (0..levels).fold(vec![0x40], |inner, _| match wrap {
            0 => described(0x70, &list(1, &inner)),
            code => {
                let mut value = list(1, &inner);
                value[0] = code;
                value
            }
        });
        let mut map = list(2, &[b"\xa3\x01k", &value[..]].concat());
        map[0] = 0xd1;
        let deepest = begin(&map);
        passes(&deepest);
        let reading = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
        reading.spawn(move || read(&deepest)).unwrap().join().unwrap();
    }
}

/// `cargo test --release -p enoki-transport-amqp10 --lib guard -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, for release builds"]
fn what_a_frame_costs() {
    let fields = [0x52, 1, 0x52, 7, 0xa0, 4, 0, 0, 0, 7, 0x43, 0x42, 0x42];
    let transfer = frame(0, &[&described(0x14, &list(6, &fields))[..], &[0xff; 1024]].concat());
    let state = described(0x24, &[0x45]);
    let fields = [&[0x41, 0x52, 7, 0x52, 9, 0x41][..], &state].concat();
    let disposition = frame(0, &described(0x15, &list(5, &fields)));
    for (name, frame) in [("transfer", transfer), ("disposition", disposition)] {
        let began = std::time::Instant::now();
        for _ in 0..1_000_000 {
            check(std::hint::black_box(&frame)).unwrap();
        }
        println!("a {name}: {:?}", began.elapsed() / 1_000_000);
    }
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let fixed = |codes: &'static [u8], size: usize| {
        (prop::sample::select(codes), vec(any::<u8>(), size))
            .prop_map(|(code, bytes)| [&[code], &bytes[..]].concat())
    };
    let leaf = prop_oneof![
        4 => fixed(&[0x40, 0x41, 0x42, 0x43, 0x44, 0x45], 0),
        2 => fixed(&[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56], 1),
        1 => fixed(&[0x60, 0x61], 2),
        2 => fixed(&[0x70, 0x71, 0x72, 0x73, 0x74], 4),
        1 => fixed(&[0x80, 0x81, 0x82, 0x83, 0x84], 8),
        1 => fixed(&[0x94, 0x98], 16),
        4 => (prop::sample::select(&[0xa0_u8, 0xa1, 0xa3][..]), "[a-z]{0,5}")
            .prop_map(|(code, text)| [&[code, text.len() as u8], text.as_bytes()].concat()),
        1 => (prop::sample::select(&[0xb0_u8, 0xb1, 0xb3][..]), "[a-z]{0,5}")
            .prop_map(|(code, text)| {
                [&[code, 0, 0, 0, text.len() as u8], text.as_bytes()].concat()
            }),
    ];
    leaf.prop_recursive(4, 30, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| list(items.len() as u32, &items.concat())),
            vec(inner.clone(), 0..2).prop_map(|items| {
                let mut map = list(
                    2 * items.len() as u32,
                    &items
                        .iter()
                        .flat_map(|item| [b"\xa3\x01k", &item[..]].concat())
                        .collect::<Vec<_>>(),
                );
                map[0] = 0xd1;
                map
            }),
            (prop::sample::select(&[0x40_u8, 0x50, 0x70, 0xa3][..]), 0..4_u32).prop_map(
                |(code, count)| {
                    let element: &[u8] = match code {
                        0x40 => &[],
                        0x50 => &[7],
                        0x70 => &[0, 0, 0, 7],
                        _ => b"\x02ab",
                    };
                    let items = if count == 0 {
                        vec![]
                    } else {
                        [&[code][..], &element.repeat(count as usize)].concat()
                    };
                    let mut array = list(count, &items);
                    array[0] = 0xf0;
                    array
                }
            ),
            (0x1d..0x35_u8, inner.clone()).prop_map(|(code, value)| described(code, &value)),
            (0x1d..0x35_u8, vec(inner, 0..8)).prop_map(|(code, items)| described(
                code,
                &list(items.len() as u32, &items.concat())
            )),
        ]
    })
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), any::<Index>(), vec(value(), 0..12), vec(any::<u8>(), 0..20)).prop_map(
        |(login, which, fields, payload)| {
            let known = if login { SASL } else { PERFORMATIVES };
            let (code, most) = known[which.index(known.len())];
            let fields: Vec<_> = fields.into_iter().take(most).collect();
            let mut body = described(code as u8, &list(fields.len() as u32, &fields.concat()));
            if code == TRANSFER {
                body.extend(payload);
            }
            frame(login.into(), &body)
        },
    )
}

proptest! {
    /// fe2o3-amqp may refuse it with an error.
    #[test]
    fn fe2o3_amqp_reads_any_frame_that_passes_without_a_panic(
        frame in any_frame(),
        mutations in vec((any::<Index>(), any::<u8>()), 0..3),
    ) {
        let mut frame = frame;
        for (at, byte) in mutations {
            let at = 4 + at.index(frame.len() - 4);
            frame[at] = byte;
        }
        if check(&frame).is_ok() && frame.len() > 8 {
            read(&frame);
        }
    }

    #[test]
    fn any_bytes_are_checked_without_a_panic(bytes in vec(any::<u8>(), 0..100)) {
        let frame = frame(bytes.first().map_or(0, |byte| byte & 1), &bytes);
        if check(&frame).is_ok() && frame.len() > 8 {
            read(&frame);
        }
    }
}
