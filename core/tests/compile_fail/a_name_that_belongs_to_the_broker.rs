use enoki_core::{Direct, WorkQueue};

const JOBS: Direct = Direct::new("amq.direct");
const QUEUE: WorkQueue<String> = WorkQueue::new("amq.gen-1");

fn main() {}
