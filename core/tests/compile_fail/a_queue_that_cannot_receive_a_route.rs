use enoki_core::{Route, Topic, WorkQueue};

const SHOP: Topic = Topic::new("shop");
const PAID: Route<String> = SHOP.route("order.paid");
const BILLING: WorkQueue<String> =
    WorkQueue::new("billing").bind(&[SHOP.pattern("order.placed.*")]);
const _: () = assert!(BILLING.accepts(&PAID), "no queue gets PAID");

fn main() {}
