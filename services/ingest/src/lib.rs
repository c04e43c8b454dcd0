//! Ingest: accepts documents over gRPC, parses them into chunks, and tells what became of them.
//!
//! Promises:
//! - A receipt is given only for what all in-sync replicas acknowledged; a log that was re-created is noticed, and
//!   nothing more is accepted.
//! - A request id has one effect within 24 hours, whichever process it reaches.
//! - Any process answers for any document and any dead letter: each keeps replicas of the status topic and of the letters'.
//! - A dead letter is redriven once for each time it was given up, as the revision that it always was.
//! - No chunk is longer than the embedding model takes; each is an exact substring of the body at its byte offsets.
//! - A hostile body costs bounded time and memory.
//!
//! Parts: [`accept`] and [`documents`] are the two sides of `IngestService`, [`letters`] is `DeadLetterService`, [`grpc`] the
//! adapter of both; [`pipeline`] is the parse stage; [`replica`] is what replicas share, [`status`] one of them; [`codec`]
//! and [`log`] are the seams to the registry and to Kafka, [`kafka`] is what stands behind them; [`app`] wires it all.
//!
//! Rejected: answering for a document by asking the stages (they would have to be up, and to remember), a status
//! database of its own (a second truth beside the topic), truncating long sentences (the end of a text would be lost
//! silently).

pub mod accept;
pub mod app;
pub mod codec;
pub mod config;
pub mod documents;
pub mod grpc;
pub mod health;
pub mod kafka;
pub mod letters;
pub mod log;
pub mod pipeline;
pub mod recent;
pub mod replica;
pub mod status;
#[cfg(test)]
mod testing;

pub use app::IngestProcess;
pub use config::Config;

/// The epoch of the document topics that this build serves.
pub const EPOCH: millrace_events::Epoch = millrace_events::Epoch::FIRST;
