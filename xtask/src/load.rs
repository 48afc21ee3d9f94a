//! A machine that is busy with something else, for as long as this lives.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// One thread for each core, which computes without a pause.
#[derive(Debug)]
pub(crate) struct Load {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = (0..cores)
            .map(|_| {
                let ended = ended.clone();
                thread::spawn(move || {
                    let mut number = 1_u64;
                    while !ended.load(Ordering::Relaxed) {
                        number = black_box(number.wrapping_mul(6_364_136_223_846_793_005));
                    }
                })
            })
            .collect();
        Self { ended, threads }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It cannot have panicked.
            let _ = thread.join();
        }
    }
}
