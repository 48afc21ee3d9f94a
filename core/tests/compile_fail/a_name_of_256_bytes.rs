use enoki_core::WorkQueue;

const LONG: &str = match std::str::from_utf8(&[b'x'; 256]) {
    Ok(name) => name,
    Err(_) => panic!(),
};
const QUEUE: WorkQueue<String> = WorkQueue::new(LONG);

fn main() {}
