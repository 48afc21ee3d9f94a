use enoki_core::{Argument, Topic, WorkQueue};

const BILLING: WorkQueue<String> =
    WorkQueue::new("billing").arguments(&[("x-queue-type", Argument::Str("stream"))]);
const SHOP: Topic = Topic::new("shop").arguments(&[("alternate-exchange", Argument::Str("lost"))]);

fn main() {}
