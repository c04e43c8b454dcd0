//! Record headers. Trace context and redrive marks are headers, never part of a record's body.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// W3C trace context of the document's one trace.
pub const TRACEPARENT: &str = "traceparent";
/// W3C vendor state that travels with [`TRACEPARENT`].
pub const TRACESTATE: &str = "tracestate";
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

/// A W3C `traceparent` (version 00) with the `tracestate` that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

/// A text that is not a `traceparent` of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a traceparent is 00-<32 hex digits, not all 0>-<16 hex digits, not all 0>-<2 hex digits>")]
pub struct InvalidTraceparent;

impl TraceContext {
    /// Starts a trace, sampled.
    pub fn generate() -> Self {
        let trace = Uuid::new_v4().simple();
        let span = &Uuid::new_v4().simple().to_string()[..16];
        Self {
            traceparent: format!("00-{trace}-{span}-01"),
            tracestate: None,
        }
    }
    /// Adds the vendor state that came with the traceparent.
    #[must_use]
    pub fn with_tracestate(mut self, tracestate: Option<String>) -> Self {
        self.tracestate = tracestate.filter(|s| !s.is_empty() && s.len() <= 512);
        self
    }
    /// The trace id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.traceparent[3..35]
    }
    /// The whole `traceparent`.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }
    /// The `tracestate`, if one came.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;
    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let fields: Vec<&str> = text.split('-').collect();
        let [version, trace, span, flags] = fields[..] else {
            return Err(InvalidTraceparent);
        };
        let hex = |s: &str, len: usize| s.len() == len && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let set = |s: &str| s.bytes().any(|b| b != b'0');
        if version == "00" && hex(trace, 32) && set(trace) && hex(span, 16) && set(span) && hex(flags, 2) {
            Ok(Self {
                traceparent: text.to_owned(),
                tracestate: None,
            })
        } else {
            Err(InvalidTraceparent)
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_context_reads_back() {
        let made = TraceContext::generate();
        assert_eq!(made.traceparent().parse::<TraceContext>().unwrap(), made);
        assert_eq!(made.trace_id().len(), 32);
    }

    #[test]
    fn what_is_not_version_00_is_refused() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(good.parse::<TraceContext>().is_ok());
        for bad in [
            "",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(InvalidTraceparent), "{bad}");
        }
    }
}
