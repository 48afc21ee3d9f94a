//! The context of a call: what travels with it from service to service.

use std::{cell::OnceCell, future::Future, sync::Arc};

use uuid::Uuid;

use crate::{
    header_codec::HeaderCodec,
    message::Message,
    value::{Table, Value},
};

/// What travels with a call: values by name, and the ids of the calls that led here.
///
/// A handler's context comes out of the headers of its message; what the handler publishes carries
/// it on, with the handler's own call id added. As an extractor it is an argument of a handler.
///
/// ```
/// use enoki_core::Context;
///
/// let mut context = Context::new();
/// context.set("language", "fi")?;
/// let child = context.child("billing", "bill");
/// assert!(child.call_id().is_some_and(|id| id.starts_with("billing.bill.")));
/// assert_eq!(child.get("language").and_then(|value| value.as_str()), Some("fi"));
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    values: Table,
    call_ids: Vec<String>,
}

impl Context {
    /// How many call ids travel, at most; the latest are kept.
    pub const CALL_IDS: usize = 11;

    /// A context with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A context of these values and call ids, the first call first.
    pub fn from_parts(values: Table, call_ids: Vec<String>) -> Self {
        Self { values, call_ids }
    }

    /// The context of the handler that is running in this task, if one is.
    pub fn current() -> Option<Self> {
        CALL.try_with(|call| call.context().clone()).ok()
    }

    /// Runs a future with this context as the current one: for work that a handler spawns, and for
    /// entrypoints of your own.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        let call = Call { origin: Origin::Given, context: OnceCell::from(self) };
        CALL.scope(call, future).await
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// Sets a value. [`Value::Null`] does not travel.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> crate::Result<()> {
        self.values.insert(name, value).map(drop)
    }

    /// The values, in the order of their names.
    pub fn values(&self) -> &Table {
        &self.values
    }

    /// The id of this call, `service.handler.uuid`; none outside of a call.
    pub fn call_id(&self) -> Option<&str> {
        self.call_ids.last().map(String::as_str)
    }

    /// The ids of the calls that led here, this one last.
    pub fn call_ids(&self) -> &[String] {
        &self.call_ids
    }

    /// The context of a call that this one made: the same values, and a call id more.
    #[must_use]
    pub fn child(&self, service: &str, handler: &str) -> Self {
        let mut child = self.clone();
        child.call_ids.push(format!("{service}.{handler}.{}", Uuid::now_v7()));
        let surplus = child.call_ids.len().saturating_sub(Self::CALL_IDS);
        child.call_ids.drain(..surplus);
        child
    }
}

/// The call that a task is running. Its context is only made when somebody asks for it.
pub(crate) struct Call {
    origin: Origin,
    context: OnceCell<Context>,
}

enum Origin {
    Given,
    Delivery { message: Arc<Message>, by: Arc<Callee> },
}

/// Whose calls these are, and how their context is read.
#[derive(Debug)]
pub(crate) struct Callee {
    pub(crate) service: Arc<str>,
    pub(crate) handler: Arc<str>,
    pub(crate) codec: Arc<dyn HeaderCodec>,
}

impl Call {
    pub(crate) fn of(message: Arc<Message>, by: Arc<Callee>) -> Self {
        Self { origin: Origin::Delivery { message, by }, context: OnceCell::new() }
    }

    fn context(&self) -> &Context {
        self.context.get_or_init(|| match &self.origin {
            Origin::Given => Context::new(),
            Origin::Delivery { message, by } => {
                by.codec.decode(&message.headers).child(&by.service, &by.handler)
            }
        })
    }

    pub(crate) async fn run<F: Future>(self, future: F) -> F::Output {
        CALL.scope(self, future).await
    }
}

tokio::task_local! {
    static CALL: Call;
}
