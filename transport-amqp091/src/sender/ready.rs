//! Which slots of a window to look at again: one waker for each slot, one wake for all of them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// The slots that something happened to since they were last taken.
#[derive(Default)]
pub(crate) struct Ready {
    slots: Mutex<Vec<usize>>,
    task: AtomicWaker,
}

impl Ready {
    /// A waker that notes this slot.
    pub(crate) fn waker(self: &Arc<Self>, slot: usize) -> Waker {
        Waker::from(Arc::new(SlotWaker { slot, ready: self.clone() }))
    }

    /// The task to wake from now on.
    pub(crate) fn wakes(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Moves the slots over; the vector to move them to is empty.
    pub(crate) fn take(&self, into: &mut Vec<usize>) {
        std::mem::swap(&mut *self.lock(), into);
    }

    fn note(&self, slot: usize) {
        let mut slots = self.lock();
        let first = slots.is_empty();
        slots.push(slot);
        drop(slots);
        // The task takes all of them at once: it needs to be woken for the first only.
        if first {
            self.task.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}

struct SlotWaker {
    slot: usize,
    ready: Arc<Ready>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.ready.note(self.slot);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.note(self.slot);
    }
}
