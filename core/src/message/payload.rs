//! What can be the body of a message: any type that serde knows, or bytes as they are.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    message::Message,
    message::codec::{Codecs, Encoded},
};

/// A type of message: any type that serde can write and read, or [`Raw`].
///
/// Which encoding it gets is the business of the [`Codecs`] of the publisher and the consumer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a message",
    label = "not a message type",
    note = "derive serde's `Serialize` and `Deserialize` for it, or use `Raw` for bytes as they are"
)]
pub trait Payload: Send + Sync + Sized + 'static {
    /// Writes the body.
    fn encode(&self, codecs: &Codecs) -> Result<Encoded>;

    /// Reads the body of a delivery.
    fn decode(message: &Message, codecs: &Codecs) -> Result<Self>;
}

// Without it the compiler says six times what serde wants, and not once what to do.
#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Payload for T {
    fn encode(&self, codecs: &Codecs) -> Result<Encoded> {
        codecs.encode(self)
    }

    fn decode(message: &Message, codecs: &Codecs) -> Result<Self> {
        codecs.decode(message)
    }
}

/// A body as it is: no codec writes or reads it, and every content type is accepted.
///
/// ```
/// use enoki_core::{Raw, WorkQueue};
///
/// const UPLOADS: WorkQueue<Raw> = WorkQueue::new("uploads");
/// let upload = Raw::new("image/png", vec![0x89, b'P', b'N', b'G'])?;
/// assert_eq!(upload.body.len(), 4);
/// # let _ = UPLOADS;
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// The bytes.
    pub body: Bytes,
    /// Their media type, if it is known.
    pub content_type: Option<crate::ShortStr>,
}

impl Raw {
    /// Bytes of this media type.
    pub fn new(
        content_type: impl TryInto<crate::ShortStr, Error: Into<Error>>,
        body: impl Into<Bytes>,
    ) -> Result<Self> {
        Ok(Self {
            body: body.into(),
            content_type: Some(content_type.try_into().map_err(Into::into)?),
        })
    }
}

impl From<Bytes> for Raw {
    fn from(body: Bytes) -> Self {
        Self { body, content_type: None }
    }
}

impl Payload for Raw {
    fn encode(&self, _: &Codecs) -> Result<Encoded> {
        Ok(Encoded { body: self.body.clone(), content_type: self.content_type.clone() })
    }

    fn decode(message: &Message, _: &Codecs) -> Result<Self> {
        Ok(Self {
            body: message.body.clone(),
            content_type: message.properties.content_type.clone(),
        })
    }
}
