//! The context of a call: what travels with it from service to service.

pub(crate) mod header_codec;
pub(crate) mod trace;

use std::{cell::OnceCell, future::Future, sync::Arc};

use uuid::Uuid;

use crate::{
    context::header_codec::HeaderCodec,
    context::trace::TraceContext,
    message::Message,
    message::value::{Table, Value},
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
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    values: Table,
    call_ids: Vec<String>,
    trace: Option<TraceContext>,
    parent_calls: usize,
}

impl Default for Context {
    fn default() -> Self {
        Self::from_parts(Table::new(), Vec::new())
    }
}

impl Context {
    /// How many ids of earlier calls a context keeps besides its own, unless
    /// [`BrokerOptions::parent_calls`](crate::BrokerOptions::parent_calls) says otherwise.
    pub const PARENT_CALLS: usize = 10;

    /// A context with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A context of these values and call ids, the first call first.
    pub fn from_parts(values: Table, call_ids: Vec<String>) -> Self {
        Self { values, call_ids, trace: None, parent_calls: Self::PARENT_CALLS }
    }

    /// This context, keeping so many ids of earlier calls besides its own from here on.
    #[must_use]
    pub fn with_parent_calls(mut self, calls: usize) -> Self {
        self.parent_calls = calls;
        self
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

    /// The id of the call that made this one; none outside of a call, and for the first of all.
    pub fn parent_call_id(&self) -> Option<&str> {
        let (_, parents) = self.call_ids.split_last()?;
        parents.last().map(String::as_str)
    }

    /// The id of the earliest call that is known to have led here; none outside of a call, and for
    /// the first of all.
    pub fn origin_call_id(&self) -> Option<&str> {
        let (_, parents) = self.call_ids.split_last()?;
        parents.first().map(String::as_str)
    }

    /// Where this call is in a trace, if it is in one.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// Says where in a trace what this context is published with belongs.
    pub fn set_trace(&mut self, trace: TraceContext) {
        self.trace = Some(trace);
    }

    /// The context of a call that this one made: the same values and trace, and a call id more. The
    /// latest ids are kept, ten and its own by default.
    #[must_use]
    pub fn child(&self, service: &str, handler: &str) -> Self {
        let mut child = self.clone();
        child.call_ids.push(format!("{service}.{handler}.{}", Uuid::now_v7()));
        let kept = self.parent_calls.saturating_add(1);
        let surplus = child.call_ids.len().saturating_sub(kept);
        child.call_ids.drain(..surplus);
        child
    }
}

/// The call that a task is running. Its context is made when the program asks for it.
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
    pub(crate) parent_calls: usize,
}

impl Callee {
    /// The context of a call that a message with these headers makes.
    pub(crate) fn context(&self, headers: &Table) -> Context {
        let sent = self.codec.decode(headers).with_parent_calls(self.parent_calls);
        sent.child(&self.service, &self.handler)
    }
}

impl Call {
    pub(crate) fn of(message: Arc<Message>, by: Arc<Callee>) -> Self {
        Self { origin: Origin::Delivery { message, by }, context: OnceCell::new() }
    }

    fn context(&self) -> &Context {
        self.context.get_or_init(|| match &self.origin {
            Origin::Given => Context::new(),
            Origin::Delivery { message, by } => by.context(&message.headers),
        })
    }

    pub(crate) async fn run<F: Future>(self, future: F) -> F::Output {
        CALL.scope(self, future).await
    }
}

tokio::task_local! {
    static CALL: Call;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(context: &Context) -> Option<&str> {
        context.get("language").and_then(Value::as_str)
    }

    fn finnish() -> Context {
        let mut context = Context::new();
        context.set("language", "fi").unwrap();
        context
    }

    #[test]
    fn a_call_id_is_the_service_the_handler_and_a_uuid() {
        let child = Context::new().child("billing", "bill");
        let id = child.call_id().unwrap();
        let uuid = id.strip_prefix("billing.bill.").unwrap();
        assert_eq!(Uuid::parse_str(uuid).unwrap().hyphenated().to_string(), uuid);
        assert_ne!(Context::new().child("billing", "bill").call_id(), Some(id));
        assert_eq!(Context::new().call_id(), None);
    }

    #[test]
    fn a_child_has_the_same_values_and_one_id_more() {
        let parent = finnish().child("shop", "order");
        let child = parent.child("billing", "bill");
        assert_eq!(child.values(), parent.values());
        assert_eq!(child.call_ids()[..1], *parent.call_ids());
        assert_eq!(child.call_ids().len(), 2);
        assert_eq!(child.call_ids().last().map(String::as_str), child.call_id());
    }

    #[test]
    fn the_last_eleven_ids_are_kept() {
        let mut context = Context::new();
        for n in 0..20 {
            context = context.child("service", &n.to_string());
            assert_eq!(context.call_ids().len(), (n + 1).min(11));
        }
        assert!(context.call_ids()[0].starts_with("service.9."));
        assert!(context.call_ids()[10].starts_with("service.19."));
        let sent = (0..1000).map(|n| n.to_string()).collect();
        let child = Context::from_parts(Table::new(), sent).child("a", "b");
        assert_eq!(child.call_ids().len(), 11);
        assert_eq!(child.call_ids()[..2], ["990", "991"]);
    }

    #[test]
    fn how_many_ids_are_kept_can_be_set_and_its_own_always_is() {
        let ids = |parents: usize, calls: usize| {
            let first = Context::new().with_parent_calls(parents);
            let last = (0..calls).fold(first, |call, n| call.child("service", &n.to_string()));
            last.call_ids().len()
        };
        for (parents, calls, kept) in
            [(0, 5, 1), (1, 5, 2), (10, 20, 11), (30, 20, 20), (30, 50, 31), (usize::MAX, 20, 20)]
        {
            assert_eq!(ids(parents, calls), kept, "{parents} parents, {calls} calls");
        }
    }

    #[test]
    fn the_parent_and_the_origin_are_the_calls_before_this_one() {
        let ids = |context: &Context| {
            let text = |id: Option<&str>| id.map(|id| id[..1].to_owned());
            [
                text(context.origin_call_id()),
                text(context.parent_call_id()),
                text(context.call_id()),
            ]
        };
        let some = |id: &str| Some(id.to_owned());
        let (none, first) = (Context::new(), Context::new().child("a", "h"));
        assert_eq!(ids(&none), [None, None, None]);
        assert_eq!(ids(&first), [None, None, some("a")]);
        let second = first.child("b", "h");
        assert_eq!(ids(&second), [some("a"), some("a"), some("b")]);
        assert_eq!(ids(&second.child("c", "h")), [some("a"), some("b"), some("c")]);
    }

    #[tokio::test]
    async fn there_is_a_current_context_inside_of_a_scope_only() {
        assert_eq!(Context::current(), None);
        let seen = finnish().scope(async { Context::current() }).await;
        assert_eq!(seen, Some(finnish()));
        assert_eq!(Context::current(), None);
    }

    #[tokio::test]
    async fn scopes_nest_and_the_inner_one_ends() {
        let swedish = {
            let mut context = finnish();
            context.set("language", "sv").unwrap();
            context
        };
        let current = || Context::current().as_ref().and_then(language).map(str::to_owned);
        finnish()
            .scope(async {
                assert_eq!(current().as_deref(), Some("fi"));
                swedish.scope(async { assert_eq!(current().as_deref(), Some("sv")) }).await;
                assert_eq!(current().as_deref(), Some("fi"));
            })
            .await;
    }

    #[tokio::test]
    async fn a_task_that_is_spawned_has_the_context_that_it_is_given() {
        finnish()
            .scope(async {
                let without = tokio::spawn(async { Context::current() }).await.unwrap();
                assert_eq!(without, None);
                let given = Context::current().unwrap();
                let with = tokio::spawn(given.scope(async { Context::current() })).await.unwrap();
                assert_eq!(with, Some(finnish()));
            })
            .await;
    }

    #[tokio::test]
    async fn the_context_of_a_call_is_read_once_so_that_its_id_stays() {
        let callee = Arc::new(Callee {
            service: "billing".into(),
            handler: "bill".into(),
            codec: Arc::new(crate::PrefixCodec::default()),
            parent_calls: Context::PARENT_CALLS,
        });
        let mut message = Message::new("");
        message.headers.insert("nameko.language", "fi").unwrap();
        let call = Call::of(Arc::new(message), callee);
        call.run(async {
            let (one, two) = (Context::current().unwrap(), Context::current().unwrap());
            assert_eq!(one, two);
            assert_eq!(language(&one), Some("fi"));
            assert!(one.call_id().is_some_and(|id| id.starts_with("billing.bill.")));
        })
        .await;
    }

    #[test]
    fn a_name_too_long_for_a_header_is_refused() {
        assert!(Context::new().set(&"n".repeat(256), 1).is_err());
    }
}
