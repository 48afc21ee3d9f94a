//! Bytes on their way from the socket to lapin.

/// Bytes that came: those that lapin may have, then those that nobody has judged.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// How many of them lapin has.
    taken: usize,
    /// How many of them lapin may have.
    judged: usize,
    /// How many of them came; what follows is room for more.
    filled: usize,
}

impl Inbox {
    /// Room for more, when lapin has all that it may have.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.judged..self.filled, 0);
        self.filled -= self.judged;
        self.taken = 0;
        self.judged = 0;
        if self.bytes.len() < self.filled + CHUNK / 2 {
            self.bytes.resize(self.filled + CHUNK, 0);
        }
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    /// So many bytes of the room are filled.
    pub(super) fn came(&mut self, count: usize) {
        self.filled = self.bytes.len().min(self.filled + count);
    }

    /// What nobody has judged.
    pub(super) fn pending(&self) -> &[u8] {
        self.bytes.get(self.judged..self.filled).unwrap_or_default()
    }

    /// The same, for changes in place.
    pub(super) fn pending_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.judged..self.filled).unwrap_or_default()
    }

    /// Lapin may have the first of what is pending.
    pub(super) fn pass(&mut self, count: usize) {
        self.judged = self.filled.min(self.judged + count);
    }

    /// Nobody gets the first of what is pending.
    pub(super) fn drop(&mut self, count: usize) {
        let count = count.min(self.filled - self.judged);
        self.bytes.copy_within(self.judged + count..self.filled, self.judged);
        self.filled -= count;
    }

    /// Lapin may have these in place of the first of what is pending.
    pub(super) fn replace(&mut self, count: usize, by: &[u8]) {
        let end = self.filled.min(self.judged + count);
        let count = end - self.judged;
        self.bytes.splice(self.judged..end, by.iter().copied());
        self.filled = self.filled - count + by.len();
        self.judged += by.len();
    }

    /// Gives lapin what it may have, as far as there is place for it.
    pub(super) fn take(&mut self, out: &mut [u8]) -> usize {
        let ready = self.bytes.get(self.taken..self.judged).unwrap_or_default();
        let count = ready.len().min(out.len());
        if let (Some(out), Some(ready)) = (out.get_mut(..count), ready.get(..count)) {
            out.copy_from_slice(ready);
        }
        self.taken += count;
        count
    }
}

/// How much is read at a time.
const CHUNK: usize = 64 * 1024;
