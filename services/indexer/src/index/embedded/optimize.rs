//! The thread that optimises: builds HNSW graphs, merges segments, vacuums deleted points. Reads and writes go on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Instant;

use qdrant_edge::EdgeShard;

use crate::index::IndexError;

#[derive(Debug)]
pub struct Optimizer {
    changed: AtomicU64,
    after: u64,
    // One place: a wake-up that is already due stands for the next ones too.
    wake: SyncSender<()>,
}

impl Optimizer {
    /// Starts the thread, which ends with the index. It is not joined: a run in progress takes as long as it takes,
    /// and ending the process in its middle loses nothing (the engine swaps segments when a run is complete).
    pub fn start(shard: &Arc<EdgeShard>, after: u64, points: u64) -> Result<Self, IndexError> {
        let (wake, woken) = sync_channel(1);
        let shard = Arc::downgrade(shard);
        std::thread::Builder::new()
            .name("index-optimize".into())
            .spawn(move || run(&shard, &woken))
            .map_err(|e| IndexError::Unavailable {
                operation: "start its optimiser thread",
                message: e.to_string(),
            })?;
        let optimizer = Self {
            changed: AtomicU64::new(0),
            after: after.max(1),
            wake,
        };
        // How much changed before this start is not known: at most all of it.
        optimizer.changed(points);
        Ok(optimizer)
    }

    /// Counts changed points.
    pub fn changed(&self, points: u64) {
        let before = self.changed.fetch_add(points, Ordering::Relaxed);
        if before + points >= self.after && self.wake.try_send(()).is_ok() {
            self.changed.store(0, Ordering::Relaxed);
        }
    }
}

fn run(shard: &Weak<EdgeShard>, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        let Some(shard) = shard.upgrade() else { return };
        let started = Instant::now();
        match shard.optimize() {
            Ok(false) => {}
            Ok(true) => tracing::info!(elapsed_ms = started.elapsed().as_millis() as u64, "index optimised"),
            // Nothing is lost: searches are slower until the next run.
            Err(e) => tracing::warn!(error = %e, "index could not be optimised, trying again after more changes"),
        }
    }
}
