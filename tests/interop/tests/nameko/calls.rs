//! What travels: bodies of every sort, headers and context of every type.

use enoki::{
    context::Context,
    message::{Table, Timestamp, Value},
};
use enoki_interop::Checked;
use serde_json::{Value as Json, json};

/// A call from outside, and what the method that it runs is to publish.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) body: Json,
    pub(crate) headers: Table,
    pub(crate) context: Context,
}

pub(crate) fn calls() -> Checked<Vec<Call>> {
    let dishes = json!({"id": 7, "dishes": ["soupe à l'oignon", "鍋"], "price": 8.5, "paid": null});
    Ok(vec![
        Call {
            body: dishes,
            headers: table([
                ("region", "eu".into()),
                ("tries", (-3).into()),
                ("share", 0.25.into()),
                ("rush", true.into()),
                ("at", Timestamp::from_unix_seconds(1_700_000_000).into()),
                ("x-tags", vec![Value::from("a"), 1.into(), false.into()].into()),
                ("x-place", table([("table", 4.into()), ("room", "blue".into())])?.into()),
            ])?,
            context: context([
                ("language", "fi".into()),
                ("user_id", 42.into()),
                ("admin", false.into()),
                ("load", 0.5.into()),
                ("large", i64::MAX.into()),
                ("since", Timestamp::from_unix_seconds(1).into()),
                ("groups", vec![Value::from("cooks"), vec![Value::from(1)].into()].into()),
                ("session", table([("id", "s-1".into()), ("age", 3.into())])?.into()),
            ])?,
        },
        Call {
            body: json!("spam: œufs"),
            headers: Table::new(),
            context: context([("language", "sv".into())])?,
        },
        Call {
            body: json!(null),
            headers: table([("empty", "".into())])?,
            context: Context::new(),
        },
        Call {
            body: json!([0, -1, 9_007_199_254_740_991_i64, 1.5e300, [], {}]),
            headers: Table::new(),
            context: context([("language", "".into())])?,
        },
    ])
}

fn table<const N: usize>(values: [(&str, Value); N]) -> Checked<Table> {
    let mut table = Table::new();
    for (name, value) in values {
        table.insert(name, value)?;
    }
    Ok(table)
}

fn context<const N: usize>(values: [(&str, Value); N]) -> Checked<Context> {
    Ok(Context::from_parts(table(values)?, Vec::new()))
}
