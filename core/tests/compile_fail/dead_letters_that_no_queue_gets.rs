use enoki_core::{Fanout, TemporaryQueue, Topic, WorkQueue};

const LOST: Topic = Topic::new("lost");
const SOME: WorkQueue<String> = WorkQueue::new("some").bind(&[LOST.pattern("order.*")]);
const NEWS: Fanout = Fanout::new("news");
const SCREEN: TemporaryQueue<String> = TemporaryQueue::new("screen").bind(&[NEWS.binding()]);

const BILLING: WorkQueue<String> = WorkQueue::new("billing").dead_letters_over(&LOST, &SOME);
const PACKING: WorkQueue<String> =
    WorkQueue::new("packing").dead_letters_over_as(&LOST, "parcel.lost", &SOME);
const SHIPPING: WorkQueue<String> = WorkQueue::new("shipping").dead_letters_over(&NEWS, &SOME);
const SHOWING: WorkQueue<String> = WorkQueue::new("showing").dead_letters_to(&SCREEN);

fn main() {}
