//! Spans as every crate makes them: OpenTelemetry's API behind one small handle, and the names that they have.
//!
//! Promises:
//! - A [`Span`] is a handle: cloning it is cheap, it ends when the last clone is gone, and making one costs nothing while
//!   nobody has called [`enable`].
//! - A trace is not broken where tracing is off: a child is then its parent, and what came in goes out as it was.
//! - Names of attributes stand in [`names`], metrics in [`metrics`], as the semantic conventions have them. No text of a document is ever one.
//!
//! The SDK, which decides what is kept and sends it, is named in `crates/runtime` only.
//!
//! Rejected: spans of the `tracing` crate with a bridge. Its filter of log lines drops spans with them, a parent cannot be
//! set once a span was entered, and a record's span outlives every scope it could be entered in: it begins where the record
//! is received and ends when what came of it is committed. Log lines carry the trace's id as a field instead (ADR 22).

pub mod metrics;
pub mod names;
#[cfg(feature = "otlp")]
pub mod otlp;
mod span;
mod w3c;

pub use span::{Kind, Span, SpanBuilder, Traced, Within, enable, is_enabled, scope, span};
pub use w3c::{InvalidTraceparent, TRACEPARENT, TRACESTATE, TraceContext};
