use enoki_core::{Fanout, WorkQueue};

const NEWS: Fanout = Fanout::new("news");
const INBOX: WorkQueue<String> = WorkQueue::new("inbox").bind(&[NEWS.pattern("sport.*")]);

fn main() {}
