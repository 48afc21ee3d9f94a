use enoki_core::Direct;

const JOBS: Direct = Direct::new("jobs\0");

fn main() {}
