//! Every encoding: what is written can be read, and no bytes do harm.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::{collections::BTreeMap, fmt};

use enoki_core::{Codec, Codecs, Error, ErrorKind, Message, Result};
use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u32,
    note: Option<String>,
    dishes: Vec<Dish>,
    stock: BTreeMap<String, i64>,
    kind: Kind,
    ratio: f64,
    place: (u8, char),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Dish {
    name: String,
    vegan: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Usual,
    Rush(u64),
    Table { number: i8 },
}

/// A type that contains itself, in each of the ways that serde knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Only(Box<Tree>),
    Pair(Box<Tree>, Box<Tree>),
    Many(Vec<Tree>),
    Named { inner: Option<Box<Tree>>, map: BTreeMap<u8, Tree> },
}

/// One that takes a byte for each level.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Chain {
    next: Option<Box<Chain>>,
}

/// One without even a structure at each level.
#[cfg(any(feature = "postcard", feature = "bincode"))]
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Link(Option<Box<Link>>);

fn tree(depth: usize) -> Tree {
    (0..depth).fold(Tree::Leaf, |inner, level| match level % 4 {
        0 => Tree::Only(Box::new(inner)),
        1 => Tree::Many(vec![inner]),
        2 => Tree::Pair(Box::new(Tree::Leaf), Box::new(inner)),
        _ => Tree::Named { inner: None, map: BTreeMap::from([(1, inner)]) },
    })
}

fn orders() -> impl Strategy<Value = Order> {
    let kind = prop_oneof![
        Just(Kind::Usual),
        any::<u64>().prop_map(Kind::Rush),
        any::<i8>().prop_map(|number| Kind::Table { number }),
    ];
    let dish = (".{0,20}", any::<bool>()).prop_map(|(name, vegan)| Dish { name, vegan });
    let dishes = proptest::collection::vec(dish, 0..5);
    let stock = proptest::collection::btree_map(".{0,9}", any::<i64>(), 0..5);
    let note = proptest::option::of(".{0,50}");
    let ratio = -1e9..1e9;
    (any::<u32>(), note, dishes, stock, kind, ratio, (any::<u8>(), any::<char>())).prop_map(
        |(id, note, dishes, stock, kind, ratio, place)| Order {
            id,
            note,
            dishes,
            stock,
            kind,
            ratio,
            place,
        },
    )
}

fn written(codec: impl Codec, value: &dyn erased_serde::Serialize) -> Message {
    let encoded = Codecs::only(codec).encode(value).unwrap();
    let mut message = Message::new(encoded.body);
    message.properties.content_type = encoded.content_type;
    message
}

fn read<T: DeserializeOwned>(codec: impl Codec, body: impl Into<bytes::Bytes>) -> Result<T> {
    let mut message = Message::new(body);
    message.properties.content_type = Some(codec.content_type());
    Codecs::only(codec).decode(&message)
}

/// The error, which says this and nothing of the body.
fn refused<T: fmt::Debug>(read: Result<T>, part: &str) -> Error {
    let error = read.expect_err("it has to be refused");
    assert_eq!(error.kind(), ErrorKind::Codec, "{error}");
    assert!(error.to_string().contains(part), "{part:?} is missing in {error}");
    error
}

#[cfg(any(feature = "msgpack", feature = "postcard", feature = "bincode"))]
const TOO_DEEP: &str = "it is nested more than 128 levels deep";
#[cfg(any(feature = "postcard", feature = "bincode"))]
const TOO_MANY: &str = "it claims more elements than it has room for";

/// What holds for each encoding that carries structures.
macro_rules! holds {
    ($module:ident, $codec:ident, $content_type:literal) => {
        mod $module {
            use enoki_core::$codec;

            use super::*;

            #[test]
            fn its_name_is_on_what_it_writes_and_it_reads_what_has_its_name() {
                let mut message = written($codec, &7_u8);
                assert_eq!(message.properties.content_type.as_deref(), Some($content_type));
                assert_eq!(Codecs::only($codec).decode::<u8>(&message).unwrap(), 7);
                message.properties.content_type = Some("text/plain".try_into().unwrap());
                let error = refused(Codecs::only($codec).decode::<u8>(&message), "text/plain");
                assert!(
                    error.to_string().contains(concat!("accepted are ", $content_type)),
                    "{error}"
                );
            }

            #[test]
            fn a_value_may_be_nested_deep_and_not_deeper() {
                let message = written($codec, &tree(60));
                assert_eq!(Codecs::only($codec).decode::<Tree>(&message).unwrap(), tree(60));
                let deep = std::thread::Builder::new()
                    .stack_size(64 << 20)
                    .spawn(|| written($codec, &tree(1000)).body)
                    .unwrap()
                    .join()
                    .unwrap();
                refused(read::<Tree>($codec, deep), "");
            }

            #[test]
            fn what_ends_early_or_late_is_refused() {
                let order = Order {
                    id: 7,
                    note: Some("soon".to_owned()),
                    dishes: vec![Dish { name: "soup".to_owned(), vegan: true }],
                    stock: BTreeMap::from([("soup".to_owned(), 3)]),
                    kind: Kind::Table { number: -3 },
                    ratio: 0.5,
                    place: (1, 'ä'),
                };
                let whole = written($codec, &order).body;
                assert_eq!(read::<Order>($codec, whole.clone()).unwrap(), order);
                for length in 0..whole.len() {
                    refused(read::<Order>($codec, whole.slice(..length)), "");
                }
                for more in [0, 7, 0xc0, 0xff, b'x'] {
                    let longer = [&whole[..], &[more]].concat();
                    let error = refused(read::<Order>($codec, longer), "");
                    assert!(!error.to_string().contains("soup"), "{error}");
                }
            }

            #[test]
            fn no_error_has_a_word_of_the_body() {
                for body in [written($codec, &("s3cr3t", 1)), written($codec, &["s3cr3t"; 3])] {
                    for error in [
                        read::<u8>($codec, body.body.clone()).err(),
                        read::<Kind>($codec, body.body.clone()).err(),
                        read::<Order>($codec, body.body.clone()).err(),
                        read::<BTreeMap<u8, bool>>($codec, body.body.clone()).err(),
                        read::<char>($codec, body.body.clone()).err(),
                    ]
                    .into_iter()
                    .flatten()
                    {
                        let mut cause: Option<&dyn std::error::Error> = Some(&error);
                        while let Some(error) = cause {
                            let said = format!("{error} {error:?}");
                            assert!(!said.contains("s3cr3t") && !said.contains("115"), "{said}");
                            cause = error.source();
                        }
                    }
                }
            }

            proptest! {
                #[test]
                fn what_is_written_can_be_read(order in orders()) {
                    let body = written($codec, &order).body;
                    prop_assert_eq!(read::<Order>($codec, body).unwrap(), order);
                }
            }

            proptest! {
                // Each case reads many types.
                #![proptest_config(ProptestConfig::with_cases(64))]

                #[test]
                fn no_bytes_do_harm(body in proptest::collection::vec(any::<u8>(), 0..200)) {
                    let _ = read::<Order>($codec, body.clone());
                    let _ = read::<Tree>($codec, body.clone());
                    let _ = read::<Chain>($codec, body.clone());
                    let _ = read::<serde_json::Value>($codec, body.clone());
                    let _ = read::<serde::de::IgnoredAny>($codec, body.clone());
                    let _ = read::<Vec<()>>($codec, body.clone());
                    let _ = read::<BTreeMap<(), ()>>($codec, body.clone());
                    let _ = read::<Vec<String>>($codec, body.clone());
                    let _ = read::<(String, i128, f32)>($codec, body);
                }

                #[test]
                fn no_change_on_the_way_does_harm(
                    order in orders(),
                    at in any::<prop::sample::Index>(),
                    byte in any::<u8>(),
                ) {
                    let mut body = written($codec, &order).body.to_vec();
                    let at = at.index(body.len());
                    body[at] = byte;
                    let _ = read::<Order>($codec, body);
                }

                #[test]
                fn a_repeated_start_does_no_harm(
                    start in proptest::collection::vec(any::<u8>(), 1..8),
                ) {
                    let body = start.repeat(50_000 / start.len());
                    let _ = read::<Tree>($codec, body.clone());
                    let _ = read::<Chain>($codec, body.clone());
                    let _ = read::<serde_json::Value>($codec, body);
                }
            }
        }
    };
}

holds!(json, Json, "application/json");
#[cfg(feature = "msgpack")]
holds!(msgpack, MessagePack, "application/x-msgpack");
#[cfg(feature = "postcard")]
holds!(postcard, Postcard, "application/x-postcard");
#[cfg(feature = "bincode")]
holds!(bincode, Bincode, "application/x-bincode");

mod text {
    use enoki_core::Text;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Name(String);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Level {
        Low,
        High,
        Custom(u8),
    }

    fn travels<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: T, body: &str) {
        let message = written(Text, &value);
        assert_eq!(message.properties.content_type.as_deref(), Some("text/plain"));
        assert_eq!(message.body, body);
        assert_eq!(Codecs::only(Text).decode::<T>(&message).unwrap(), value);
    }

    #[test]
    fn what_is_one_piece_of_text_is_the_body() {
        travels("order 1".to_owned(), "order 1");
        travels(String::new(), "");
        travels("\"quoted\"\n\0ä".to_owned(), "\"quoted\"\n\0ä");
        travels('ä', "ä");
        travels(Name("x".to_owned()), "x");
        travels(Level::High, "High");
        travels(-7_i8, "-7");
        travels(u128::MAX, "340282366920938463463374607431768211455");
        travels(0.1_f64, "0.1");
        travels(f32::MIN_POSITIVE, &f32::MIN_POSITIVE.to_string());
        travels(true, "true");
    }

    #[test]
    fn what_is_more_than_that_is_the_publishers_error() {
        let order: &[&dyn erased_serde::Serialize] =
            &[&[1], &Some("x"), &(1, 2), &Level::Custom(1), &BTreeMap::from([(1, 2)]), &()];
        for value in order {
            let error = Codecs::only(Text).encode(value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Codec);
            assert!(error.to_string().starts_with("encode the body as text/plain: a text is"));
        }
    }

    #[test]
    fn what_is_no_such_text_is_refused_without_a_word_of_it() {
        refused(read::<String>(Text, &b"\xff"[..]), "a text is not UTF-8");
        for (error, part) in [
            (refused(read::<u8>(Text, "s3cr3t"), "expected u8"), "of another type"),
            (refused(read::<u8>(Text, "300987"), "expected u8"), "of another type"),
            (refused(read::<Level>(Text, "s3cr3t"), "`Low`"), "unknown variant"),
            (refused(read::<Level>(Text, "Custom"), ""), "of another type"),
            (refused(read::<Vec<u8>>(Text, "s3cr3t"), "sequence"), "of another type"),
            (refused(read::<char>(Text, "s3cr3t"), "character"), ""),
        ] {
            let said = error.to_string();
            assert!(said.contains(part) && !said.contains("s3cr3t"), "{said}");
            assert!(!said.contains("300987"), "{said}");
        }
    }

    proptest! {
        #[test]
        fn every_text_is_the_body_as_it_is(text in ".*") {
            let body = written(Text, &text).body;
            prop_assert_eq!(&body[..], text.as_bytes());
            prop_assert_eq!(read::<String>(Text, body).unwrap(), text);
        }

        #[test]
        fn no_bytes_do_harm(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read::<String>(Text, body.clone());
            let _ = read::<f64>(Text, body.clone());
            let _ = read::<Order>(Text, body);
        }
    }
}

#[cfg(feature = "msgpack")]
mod messagepack {
    use enoki_core::MessagePack;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Ticket {
        id: u32,
        note: Option<String>,
        dish: String,
        cents: Vec<i32>,
        kind: Kind,
        ratio: f64,
    }

    /// What kombu 5.2.4 writes for a dictionary of these values, byte for byte.
    const BY_KOMBU: &[u8] = b"\x86\xa2id\x07\xa4note\xc0\xa4dish\xa8s\xc3\xbcltf\xc5\x91\
        \xa5cents\x92\xcd\x03R\xfd\xa4kind\xa5Usual\xa5ratio\xcb?\xf8\x00\x00\x00\x00\x00\x00";

    #[test]
    fn a_structure_is_what_kombu_makes_of_a_dictionary() {
        let ticket = Ticket {
            id: 7,
            note: None,
            dish: "sültfő".to_owned(),
            cents: vec![850, -3],
            kind: Kind::Usual,
            ratio: 1.5,
        };
        assert_eq!(&written(MessagePack, &ticket).body[..], BY_KOMBU);
        assert_eq!(read::<Ticket>(MessagePack, BY_KOMBU).unwrap(), ticket);
    }

    #[test]
    fn a_structure_may_come_as_a_list_and_with_fields_that_are_new() {
        let dish = Dish { name: "soup".to_owned(), vegan: true };
        assert_eq!(read::<Dish>(MessagePack, &b"\x92\xa4soup\xc3"[..]).unwrap(), dish);
        let newer = &b"\x83\xa4name\xa4soup\xa3new\x91\x01\xa5vegan\xc3"[..];
        assert_eq!(read::<Dish>(MessagePack, newer).unwrap(), dish);
    }

    #[test]
    fn it_goes_by_several_names() {
        for name in ["application/msgpack", "application/vnd.msgpack", "Application/X-MsgPack"] {
            let mut message = written(MessagePack, &7);
            message.properties.content_type = Some(name.try_into().unwrap());
            assert_eq!(Codecs::only(MessagePack).decode::<u8>(&message).unwrap(), 7, "{name}");
        }
    }

    /// rmp-serde counts lists and maps, with a limit that fills a small stack, and not enums.
    #[test]
    fn bombs_of_nesting_are_refused_and_fill_no_stack() {
        for start in [&b"\x91"[..], b"\x81\xa1a", b"\xdc\x00\x01", b"\x81\xc0"] {
            let bomb = start.repeat(100_000);
            refused(read::<serde_json::Value>(MessagePack, bomb.clone()), "");
            refused(read::<serde::de::IgnoredAny>(MessagePack, bomb), TOO_DEEP);
        }
        let only = b"\x81\xa4Only".repeat(100_000);
        refused(read::<Tree>(MessagePack, only), TOO_DEEP);
        let many = b"\x81\xa4Many\x91".repeat(100_000);
        refused(read::<Tree>(MessagePack, many), TOO_DEEP);
        refused(read::<Chain>(MessagePack, b"\x81\xa4next".repeat(100_000)), TOO_DEEP);
        refused(read::<Chain>(MessagePack, b"\x91".repeat(100_000)), TOO_DEEP);
        let deepest = [&b"\x91".repeat(128)[..], b"\xc0"].concat();
        read::<serde_json::Value>(MessagePack, deepest).unwrap();
    }

    #[test]
    fn lengths_that_are_not_there_are_refused_and_allocate_nothing() {
        for body in [
            &b"\xc6\xff\xff\xff\xff"[..],
            b"\xdb\xff\xff\xff\xff",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\xc9\xff\xff\xff\xff\x01",
        ] {
            refused(read::<serde_json::Value>(MessagePack, body), "");
            refused(read::<Vec<u64>>(MessagePack, body), "");
            refused(read::<String>(MessagePack, body), "");
        }
        refused(read::<String>(MessagePack, &b"\xa9s3cr3t"[..]), "it ends too early");
        refused(read::<String>(MessagePack, &b"\xa1\xff"[..]), "a text is not UTF-8");
        refused(read::<u8>(MessagePack, &b"\x07\x07"[..]), "bytes follow the value");
        refused(read::<u8>(MessagePack, &b"\xa6s3cr3t"[..]), "another type");
    }
}

/// What holds for encodings that do not say what they hold.
#[cfg(any(feature = "postcard", feature = "bincode"))]
macro_rules! silent {
    ($module:ident, $codec:ident, $longest:expr) => {
        mod $module {
            use enoki_core::$codec;

            use super::*;

            /// The longest length there is.
            const LONGEST: &[u8] = $longest;

            #[test]
            fn bombs_of_nesting_are_refused_and_fill_no_stack() {
                refused(read::<Tree>($codec, b"\x01".repeat(100_000)), TOO_DEEP);
                refused(read::<Tree>($codec, b"\x03\x01".repeat(100_000)), TOO_DEEP);
                refused(read::<Tree>($codec, b"\x04\x01".repeat(100_000)), TOO_DEEP);
                refused(read::<Chain>($codec, b"\x01".repeat(100_000)), TOO_DEEP);
                refused(read::<Link>($codec, b"\x01".repeat(100_000)), TOO_DEEP);
            }

            /// A few bytes that keep a processor busy for minutes.
            #[test]
            fn bombs_of_elements_without_bytes_are_refused() {
                refused(read::<Vec<()>>($codec, LONGEST), TOO_MANY);
                refused(read::<BTreeMap<(), ()>>($codec, LONGEST), TOO_MANY);
                let many = [&[5][..], &LONGEST.repeat(5)].concat();
                refused(read::<Vec<Vec<()>>>($codec, many), TOO_MANY);
                refused(read::<((), Vec<((), ())>)>($codec, LONGEST), TOO_MANY);
                let some = vec![(); 60_000];
                let body = written($codec, &some).body;
                assert_eq!(read::<Vec<()>>($codec, body).unwrap(), some);
            }

            #[test]
            fn many_small_values_are_no_bomb() {
                let many = vec![vec![vec![1_u8]; 3]; 100_000];
                let body = written($codec, &many).body;
                assert_eq!(read::<Vec<Vec<Vec<u8>>>>($codec, body).unwrap(), many);
                let chains: Vec<_> = (0..200_000).map(|_| Chain { next: None }).collect();
                let body = written($codec, &chains).body;
                assert_eq!(read::<Vec<Chain>>($codec, body).unwrap(), chains);
            }

            #[test]
            fn lengths_that_are_not_there_are_refused_and_allocate_nothing() {
                refused(read::<String>($codec, LONGEST), "it ");
                refused(read::<Vec<u8>>($codec, LONGEST), "it ");
                refused(read::<Vec<[u64; 32]>>($codec, LONGEST), "it ");
                refused(read::<BTreeMap<u8, String>>($codec, LONGEST), "it ");
                refused(read::<String>($codec, &b"\x06s3cr3"[..]), "it ends too early");
                refused(read::<String>($codec, &b"\x01\xff"[..]), "a text is not UTF-8");
                refused(read::<u8>($codec, &b"\x07\x07"[..]), "bytes follow the value");
            }

            #[test]
            fn a_type_that_looks_before_it_reads_is_refused_with_the_reason() {
                let part = "an encoding that names what it holds";
                refused(read::<serde_json::Value>($codec, &b"\x01"[..]), part);
                refused(read::<serde::de::IgnoredAny>($codec, &b"\x01"[..]), part);
            }
        }
    };
}

#[cfg(feature = "postcard")]
silent!(postcards, Postcard, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
#[cfg(feature = "bincode")]
silent!(bincodes, Bincode, b"\xfd\xff\xff\xff\xff\xff\xff\xff\xff");

#[cfg(feature = "bincode")]
mod bincode_limit {
    use enoki_core::Bincode;

    use super::*;

    #[test]
    fn what_is_written_is_within_the_limit_for_reading() {
        let limit = 16 * 1024 * 1024;
        // A length and numbers of eight bytes each, in one byte each on the wire.
        let most = vec![1_u64; limit / 8 - 1];
        let body = written(Bincode, &most).body;
        assert_eq!(body.len(), 5 + most.len());
        assert_eq!(read::<Vec<u64>>(Bincode, body).unwrap(), most);
        let error = Codecs::only(Bincode).encode(&vec![1_u64; limit / 8]).unwrap_err();
        assert!(error.to_string().contains("more than 16777216 bytes"), "{error}");
        // Only other programs write this.
        let body = [&b"\xfc\x00\x00\x20\x00"[..], &vec![1; limit / 8]].concat();
        refused(read::<Vec<u64>>(Bincode, body), "it claims more bytes than it may have");
    }
}

#[cfg(feature = "compression")]
mod compression {
    use enoki_core::{
        Body, BrokerOptions, Compression, Failure, Json, Outcome, Raw, WorkQueue,
        testing::{Ended, EntrypointHook},
    };

    use super::*;

    const UPLOADS: WorkQueue<Raw> = WorkQueue::new("uploads");

    async fn keep(Body(upload): Body<Raw>) -> Result<(), Failure> {
        assert_eq!(upload, large());
        Ok(())
    }

    fn large() -> Raw {
        Raw::new("image/bmp", vec![7; 100_000]).unwrap()
    }

    #[tokio::test]
    async fn bytes_that_no_encoding_touches_are_compressed_and_become_what_they_were() {
        let codecs = Codecs::only(Json).compressed(Compression::new());
        let options = BrokerOptions::new().codecs(codecs);
        let hook = EntrypointHook::with(&UPLOADS, keep, (), options);
        let envelope = hook.envelope(&large()).unwrap();
        assert!(envelope.message.body.len() < 1000);
        let result = hook.deliver(envelope).await.unwrap();
        assert!(matches!(result.ended, Ended::Returned), "{result:?}");
    }

    #[tokio::test]
    async fn they_are_left_alone_where_nobody_asked_for_compression() {
        async fn keep(Body(upload): Body<Raw>) -> Outcome {
            assert_eq!(&upload.body[..], b"x");
            Outcome::Ack
        }
        let hook = EntrypointHook::new(&UPLOADS, keep, ());
        let mut envelope = hook.envelope(&Raw::new("image/bmp", "x").unwrap()).unwrap();
        let message = std::sync::Arc::make_mut(&mut envelope.message);
        message.headers.insert("compression", "application/x-gzip").unwrap();
        assert_eq!(hook.deliver(envelope).await.unwrap().outcome, Some(Outcome::Ack));
    }
}
