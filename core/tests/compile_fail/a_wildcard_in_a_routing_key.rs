use enoki_core::{Route, Topic};

const SHOP: Topic = Topic::new("shop");
const PLACED: Route<String> = SHOP.route("order.*");

fn main() {}
