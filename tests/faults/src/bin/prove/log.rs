//! The log of a run: a file beside the report, and a layer that can be told to panic.

use std::{
    fs, io,
    panic::resume_unwind,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    Layer,
    filter::LevelFilter,
    fmt::{layer, time::uptime},
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

/// Writes warnings and errors to a file in the folder, faults included.
pub(crate) fn to_a_file_in(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let file = fs::File::create(folder.join("log.txt"))?;
    tracing_subscriber::registry()
        .with(LevelFilter::from_level(Level::WARN))
        .with(layer().with_ansi(false).with_timer(uptime()).with_writer(file))
        .with(Panicking)
        .init();
    Ok(())
}

/// Has the log panic at every second event of the toolkit, or stops that.
pub(crate) fn panics(panics: bool) {
    PANICS.store(panics, Ordering::Relaxed);
}

/// A layer as a program may have one: with a defect.
struct Panicking;

impl<S: Subscriber> Layer<S> for Panicking {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if PANICS.load(Ordering::Relaxed)
            && event.metadata().target().starts_with("enoki_")
            && EVENTS.fetch_add(1, Ordering::Relaxed).is_multiple_of(2)
        {
            // Without a word on the screen.
            resume_unwind(Box::new("a test wants this panic"));
        }
    }
}

static PANICS: AtomicBool = AtomicBool::new(false);
static EVENTS: AtomicU64 = AtomicU64::new(0);
