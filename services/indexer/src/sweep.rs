//! Clean-up: deleting the points of revisions that were replaced.
//!
//! In passes: read which heads ask for it, wait a grace longer than the longest search deadline, then delete below the
//! revision that was read, and only now clear the head's `sweep`. After the grace no search can still be pinned below
//! that revision: it was live when the pass began. A head that moved meanwhile keeps its mark for a later pass.
//!
//! Nothing is remembered between passes and no clock is asked: what is due stands in the index itself, so a restart
//! (or a second replica) goes on where the last one stopped. Only ever `delete where document = D and revision < R`:
//! never `≠`, which would take a revision that is just being written.

use std::sync::Arc;
use std::time::Duration;

use millrace_events::{DocumentKey, Revision};
use millrace_failpoints::{mutants, points};

use crate::index::{IndexError, VectorIndex};

/// How often and how much.
#[derive(Debug, Clone, Copy)]
pub struct SweepConfig {
    /// Longer than the longest search deadline.
    pub grace: Duration,
    /// Heads in one pass.
    pub heads: usize,
    /// How long the heads of deleted documents are kept, so that a late older revision stays refused.
    pub keep_deleted: Duration,
}

/// Heads that a pass found, with the revision that was live then.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due(pub Vec<(DocumentKey, Revision)>);

/// Cleans one collection.
#[derive(Clone)]
pub struct Sweeper {
    index: Arc<dyn VectorIndex>,
    config: SweepConfig,
}

impl Sweeper {
    /// Cleans `index`.
    pub fn new(index: Arc<dyn VectorIndex>, config: SweepConfig) -> Self {
        Self { index, config }
    }

    /// The first half of a pass: what is due after the grace.
    pub async fn due(&self) -> Result<Due, IndexError> {
        self.index.to_sweep(self.config.heads).await.map(Due)
    }

    /// The second half, after the grace.
    pub async fn sweep(&self, due: Due) -> Result<(), IndexError> {
        for (document, live) in due.0 {
            self.index.delete_below(document.clone(), live).await?;
            points::SWEEP_DELETED.reached();
            self.index.mark_sweep(document, live, false).await?;
            points::SWEEP_MARKED.reached();
        }
        Ok(())
    }

    /// Passes until it is cancelled; an index that is away is waited for.
    pub async fn run(&self, now_ms: fn() -> i64) {
        loop {
            let due = self.due().await;
            let grace = match mutants::NO_GRACE.is_active() {
                true => Duration::from_millis(1),
                false => self.config.grace,
            };
            tokio::time::sleep(grace).await;
            let pass = async {
                self.sweep(due?).await?;
                let keep = i64::try_from(self.config.keep_deleted.as_millis()).unwrap_or(i64::MAX);
                self.index.forget_deleted(now_ms().saturating_sub(keep)).await
            };
            if let Err(e) = pass.await {
                tracing::warn!(error = %e, "clean-up of replaced revisions failed, trying again");
            }
        }
    }
}
