//! Encodings: how a body is written, and which content types a consumer reads.
//!
//! A publisher writes one encoding, JSON unless it is told otherwise. A consumer accepts those that it
//! names, by the content type of the message, and rejects the rest.
//!
//! ```
//! use enoki::{broker::BrokerOptions, codec::{Codecs, Json, Text}};
//!
//! let options = BrokerOptions::new().codecs(Codecs::only(Json).and(Text)); // writes JSON, reads both
//! # let _ = options;
//! ```

#[cfg(feature = "bincode")]
pub use enoki_core::Bincode;
#[cfg(feature = "compression")]
pub use enoki_core::Compression;
#[cfg(feature = "msgpack")]
pub use enoki_core::MessagePack;
#[cfg(feature = "postcard")]
pub use enoki_core::Postcard;
pub use enoki_core::{
    AnyJson, Codec, CodecError, Codecs, Encoded, Json, Payload, Raw, Text, Visit, erased_serde,
};
