//! Reading and restoring at once: what one thread reads, another puts in place.

use std::{
    mem, panic,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

/// What is handed over together, at the most: so many items, or about so many bytes.
const BATCH_ITEMS: usize = 512;
const BATCH_BYTES: u64 = 1 << 20;
/// How many batches wait.
const BATCHES: usize = 4;

/// Takes what was read.
pub struct HandOver<T> {
    batch: Vec<T>,
    bytes: u64,
    to: SyncSender<Vec<T>>,
}

impl<T> HandOver<T> {
    /// Hands an item over, of about so many bytes. Waits where too many do.
    pub fn hand(&mut self, item: T, bytes: u64) {
        self.batch.push(item);
        self.bytes += bytes;
        if self.batch.len() >= BATCH_ITEMS || self.bytes >= BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.bytes = 0;
        let batch = mem::replace(&mut self.batch, Vec::with_capacity(BATCH_ITEMS));
        // Whoever has failed takes no more. That is told once all is read, which is seldom in vain.
        let _ = self.to.send(batch);
    }
}

/// Has `read` hand over all items, and `put` take them in their order on another thread.
///
/// # Errors
/// That of `put`, which came first: it had not come as far as `read`. Else that of `read`.
pub fn beside<T: Send, R, E: Send>(
    read: impl FnOnce(&mut HandOver<T>) -> Result<R, E>,
    put: impl FnMut(T) -> Result<(), E> + Send,
) -> Result<R, E> {
    thread::scope(|scope| {
        let (to, from) = sync_channel::<Vec<T>>(BATCHES);
        let putting = scope.spawn(move || from.into_iter().flatten().try_for_each(put));
        let mut over = HandOver { batch: Vec::new(), bytes: 0, to };
        let read = read(&mut over);
        over.flush();
        drop(over);
        putting.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))?;
        read
    })
}
