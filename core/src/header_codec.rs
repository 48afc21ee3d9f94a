//! How a call's context travels in message headers.

use std::fmt;

use crate::{
    context::Context,
    error::Result,
    short_str::ShortStr,
    value::{Table, Value},
};

/// How a call's context travels in message headers: both directions in one object, so that they
/// cannot disagree.
pub trait HeaderCodec: fmt::Debug + Send + Sync + 'static {
    /// Adds the context to the headers. What it sets wins over what is there.
    fn encode(&self, context: &Context, headers: &mut Table) -> Result<()>;

    /// Reads the context out of the headers. What is not its own it leaves alone.
    fn decode(&self, headers: &Table) -> Context;
}

/// The context as headers under a prefix, `nameko.` by default: nameko's services read it, and are
/// read.
///
/// A value named `language` travels as `nameko.language`, the call ids as the list
/// `nameko.call_id_stack`. Headers without the prefix are not part of the context, so they do not
/// travel on.
///
/// ```
/// use enoki_core::{Context, HeaderCodec, PrefixCodec, Table};
///
/// let codec = PrefixCodec::default();
/// let mut context = Context::new();
/// context.set("language", "fi")?;
/// let mut headers = Table::new();
/// codec.encode(&context, &mut headers)?;
/// assert!(headers.contains("nameko.language"));
/// assert_eq!(codec.decode(&headers), context);
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PrefixCodec {
    prefix: String,
}

/// The name under which the call ids travel, without the prefix.
const CALL_IDS: &str = "call_id_stack";

impl Default for PrefixCodec {
    fn default() -> Self {
        Self { prefix: "nameko.".to_owned() }
    }
}

impl PrefixCodec {
    /// A codec with a prefix of your own, written without the dot.
    pub fn new(prefix: impl Into<ShortStr>) -> Self {
        Self { prefix: format!("{}.", prefix.into()) }
    }

    fn name(&self, name: &str) -> Result<ShortStr> {
        ShortStr::named("context header", format!("{}{name}", self.prefix))
    }
}

impl HeaderCodec for PrefixCodec {
    fn encode(&self, context: &Context, headers: &mut Table) -> Result<()> {
        for (name, value) in context.values().iter().filter(|(_, value)| **value != Value::Null) {
            headers.set(self.name(name)?, value.clone());
        }
        if !context.call_ids().is_empty() {
            let ids = context.call_ids().iter().map(|id| Value::from(id.as_str())).collect();
            headers.set(self.name(CALL_IDS)?, Value::List(ids));
        }
        Ok(())
    }

    fn decode(&self, headers: &Table) -> Context {
        let mut values = Table::new();
        let mut call_ids = Vec::new();
        for (name, value) in headers.iter() {
            match name.strip_prefix(&self.prefix) {
                None => {}
                Some(CALL_IDS) => {
                    let ids = value.as_list().unwrap_or_default().iter().filter_map(Value::as_str);
                    call_ids.extend(ids.map(str::to_owned));
                }
                // A part of a short string is one, too.
                Some(own) => drop(values.insert(own, value.clone())),
            }
        }
        Context::from_parts(values, call_ids)
    }
}
