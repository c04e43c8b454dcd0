//! Millrace's indexer: makes revisions searchable as a whole, and searches.
//!
//! Promises:
//! - **A revision appears whole.** Search sees all of a document's old revision or all of the new one: never none, never
//!   a mixture. The switch is one conditional write in the index itself ([`publish`]), and a search holds on to the
//!   revision it met first ([`search`]).
//! - **Effectively once.** Writes are idempotent and fenced by revision: replays, late parts and a process that was
//!   thought dead change nothing that a search sees. Each revision that went live is announced once.
//! - **INDEXED means searchable**, durably: what is announced has been flushed.
//! - Old points go only when no search can still want them ([`sweep`]).
//!
//! Parts: [`index`] is the engine behind a trait and the data folder; [`publish`], [`search`] and [`sweep`] are the
//! three algorithms on it; [`pipeline`] the stage between the topics; [`grpc`] the SearchService; [`app`] puts them
//! together.
//!
//! Rejected: a map of live revisions in memory, rebuilt from a topic at start (two truths, and no second replica);
//! deleting the old revision before or with the new one's write (searches see none, or a mixture); `delete where
//! revision ≠ live` (takes a revision that is just being written).

// The one engine there is so far.
#[cfg(feature = "embedded")]
pub mod app;
pub mod audit;
pub mod config;
pub mod embedder;
pub mod grpc;
pub mod index;
pub mod pipeline;
pub mod publish;
pub mod search;
pub mod sweep;

#[cfg(feature = "embedded")]
pub use app::IndexerProcess;
pub use config::Config;
