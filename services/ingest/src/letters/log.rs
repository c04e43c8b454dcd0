//! The seam to the topics of dead letters.

use std::collections::BTreeMap;
use std::future::Future;

use futures::stream::BoxStream;
use millrace_flow::{Delivery, Output};

/// The topics could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Somebody else writes now.
    #[error(
        "another redrive or discard took over, or Kafka was away for longer than a transaction may last: {0}; what was \
         done stands, call again to go on"
    )]
    TakenOver(String),
    /// A record of the batch is refused for what it is; nothing of the batch was written.
    #[error("the log refused a record: {0}")]
    Refused(String),
    /// The log does not answer, or the writer cannot go on.
    #[error("the log is away: {0}")]
    Away(String),
}

/// Reads and writes the topics of dead letters.
pub trait LetterLog: Clone + Send + Sync + 'static {
    /// The one writer.
    type Writer: LetterWriter;
    /// Becomes the one writer, in all processes: the one before is fenced, and what it left open is undone, before this
    /// returns. Waits for the log.
    fn take_over(&self) -> impl Future<Output = Result<Self::Writer, LogError>> + Send;
    /// Where the partitions of `documents.failed` end now, whatever is not committed included.
    fn ends(&self) -> impl Future<Output = Result<BTreeMap<i32, i64>, LogError>> + Send;
    /// What stands in `documents.dlq` now, in order within each partition; then it ends.
    fn letters(&self) -> impl Future<Output = Result<BoxStream<'static, Result<Delivery, LogError>>, LogError>> + Send;
}

/// Writes batches, each whole or not at all.
pub trait LetterWriter: Send + Sync + 'static {
    /// Writes one.
    fn write(&self, outputs: Vec<Output>) -> impl Future<Output = Result<(), LogError>> + Send;
}
