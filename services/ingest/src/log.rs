//! The seams to the log: appending commands, and asking where partitions end.

use std::future::Future;

use millrace_events::DocumentKey;
use millrace_flow::Output;

/// Where a command was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Partition of `documents.submitted`.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
}

/// Why a command has no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Larger than a record may be; not written.
    #[error("the record is larger than the log takes")]
    TooLarge,
    /// Too many wait to be acknowledged; not written.
    #[error("too many commands wait for the log")]
    QueueFull,
    /// No answer in time; it may stand in the log.
    #[error("the log did not answer: {0}")]
    OutcomeUnknown(String),
    /// Refused; not written.
    #[error("the log refused the command: {0}")]
    Refused(String),
}

/// Appends to `documents.submitted`; acknowledged by all in-sync replicas when it returns.
pub trait CommandLog: Send + Sync + 'static {
    /// Appends one record.
    fn append(&self, output: Output) -> impl Future<Output = Result<Position, AppendError>> + Send;
}

/// The log could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log cannot be asked for its ends: {0}")]
pub struct EndsError(pub String);

/// Where partitions begin and end.
pub trait LogEnds: Clone + Send + Sync + 'static {
    /// First offset and end of the partition of `documents.submitted` that a document lives in.
    fn submitted(&self, document: &DocumentKey) -> impl Future<Output = Result<(i64, i64), EndsError>> + Send;
    /// End of a partition of `documents.status`, transaction markers included.
    fn status_end(&self, partition: i32) -> impl Future<Output = Result<i64, EndsError>> + Send;
}
