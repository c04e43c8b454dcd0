//! Writes what is remembered, no faster than the disk takes it.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::folder::Folder;
use super::{BUFFER_BYTES, Key, Lot, Store};

/// For the disk to take a portion.
const PATIENCE: Duration = Duration::from_secs(10);
/// An entry takes whole pages, and has a header.
const PAGE_BYTES: usize = 4 << 10;
const HEADER_BYTES: usize = 128;

/// What writes a [`super::Cache`]; it has the folder until it ends.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    lots: mpsc::Receiver<Lot>,
    _folder: Folder,
}

impl Writer {
    pub(super) fn new(store: Store, lots: mpsc::Receiver<Lot>, folder: Folder) -> Self {
        Self {
            store,
            lots,
            _folder: folder,
        }
    }

    /// Works until the last [`super::Cache`] is gone and all that was handed over is on disk. A disk that does not take it is
    /// left alone until the next start.
    pub async fn run(mut self) -> Result<(), Infallible> {
        let mut takes = true;
        while let Some(lot) = self.lots.recv().await {
            if takes {
                takes = self.write(lot).await;
                if !takes {
                    tracing::warn!(
                        "the cache's disk does not take what it is given: no more is remembered until the next start"
                    );
                }
            }
        }
        match guarded(self.store.close()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!(%error, "closing the cache failed"),
            None => tracing::warn!("the cache did not close"),
        }
        Ok(())
    }

    /// In portions that fit into the buffer: what is above that foyer throws away. Whether the disk took them.
    async fn write(&self, lot: Lot) -> bool {
        let (mut room, mut last) = (BUFFER_BYTES, None);
        for (key, entry) in lot {
            let bytes = entry.to_bytes();
            let on_disk = (bytes.len() + HEADER_BYTES).next_multiple_of(PAGE_BYTES);
            if on_disk > room {
                if !self.took(last).await {
                    return false;
                }
                room = BUFFER_BYTES;
            }
            room -= on_disk.min(room);
            last = Some(key);
            self.store.insert(key, bytes);
        }
        self.took(last).await
    }

    /// Waits until a portion is written. Foyer tells nobody that a write failed, and dies at one of the next: what it wrote it
    /// finds.
    async fn took(&self, last: Option<Key>) -> bool {
        let disk = self.store.storage();
        guarded(disk.wait()).await.is_some() && last.is_none_or(|key| disk.may_contains(&key))
    }
}

/// What foyer says, if it does in time and does not panic, which stands in the log.
async fn guarded<T>(asked: impl Future<Output = T>) -> Option<T> {
    let answered = timeout(PATIENCE, AssertUnwindSafe(asked).catch_unwind()).await;
    answered.ok()?.ok()
}
