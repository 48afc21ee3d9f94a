use enoki_core::TemporaryQueue;

const LONG: &str = match std::str::from_utf8(&[b'x'; 223]) {
    Ok(name) => name,
    Err(_) => panic!(),
};
const SCREEN: TemporaryQueue<String> = TemporaryQueue::new(LONG);

fn main() {}
