use enoki_core::{Topic, WorkQueue};

const SHOP: Topic = Topic::new("");
const QUEUE: WorkQueue<String> = WorkQueue::new("");

fn main() {}
