//! A publisher has confirms; who wants none says so, by `let _ =`.
#![deny(unused_must_use)]

use enoki_core::{Publisher, Result};

async fn tell(orders: Publisher<String>) -> Result<()> {
    orders.enqueue(&"order 1".to_owned()).await?;
    Ok(())
}

fn main() {}
