use enoki_core::Service;

async fn twice(service: Service) {
    let _ = service.start().await;
    let _ = service.start().await;
}

fn main() {}
