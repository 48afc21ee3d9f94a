//! Bytes on their way from the socket to lapin.

/// Bytes that came: those that lapin may have, then those that nobody has judged.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// How many of them lapin has.
    taken: usize,
    /// How many of them lapin may have.
    judged: usize,
    /// Where those begin that nobody has judged; what is in between nobody gets.
    pending: usize,
    /// How many of them came; what follows is room for more.
    filled: usize,
}

impl Buffer {
    /// How much lapin may have, and has not.
    pub(super) fn ready(&self) -> usize {
        self.judged - self.taken
    }

    /// Room for more.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.close_gap();
        if self.taken > 0 {
            self.bytes.copy_within(self.taken..self.filled, 0);
            self.judged -= self.taken;
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

    /// So many bytes of the room are filled.
    pub(super) fn came(&mut self, count: usize) {
        self.filled = self.bytes.len().min(self.filled + count);
    }

    /// What nobody has judged.
    pub(super) fn pending(&self) -> &[u8] {
        self.bytes.get(self.pending..self.filled).unwrap_or_default()
    }

    /// The same, for changes in place.
    pub(super) fn pending_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.pending..self.filled).unwrap_or_default()
    }

    /// Lapin may have the first of what is pending.
    pub(super) fn pass(&mut self, count: usize) {
        let count = count.min(self.filled - self.pending);
        if self.judged < self.pending {
            self.bytes.copy_within(self.pending..self.pending + count, self.judged);
        }
        self.judged += count;
        self.pending += count;
    }

    /// Nobody gets the first of what is pending.
    pub(super) fn drop(&mut self, count: usize) {
        self.pending = self.filled.min(self.pending + count);
    }

    /// Lapin may have these in place of the first of what is pending.
    pub(super) fn replace(&mut self, count: usize, by: &[u8]) {
        self.drop(count);
        self.insert(by);
    }

    /// Lapin may have these, too.
    pub(super) fn insert(&mut self, bytes: &[u8]) {
        let end = self.judged + bytes.len();
        if let Some(more) = end.checked_sub(self.pending) {
            let zeros = std::iter::repeat_n(0, more);
            self.bytes.splice(self.pending..self.pending, zeros);
            self.pending += more;
            self.filled += more;
        }
        if let Some(place) = self.bytes.get_mut(self.judged..end) {
            place.copy_from_slice(bytes);
        }
        self.judged = end;
    }

    fn close_gap(&mut self) {
        if self.judged < self.pending {
            self.bytes.copy_within(self.pending..self.filled, self.judged);
            self.filled -= self.pending - self.judged;
            self.pending = self.judged;
        }
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
