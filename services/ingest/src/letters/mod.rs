//! Dead letters: seeing them, sending them to their stage again, letting them go.
//!
//! The state of each letter is the newest record of its key in `documents.failed`, kept as a replica ([`store`]); its
//! original stands in `documents.dlq` ([`original`]). A redrive or a discard is one call, with nothing kept of it but what it
//! writes ([`job`], [`batches`], [`progress`]); which letters it passes over, and why, is in [`skip`]; [`filter`] selects
//! them, [`log`] is the seam to Kafka.
//!
//! Promises:
//! - A letter's new state and the original that re-enters the log are written in one transaction: both or neither.
//! - One job writes at a time, whichever process it runs in. A job begins where all jobs before it have ended, however they
//!   ended: each letter is redriven once for each time it was given up.
//! - A redriven record has the revision that it always had: it never passes a newer one.

pub mod batches;
pub mod filter;
pub mod job;
pub mod log;
pub mod original;
pub mod progress;
pub mod skip;
pub mod store;

use std::collections::BTreeSet;

use futures::{Stream, StreamExt};
use millrace_events::topics::PARTITIONS;
use millrace_events::{LetterKey, LetterState};
use millrace_flow::{Delivery, Failure};
use tokio_util::sync::CancellationToken;

use crate::codec::RecordCodec;
use crate::pipeline::lanes::LaneConfig;
use crate::replica::{self, StoreError};
use filter::Filter;
use job::{Job, Order};
use log::{LetterLog, LogError};
use progress::Progress;
use store::{Count, Letter, Letters, Mark, Page};

/// `documents.failed` on disk.
pub type Store = replica::Store<Letters>;
/// `documents.failed`, fed from its topic.
pub type Replica = replica::Replica<Letters>;

/// Why there is no answer, or why a job ended early.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// No letter has this key.
    #[error("no dead letter has the key {0}")]
    Unknown(LetterKey),
    /// The replica has not read its topic to its end yet.
    #[error("this process has just started and does not know all dead letters yet")]
    Behind,
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] StoreError),
    /// Kafka failed, or another job took over.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A state could not be encoded.
    #[error("the state of a dead letter cannot be encoded")]
    Encode(#[source] Failure),
    /// More letters than one job takes.
    #[error("the filter selects more than {max} open letters: narrow it, by time for example")]
    TooMany {
        /// What one job takes.
        max: usize,
    },
    /// The process is leaving.
    #[error("this process is leaving: what was done stands, call again to go on")]
    Leaving,
}

/// Answers for dead letters. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeadLetters<L, C> {
    replica: Replica,
    log: L,
    codec: C,
    lanes: LaneConfig,
    leaving: CancellationToken,
}

impl<L: LetterLog, C: RecordCodec> DeadLetters<L, C> {
    /// A letter goes back into its lane only if that is one of `lanes`. `leaving` ends jobs.
    pub fn new(replica: Replica, log: L, codec: C, lanes: LaneConfig, leaving: CancellationToken) -> Self {
        Self {
            replica,
            log,
            codec,
            lanes,
            leaving,
        }
    }

    fn ready(&self) -> Result<(), LetterError> {
        let all: BTreeSet<i32> = (0..PARTITIONS).collect();
        if self.replica.is_complete(&all) {
            Ok(())
        } else {
            Err(LetterError::Behind)
        }
    }

    /// Letters that a filter selects, the last given up first, behind `after`.
    pub async fn list(&self, filter: Filter, after: Option<Mark>, size: usize) -> Result<Page, LetterError> {
        self.ready()?;
        let page = self.replica.read(move |store| store.page(&filter, after, size));
        Ok(page.await?)
    }

    /// How many letters a filter selects, the largest count first.
    pub async fn summary(&self, filter: Filter) -> Result<Vec<Count>, LetterError> {
        self.ready()?;
        Ok(self.replica.read(move |store| store.summary(&filter)).await?)
    }

    /// A letter, and what stands of it in `documents.dlq`.
    pub async fn get(&self, key: LetterKey) -> Result<(Letter, Option<Delivery>), LetterError> {
        self.ready()?;
        let asked = key.clone();
        let known = self.replica.read(move |store| store.letter(&asked)).await?;
        let letter = known.ok_or_else(|| LetterError::Unknown(key.clone()))?;
        let redrives = match letter.record.state {
            // Counted when it left: it was buried with one less.
            LetterState::Redriven => letter.record.redrives - 1,
            LetterState::Open | LetterState::Discarded | LetterState::Unknown => letter.record.redrives,
        };
        let mut letters = self.log.letters().await?;
        while let Some(buried) = letters.next().await.transpose()? {
            if original::origin(&buried).as_ref() == Some(&key) && original::redrives(&buried) == redrives {
                return Ok((letter, Some(buried)));
            }
        }
        Ok((letter, None))
    }

    /// Does what is ordered while the stream is read. Progress comes at least every second; the last item is the end, or
    /// why it came early.
    pub fn order(
        &self,
        order: Order,
    ) -> Result<impl Stream<Item = Result<Progress, LetterError>> + Send + use<L, C>, LetterError> {
        self.ready()?;
        let job = Job::new(
            self.replica.clone(),
            self.log.clone(),
            self.codec.clone(),
            self.lanes.clone(),
            order,
        );
        Ok(job.run(self.leaving.clone()))
    }
}
