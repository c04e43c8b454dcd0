//! Auditing: the index held against the log, and healed.
//!
//! 1. Read `documents.status` up to where it ends ([`ledger`]): what is live, by the log.
//! 2. Read the index through ([`look`]): heads, and points by document and revision.
//! 3. Hold them against each other ([`judge`]). What differs is only suspected: both went on meanwhile.
//! 4. Look at the suspects again, the index with care and the log up to its new end. What differs still is found.
//! 5. Heal, if that was ordered ([`repair`], [`parts`]): delete what nobody owns, move heads where all else is there, send parts of
//!    live revisions to the index stage again; look again until nothing is found or nothing changes any more.
//!
//! | an audit ends | what it did | the same order again |
//! |---|---|---|
//! | at any moment: killed, the caller gone, taken over | stands, and is right by itself | finds what is left, goes on |
//!
//! Nothing is kept of an audit. One runs at a time in a process; of repairs in several processes the last one writes.
//!
//! Rejected: to write points straight into the index from `chunks.embedded` (the stage writes the same document at the same
//! time; in the topic, one part comes after another), to send from `documents.submitted` (that is a new revision: a new
//! submit), comparing vectors and texts (a point's id follows from its revision, which never changes).

pub mod job;
pub mod judge;
pub mod ledger;
pub mod log;
pub mod look;
pub mod parts;
pub mod repair;
#[cfg(test)]
#[cfg(feature = "embedded")]
pub(crate) mod testing;

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use millrace_events::{DocumentKey, Epoch};
use millrace_runtime::codec::Codec;
use tokio::sync::{Semaphore, SetOnce};
use tokio_util::sync::CancellationToken;

use crate::index::generation::Generations;
use crate::index::{IndexError, Scope};
use job::{Event, Job};
use log::{AuditLog, LogError};

/// Documents of one audit, in the log or in the index: some 450 bytes each are held, and 2 KiB of each that is repaired.
pub const MAX_DOCUMENTS: usize = 2_000_000;

/// Why there is no audit, or why it ended early.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Another one runs.
    #[error("another audit of this index is running")]
    Running,
    /// The schemas are not known yet.
    #[error("this process has just started and does not know the schemas of the topics yet")]
    Starting,
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Kafka or the registry failed, or another repair took over.
    #[error(transparent)]
    Log(#[from] LogError),
    /// More documents than one audit takes.
    #[error("there are more than {MAX_DOCUMENTS} documents: audit one tenant at a time")]
    TooMany,
    /// A status that could be of any document.
    #[error(
        "the status at {place} cannot be read, and its key names no document: it could be of any, so none is judged \
         ({why}); find who wrote it"
    )]
    Unreadable {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// The process is leaving.
    #[error("this process is leaving: what was done stands, call again to go on")]
    Leaving,
}

/// What is to be audited.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Order {
    /// Which documents.
    pub scope: Scope,
    /// Heal what is found.
    pub repair: bool,
}

/// Starts audits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Auditor<L> {
    /// The topics.
    pub log: L,
    /// Known once the registry has answered.
    pub codec: Arc<SetOnce<Codec>>,
    /// The collections.
    pub generations: Generations,
    /// Epoch of the topics.
    pub epoch: Epoch,
    /// How long a repair waits for the index stage while nothing changes.
    pub patience: Duration,
    /// How long the index remembers that a document is deleted.
    pub keep_deleted: Duration,
    /// Ends audits.
    pub leaving: CancellationToken,
    /// One place: one audit at a time.
    pub turn: Arc<Semaphore>,
}

impl<L: AuditLog> Auditor<L> {
    /// Audits while the stream is read. The last item is the summary, or why it ended early.
    pub fn order(
        &self,
        order: Order,
    ) -> Result<impl Stream<Item = Result<Event, AuditError>> + Send + use<L>, AuditError> {
        let codec = self.codec.get().ok_or(AuditError::Starting)?.clone();
        let turn = Arc::clone(&self.turn).try_acquire_owned();
        let turn = turn.map_err(|_| AuditError::Running)?;
        Ok(job::run(Job::new(self.clone(), codec, order), turn))
    }
}

/// Whether a scope includes a document.
fn covers(scope: &Scope, document: &DocumentKey) -> bool {
    scope.tenant.as_ref().is_none_or(|tenant| *tenant == document.tenant)
        && (scope.documents.is_empty() || scope.documents.contains(document))
}
