use enoki_core::ReplicatedQueue;

const LEDGER: ReplicatedQueue<String> = ReplicatedQueue::new("ledger").max_priority(5);

fn main() {}
