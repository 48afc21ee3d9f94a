use enoki_core::RunningService;

async fn twice(running: RunningService) {
    running.kill().await;
    running.kill().await;
}

fn main() {}
