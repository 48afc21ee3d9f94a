use enoki_core::ReplicatedQueue;

const LEDGER: ReplicatedQueue<String> = ReplicatedQueue::new("ledger").delivery_limit(5);

fn main() {}
