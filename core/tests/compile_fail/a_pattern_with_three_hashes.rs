use enoki_core::{Topic, WorkQueue};

const SHOP: Topic = Topic::new("shop");
const ALL: WorkQueue<String> = WorkQueue::new("all").bind(&[SHOP.pattern("#.order.#.eu.#")]);

fn main() {}
