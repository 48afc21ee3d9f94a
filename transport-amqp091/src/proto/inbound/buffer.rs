//! The bytes between the socket and lapin, in one piece of memory.

/// Bytes that came: first those that passed, for lapin, then those that are still to be judged.
///
/// ```text
///   0 .. taken         lapin has them
///   taken .. passed    lapin may take them
///   passed .. pending  left out: no one gets them
///   pending .. filled  not judged yet
///   filled .. len      room for more
/// ```
///
/// Always `taken <= passed <= pending <= filled <= bytes.len()`.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    taken: usize,
    passed: usize,
    pending: usize,
    filled: usize,
}

impl Buffer {
    /// How many bytes lapin may take.
    pub(super) fn ready(&self) -> usize {
        self.passed - self.taken
    }

    /// Room for more bytes, at least half of [`CHUNK`].
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.close_gap();
        if self.taken > 0 {
            self.bytes.copy_within(self.taken..self.filled, 0);
            self.passed -= self.taken;
            self.pending -= self.taken;
            self.filled -= self.taken;
            self.taken = 0;
        }
        let room = self.bytes.len() - self.filled;
        if !(CHUNK / 2..2 * CHUNK).contains(&room) {
            self.bytes.resize(self.filled + CHUNK, 0);
        }
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    /// So many bytes of the room were filled.
    pub(super) fn filled(&mut self, count: usize) {
        self.filled = self.bytes.len().min(self.filled + count);
    }

    /// The bytes that are not judged yet.
    pub(super) fn pending(&self) -> &[u8] {
        self.bytes.get(self.pending..self.filled).unwrap_or_default()
    }

    /// The same, for changes in place.
    pub(super) fn pending_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.pending..self.filled).unwrap_or_default()
    }

    /// lapin may take so many of the pending bytes.
    pub(super) fn pass(&mut self, count: usize) {
        let count = count.min(self.filled - self.pending);
        if self.passed < self.pending {
            self.bytes.copy_within(self.pending..self.pending + count, self.passed);
        }
        self.passed += count;
        self.pending += count;
    }

    /// No one gets so many of the pending bytes.
    pub(super) fn leave_out(&mut self, count: usize) {
        self.pending = self.filled.min(self.pending + count);
    }

    /// lapin may take these bytes in place of so many of the pending ones.
    pub(super) fn replace(&mut self, count: usize, by: &[u8]) {
        self.leave_out(count);
        self.insert(by);
    }

    /// lapin may take these bytes, too: after those that passed, before the pending ones.
    pub(super) fn insert(&mut self, bytes: &[u8]) {
        let end = self.passed + bytes.len();
        if let Some(more) = end.checked_sub(self.pending) {
            let zeros = std::iter::repeat_n(0, more);
            self.bytes.splice(self.pending..self.pending, zeros);
            self.pending += more;
            self.filled += more;
        }
        if let Some(place) = self.bytes.get_mut(self.passed..end) {
            place.copy_from_slice(bytes);
        }
        self.passed = end;
    }

    /// Moves the pending bytes over those that are left out.
    fn close_gap(&mut self) {
        if self.passed < self.pending {
            self.bytes.copy_within(self.pending..self.filled, self.passed);
            self.filled -= self.pending - self.passed;
            self.pending = self.passed;
        }
    }

    /// Hands bytes to lapin, as far as there is room for them.
    pub(super) fn take(&mut self, out: &mut [u8]) -> usize {
        let ready = self.bytes.get(self.taken..self.passed).unwrap_or_default();
        let count = ready.len().min(out.len());
        if let (Some(out), Some(ready)) = (out.get_mut(..count), ready.get(..count)) {
            out.copy_from_slice(ready);
        }
        self.taken += count;
        count
    }
}

/// How many bytes are read at a time.
const CHUNK: usize = 64 * 1024;
