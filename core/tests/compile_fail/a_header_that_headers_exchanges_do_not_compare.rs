use enoki_core::{Argument, Binding, Headers, HeadersMatch};

const PRINTS: Headers = Headers::new("prints");
const LARGE: Binding = PRINTS.matching(HeadersMatch::All, &[("x-size", Argument::Int(1))]);

fn main() {}
