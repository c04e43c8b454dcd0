//! Record headers. Trace context and redrive marks are headers, never part of a record's body.

/// The document's one trace: `traceparent`, and `tracestate` that travels with it.
pub use millrace_telemetry::{TRACEPARENT, TRACESTATE};

/// Set on what comes of a document that is in a lane, from `documents.parsed.<lane>` on: the lane.
pub const LANE: &str = "millrace-lane";
/// Set on a redriven record: the revision it had, since its offset no longer says it.
pub const REVISION: &str = "millrace-revision";
/// Set on a redriven record: how often it was redriven, from 1.
pub const REDRIVE: &str = "millrace-redrive";
/// Set on a record of `chunks.embedded` that an audit of the index has sent again: its revision was announced before, so the
/// index is restored from it and nothing is announced. `1`.
pub const RESTORE: &str = "millrace-restore";
/// On a dead letter: a stable reason code.
pub const FAILURE_REASON: &str = "failure_reason";
/// On a dead letter: the stage that gave up.
pub const FAILURE_STAGE: &str = "failure_stage";
/// On a dead letter: attempts before it was given up.
pub const FAILURE_ATTEMPTS: &str = "failure_attempts";
/// On a dead letter and on what is redriven from it: where the record first stood, as a [`crate::LetterKey`]. After a
/// redrive its place no longer says it.
pub const ORIGIN: &str = "millrace-origin";
/// On a dead letter and on what is redriven from it: when it was first given up, milliseconds since 1970 UTC, as digits.
pub const FIRST_FAILED_AT_MS: &str = "millrace-first-failed-at-ms";
/// On a dead letter and on what is redriven from it: the record's own timestamp, milliseconds since 1970 UTC, as digits.
pub const ORIGINAL_TIMESTAMP_MS: &str = "millrace-original-timestamp-ms";
/// On a dead letter whose original had no key, which is not the same as an empty one: `1`.
pub const KEY_ABSENT: &str = "millrace-key-absent";
/// On a dead letter whose original is larger than `documents.dlq` takes: its size in bytes, as digits. Its key, value and
/// headers are left out; they stand where [`ORIGIN`] says, as long as that topic keeps them.
pub const ORIGINAL_OMITTED: &str = "millrace-original-omitted";
/// Kafka Connect's names of what a dead letter tells, so that its tools read ours. All UTF-8.
pub mod connect {
    /// Topic that the record was read from.
    pub const TOPIC: &str = "__connect.errors.topic";
    /// Partition that the record was read from.
    pub const PARTITION: &str = "__connect.errors.partition";
    /// Offset that the record was read at.
    pub const OFFSET: &str = "__connect.errors.offset";
    /// The stage that gave up.
    pub const STAGE: &str = "__connect.errors.stage";
    /// Class of the failure: INVALID or FAILED.
    pub const EXCEPTION_CLASS: &str = "__connect.errors.exception.class.name";
    /// A sentence for people.
    pub const EXCEPTION_MESSAGE: &str = "__connect.errors.exception.message";
}
