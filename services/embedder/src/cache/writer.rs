//! Writes what is remembered, no faster than the disk takes it.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::folder::Folder;
use super::{BUFFER_BYTES, Lot, Store};

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
            takes = takes && self.write(lot).await;
        }
        match timeout(PATIENCE, self.store.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "closing the cache failed"),
            Err(_) => tracing::warn!("the cache's disk did not take all before the end"),
        }
        Ok(())
    }

    /// In portions that fit into the buffer: what is above that foyer throws away. Whether the disk took them.
    async fn write(&self, lot: Lot) -> bool {
        let mut room = BUFFER_BYTES;
        for (key, entry) in lot {
            let bytes = entry.to_bytes();
            let on_disk = (bytes.len() + HEADER_BYTES).next_multiple_of(PAGE_BYTES);
            if on_disk > room {
                if !self.flush().await {
                    return false;
                }
                room = BUFFER_BYTES;
            }
            room -= on_disk.min(room);
            self.store.insert(key, bytes);
        }
        self.flush().await
    }

    async fn flush(&self) -> bool {
        let written = timeout(PATIENCE, self.store.storage().wait()).await;
        if written.is_err() {
            tracing::warn!("the cache's disk takes nothing: no more is remembered until the next start");
        }
        written.is_ok()
    }
}
