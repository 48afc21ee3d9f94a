use enoki_core::{Route, Topic, WorkQueue};

const SHOP: Topic = Topic::new("shop");
const PLACED: Route<u32> = SHOP.route("order.placed");
const BILLING: WorkQueue<String> = WorkQueue::new("billing").bind(&[SHOP.pattern("order.*")]);
const _: () = assert!(BILLING.accepts(&PLACED));

fn main() {}
