//! How a call's context travels in message headers.

use std::fmt;

use crate::{
    context::Context,
    context::trace::TraceContext,
    error::Result,
    message::value::{Table, Value},
    short_str::ShortStr,
};

/// How a call's context travels in message headers: both directions in one object, so that they
/// cannot disagree.
///
/// Values, call ids and the [trace](Context::trace) are the context's; whether and how each of them
/// travels is the codec's.
pub trait HeaderCodec: fmt::Debug + Send + Sync + 'static {
    /// Adds the context to the headers. What it sets wins over what is there.
    fn encode(&self, context: &Context, headers: &mut Table) -> Result<()>;

    /// The same without lists and tables, as far as they are the codec's and not the program's: for a
    /// program whose [`Limits::nested_headers`](crate::Limits) refuses them.
    fn encode_flat(&self, context: &Context, headers: &mut Table) -> Result<()> {
        self.encode(context, headers)
    }

    /// Reads the context out of the headers. What is not its own it leaves alone.
    fn decode(&self, headers: &Table) -> Context;
}

/// The context as headers under a prefix, `nameko.` by default: nameko's services read it, and are
/// read.
///
/// A value named `language` travels as `nameko.language`, the call ids as the list
/// `nameko.call_id_stack`, the trace as `traceparent` and `tracestate`. Other headers without the
/// prefix are not part of the context, so they do not travel on.
///
/// RabbitMQ drops lists from messages that go from AMQP 0-9-1 to AMQP 1.0, and the call ids with them.
/// [`call_ids_as_text`](Self::call_ids_as_text) writes them in a form that arrives; both forms are read.
/// [`NoContext`] writes nothing.
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
    flat: bool,
}

/// The name under which the call ids travel, without the prefix.
const CALL_IDS: &str = "call_id_stack";

impl Default for PrefixCodec {
    fn default() -> Self {
        Self { prefix: "nameko.".to_owned(), flat: false }
    }
}

impl PrefixCodec {
    /// A codec with a prefix of your own, written without the dot.
    pub fn new(prefix: impl Into<ShortStr>) -> Self {
        Self { prefix: format!("{}.", prefix.into()), flat: false }
    }

    /// Writes the call ids as a JSON list in one text, which crosses from AMQP 0-9-1 to AMQP 1.0 as it is.
    /// nameko's services do not read it.
    ///
    /// ```
    /// use enoki_core::{BrokerOptions, PrefixCodec};
    ///
    /// let options = BrokerOptions::new().header_codec(PrefixCodec::default().call_ids_as_text());
    /// # let _ = options;
    /// ```
    #[must_use]
    pub fn call_ids_as_text(self) -> Self {
        Self { flat: true, ..self }
    }

    fn name(&self, name: &str) -> Result<ShortStr> {
        ShortStr::named("context header", format!("{}{name}", self.prefix))
    }

    fn write(&self, context: &Context, headers: &mut Table, flat: bool) -> Result<()> {
        for (name, value) in context.values().iter().filter(|(_, value)| **value != Value::Null) {
            headers.set(self.name(name)?, value.clone());
        }
        let ids = context.call_ids();
        if !ids.is_empty() {
            let ids = match flat {
                true => serde_json::json!(ids).to_string().into(),
                false => Value::List(ids.iter().map(|id| Value::from(id.as_str())).collect()),
            };
            headers.set(self.name(CALL_IDS)?, ids);
        }
        if let Some(trace) = context.trace() {
            trace.write(headers);
        }
        Ok(())
    }
}

/// The call ids in a header, in either form.
fn call_ids(value: &Value) -> Vec<String> {
    match value {
        Value::List(ids) => ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        _ => Vec::new(),
    }
}

impl HeaderCodec for PrefixCodec {
    fn encode(&self, context: &Context, headers: &mut Table) -> Result<()> {
        self.write(context, headers, self.flat)
    }

    fn encode_flat(&self, context: &Context, headers: &mut Table) -> Result<()> {
        // Names that begin so cross with lists in them, and are not refused.
        let crosses = self.prefix.starts_with("x-");
        self.write(context, headers, self.flat || !crosses)
    }

    fn decode(&self, headers: &Table) -> Context {
        let mut values = Table::new();
        let mut ids = Vec::new();
        for (name, value) in headers.iter() {
            match name.strip_prefix(&self.prefix) {
                None => {}
                Some(CALL_IDS) => ids = call_ids(value),
                // A part of a short string is one, too.
                Some(own) => drop(values.insert(own, value.clone())),
            }
        }
        let mut context = Context::from_parts(values, ids);
        if let Some(trace) = TraceContext::read(headers) {
            context.set_trace(trace);
        }
        context
    }
}

/// No context at all: what a handler publishes carries no header that the program did not set, and
/// nothing of what arrives is taken for a context.
///
/// ```
/// use enoki_core::{BrokerOptions, NoContext};
///
/// let options = BrokerOptions::new().header_codec(NoContext);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct NoContext;

impl HeaderCodec for NoContext {
    fn encode(&self, _: &Context, _: &mut Table) -> Result<()> {
        Ok(())
    }

    fn decode(&self, _: &Table) -> Context {
        Context::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(entries: &[(&str, Value)]) -> Table {
        let named = |(name, value): &(&str, Value)| (ShortStr::new(*name).unwrap(), value.clone());
        entries.iter().map(named).collect()
    }

    fn context(entries: &[(&str, Value)]) -> Context {
        Context::from_parts(headers(entries), Vec::new())
    }

    fn encoded(context: &Context) -> Table {
        let mut headers = Table::new();
        PrefixCodec::default().encode(context, &mut headers).unwrap();
        headers
    }

    fn decoded(entries: &[(&str, Value)]) -> Context {
        PrefixCodec::default().decode(&headers(entries))
    }

    #[test]
    fn every_value_travels_under_the_prefix_also_one_that_has_it_already() {
        let sent = encoded(&context(&[
            ("language", "fi".into()),
            ("nameko.x", 1.into()),
            ("", true.into()),
            ("x-own", 2.5.into()),
        ]));
        let expected = headers(&[
            ("nameko.language", "fi".into()),
            ("nameko.nameko.x", 1.into()),
            ("nameko.", true.into()),
            ("nameko.x-own", 2.5.into()),
        ]);
        assert_eq!(sent, expected);
    }

    #[test]
    fn values_keep_their_types_and_null_is_dropped_only_at_the_top() {
        let mut inner = Table::new();
        inner.insert("nothing", Value::Null).unwrap();
        let sent = encoded(&context(&[
            ("gone", Value::Null),
            ("flag", true.into()),
            ("number", i64::MIN.into()),
            ("list", vec![Value::Null, "a".into()].into()),
            ("table", inner.clone().into()),
        ]));
        assert!(!sent.contains("nameko.gone"));
        assert_eq!(sent.get("nameko.flag"), Some(&Value::Bool(true)));
        assert_eq!(sent.get("nameko.number"), Some(&Value::Int(i64::MIN)));
        assert_eq!(sent.get("nameko.list"), Some(&vec![Value::Null, "a".into()].into()));
        assert_eq!(sent.get("nameko.table"), Some(&inner.into()));
        assert_eq!(sent.len(), 4);
    }

    #[test]
    fn the_prefix_is_cut_once_and_only_where_it_is_whole() {
        let read = decoded(&[
            ("nameko.language", "fi".into()),
            ("nameko.nameko.deep", 1.into()),
            ("nameko.", 2.into()),
            ("nameko", 3.into()),
            ("namekox.b", 4.into()),
            ("Nameko.c", 5.into()),
            ("x.nameko.d", 6.into()),
        ]);
        let expected =
            headers(&[("language", "fi".into()), ("nameko.deep", 1.into()), ("", 2.into())]);
        assert_eq!(read.values(), &expected);
    }

    #[test]
    fn headers_of_others_are_left_alone_and_do_not_travel_on() {
        let foreign = [
            ("tracestate", Value::from("of=nothing")),
            ("x-death", vec![Value::Null].into()),
            ("language", "sv".into()),
        ];
        let mut all = foreign.to_vec();
        all.push(("nameko.language", "fi".into()));
        let read = decoded(&all);
        assert_eq!(read.values(), &headers(&[("language", "fi".into())]), "no collision either");
        let mut sent = headers(&foreign);
        PrefixCodec::default().encode(&read, &mut sent).unwrap();
        assert_eq!(sent, headers(&all));
    }

    #[test]
    fn a_trace_travels_beside_the_context_and_that_of_the_call_wins() {
        let span = |n: u8| Value::from(format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{n:016x}-01"));
        let arrived = [("traceparent", span(1)), ("tracestate", "vendor=1".into())];
        let read = decoded(&arrived);
        assert!(read.values().is_empty(), "it is beside the context, and not in it");
        let child = read.child("a", "h");
        let mut sent = Table::new();
        PrefixCodec::new(ShortStr::from_static("acme")).encode(&child, &mut sent).unwrap();
        assert!(sent.remove("acme.call_id_stack").is_some());
        assert_eq!(sent, headers(&arrived));
        let own = headers(&[("traceparent", span(2))]);
        let mut sent = own.clone();
        PrefixCodec::default().encode(&read, &mut sent).unwrap();
        assert_eq!(sent, own);
    }

    #[test]
    fn the_context_wins_over_headers_of_the_call() {
        let mut sent = headers(&[("nameko.language", "sv".into()), ("nameko.own", 1.into())]);
        PrefixCodec::default().encode(&context(&[("language", "fi".into())]), &mut sent).unwrap();
        assert_eq!(sent, headers(&[("nameko.language", "fi".into()), ("nameko.own", 1.into())]));
    }

    #[test]
    fn call_ids_travel_as_a_list_and_only_where_there_are_any() {
        assert!(encoded(&Context::new()).is_empty());
        let ids = vec!["a.h.1".to_owned(), "b.g.2".to_owned()];
        let sent = encoded(&Context::from_parts(Table::new(), ids.clone()));
        let expected =
            headers(&[("nameko.call_id_stack", vec!["a.h.1".into(), "b.g.2".into()].into())]);
        assert_eq!(sent, expected);
        assert_eq!(PrefixCodec::default().decode(&sent).call_ids(), ids);
    }

    #[test]
    fn call_ids_travel_as_one_text_where_lists_do_not() {
        let ids = vec!["a b.h.1".to_owned(), "\"ü\", c.g.2".to_owned()];
        let context = Context::from_parts(Table::new(), ids.clone());
        let mut sent = Table::new();
        PrefixCodec::default().call_ids_as_text().encode(&context, &mut sent).unwrap();
        assert!(sent.get("nameko.call_id_stack").is_some_and(|ids| ids.as_str().is_some()));
        let mut flat = Table::new();
        PrefixCodec::default().encode_flat(&context, &mut flat).unwrap();
        assert_eq!(flat, sent);
        assert_eq!(PrefixCodec::default().decode(&sent).call_ids(), ids);
        let mut crossing = Table::new();
        let codec = PrefixCodec::new(ShortStr::from_static("x-nameko"));
        codec.encode_flat(&context, &mut crossing).unwrap();
        assert!(crossing.get("x-nameko.call_id_stack").is_some_and(|ids| ids.as_list().is_some()));
        NoContext.encode(&context, &mut flat).unwrap();
        assert_eq!(flat, sent);
        assert_eq!(NoContext.decode(&sent), Context::new());
    }

    /// nameko splits it into its letters.
    #[test]
    fn a_stack_that_is_no_list_of_texts_is_none() {
        for stack in [Value::from("a.h.1"), Value::Null, 7.into(), Table::new().into()] {
            let read = decoded(&[("nameko.call_id_stack", stack)]);
            assert_eq!(read, Context::new());
        }
        let mixed = vec![Value::from("a.h.1"), 7.into(), Value::Null, "b.g.2".into()];
        let read = decoded(&[("nameko.call_id_stack", mixed.into())]);
        assert_eq!(read.call_ids(), ["a.h.1", "b.g.2"]);
    }

    #[test]
    fn another_prefix_is_used_both_ways() {
        let codec = PrefixCodec::new(ShortStr::from_static("acme"));
        let mut sent = Table::new();
        codec.encode(&context(&[("a", 1.into())]), &mut sent).unwrap();
        assert_eq!(sent, headers(&[("acme.a", 1.into())]));
        sent.insert("nameko.b", 2).unwrap();
        assert_eq!(codec.decode(&sent).values(), &headers(&[("a", 1.into())]));
    }

    #[test]
    fn a_name_too_long_for_a_header_is_named() {
        let mut sent = Table::new();
        let codec = PrefixCodec::default();
        codec.encode(&context(&[(&"n".repeat(248), 1.into())]), &mut sent).unwrap();
        let error = codec.encode(&context(&[(&"n".repeat(249), 1.into())]), &mut sent).unwrap_err();
        assert!(error.to_string().contains("context header \"nameko.nnn"), "{error}");
        assert!(error.to_string().contains("256 bytes exceed the limit of 255"), "{error}");
    }

    proptest! {
        #[test]
        fn what_was_sent_is_what_is_read(
            names in proptest::collection::vec(".{0,40}", 0..6),
            ids in proptest::collection::vec("[a-z.]{1,9}", 0..20),
        ) {
            let values = names.iter().filter(|name| *name != CALL_IDS);
            let values = values.map(|name| (ShortStr::new(&**name).unwrap(), Value::from(name.len() as i64)));
            let context = Context::from_parts(values.collect(), ids);
            prop_assert_eq!(PrefixCodec::default().decode(&encoded(&context)), context);
        }
    }
}
