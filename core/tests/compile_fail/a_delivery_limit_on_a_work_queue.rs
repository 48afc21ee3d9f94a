use enoki_core::WorkQueue;

const BILLING: WorkQueue<String> = WorkQueue::new("billing").delivery_limit(5);

fn main() {}
