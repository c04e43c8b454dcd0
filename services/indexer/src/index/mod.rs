//! The vector index, behind one trait: what a revision's life needs and nothing else.
//!
//! A collection holds two kinds of points. A **chunk** carries the vector and `(document, revision, ordinal)`. A
//! **head** carries no vector, one per document: which revision is live. The switch from one revision to the next is a
//! single conditional write of the head, in the index itself, so every replica and every replay converges to the
//! greatest revision and nothing has to be rebuilt at start.
//!
//! [`embedded`] keeps the collection inside the process; a server's engine can stand behind the same trait.

#[cfg(feature = "embedded")]
pub mod embedded;
pub mod generation;
mod traced;

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use millrace_events::{DocumentKey, Model, Revision};
use uuid::Uuid;

/// A chunk as it is written: the point's id follows from `(document, revision, ordinal)`.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkPoint {
    /// Position in the document, from 0.
    pub ordinal: i32,
    /// As many values as the collection's dimensions, all finite.
    pub vector: Vec<f32>,
    /// The chunk's text.
    pub text: String,
    /// Headings above it, outermost first.
    pub section: Vec<String>,
    /// First byte in the document.
    pub start_byte: i64,
    /// First byte behind it.
    pub end_byte: i64,
}

/// Points of one revision, written together.
#[derive(Debug, Clone, PartialEq)]
pub struct RevisionPoints {
    /// The document.
    pub document: DocumentKey,
    /// The revision.
    pub revision: Revision,
    /// Hidden from searches until [`VectorIndex::unstage`].
    pub staged: bool,
    /// The points.
    pub points: Vec<ChunkPoint>,
}

/// Which revision of a document is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The live revision; of a deleted document, the revision of its deletion.
    pub live: Revision,
    /// The one before it.
    pub previous: Option<Revision>,
    /// Whether the document is deleted.
    pub deleted: bool,
    /// The clean-up below `live` has not happened yet. While it is set the head may have moved during any search that
    /// still runs; once it is cleared the head is older than the longest search deadline.
    pub sweep: bool,
    /// Chunks of the live revision.
    pub chunk_count: u32,
    /// The part that completed the revision. It alone announces it, however often parts are replayed. -1: none does, an audit
    /// moved the head to what was announced before.
    pub part: i32,
    /// When it moved, milliseconds since 1970 UTC. For people and for forgetting deleted documents; no search and no
    /// clean-up of points depends on a clock.
    pub moved_at_ms: i64,
}

/// What a search asks of the engine, once per round.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// As many values as the collection's dimensions, all finite.
    pub vector: Vec<f32>,
    /// Only points of this tenant.
    pub filter: Filter,
    /// At most this many.
    pub limit: usize,
    /// Only points with at least this score.
    pub min_score: Option<f32>,
}

/// Which chunks a query may find. Staged ones never.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// Enforced always.
    pub tenant: millrace_events::Tenant,
    /// Only these documents; empty means all.
    pub documents: Vec<DocumentKey>,
    /// Of these documents only this revision, or nothing at all.
    pub pinned: Vec<(DocumentKey, Option<Revision>)>,
}

/// Whose points a scan reads; empty means all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scope {
    /// Only of this tenant.
    pub tenant: Option<millrace_events::Tenant>,
    /// Only of these documents.
    pub documents: Vec<DocumentKey>,
}

/// A point as a scan meets it, without vector and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// A document's head.
    Head(DocumentKey, Head),
    /// A chunk.
    Chunk {
        /// Its document.
        document: DocumentKey,
        /// Its revision.
        revision: Revision,
        /// Position in the document.
        ordinal: i32,
        /// Hidden from searches.
        staged: bool,
    },
}

/// A page of a scan, in order of the points' ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The points.
    pub points: Vec<Stored>,
    /// Where the next page begins; none after the last one.
    pub next: Option<Uuid>,
}

/// A chunk that a query found, with its similarity.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its document.
    pub document: DocumentKey,
    /// Its revision, live or not: compare with the head.
    pub revision: Revision,
    /// Cosine similarity.
    pub score: f32,
    /// Position in the document.
    pub ordinal: i32,
    /// The chunk's text.
    pub text: String,
    /// Headings above it.
    pub section: Vec<String>,
    /// First byte in the document.
    pub start_byte: i64,
    /// First byte behind it.
    pub end_byte: i64,
}

/// Why the index did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IndexError {
    /// The engine is away or its storage failed: the same call may work later.
    #[error("the index could not {operation}: {message}")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// What the engine said.
        message: String,
    },
    /// The engine refuses the request itself; the same call never works.
    #[error("the index refused to {operation}: {message}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// What the engine said.
        message: String,
    },
    /// A stored point is not what this version writes.
    #[error("point {point} of the index cannot be read: {message}")]
    Unreadable {
        /// Id of the point.
        point: String,
        /// Which field, and why.
        message: String,
    },
}

impl IndexError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "INDEX_UNAVAILABLE",
            Self::Refused { .. } => "INDEX_REFUSED",
            Self::Unreadable { .. } => "INDEX_UNREADABLE",
        }
    }
}

/// Result of one operation.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, IndexError>>;

/// One generation's collection.
///
/// Every write is idempotent. Order counts where [`crate::publish`] says so: an operation that has answered is seen by
/// every operation that starts after it. Nothing survives a power loss before [`VectorIndex::flush`] has answered.
pub trait VectorIndex: Send + Sync + 'static {
    /// Writes chunks; replaces those of equal id.
    fn write(&self, points: RevisionPoints) -> Answer<'_, ()>;
    /// The exact number of chunks of a revision.
    fn count(&self, document: DocumentKey, revision: Revision) -> Answer<'_, u64>;
    /// Shows a revision's chunks to queries.
    fn unstage(&self, document: DocumentKey, revision: Revision) -> Answer<'_, ()>;
    /// Writes the head if there is none or its `live` is smaller; else changes nothing.
    fn move_head(&self, document: DocumentKey, head: Head) -> Answer<'_, ()>;
    /// The heads of those documents that have one.
    fn heads(&self, documents: Vec<DocumentKey>) -> Answer<'_, HashMap<DocumentKey, Head>>;
    /// Deletes chunks of revisions smaller than this one. Never the head, never greater ones.
    fn delete_below(&self, document: DocumentKey, revision: Revision) -> Answer<'_, ()>;
    /// Documents whose head still has `sweep` set, at most so many, in no order.
    fn to_sweep(&self, limit: usize) -> Answer<'_, Vec<(DocumentKey, Revision)>>;
    /// Sets or clears `sweep` of the head, if `live` is still this revision.
    fn mark_sweep(&self, document: DocumentKey, live: Revision, sweep: bool) -> Answer<'_, ()>;
    /// Forgets heads of documents deleted before this time whose clean-up is done.
    fn forget_deleted(&self, before_ms: i64) -> Answer<'_, ()>;
    /// Deletes chunks of exactly this revision, from this ordinal on. Never the head.
    fn delete_chunks(&self, document: DocumentKey, revision: Revision, from_ordinal: i32) -> Answer<'_, ()>;
    /// Deletes the head, if `live` is still this revision.
    fn delete_head(&self, document: DocumentKey, live: Revision) -> Answer<'_, ()>;
    /// A page of at most so many points, from the first one or from where the page before ended. Points that come or go
    /// meanwhile may be met or not; all others are met once.
    fn scan(&self, scope: Scope, from: Option<Uuid>, limit: usize) -> Answer<'_, Page>;
    /// The nearest chunks, best first.
    fn search(&self, query: Query) -> Answer<'_, Vec<Found>>;
    /// Makes every write that has answered durable.
    fn flush(&self) -> Answer<'_, ()>;
}

/// Opens or creates the collection of a model. Blocks.
pub trait OpenIndex: Send + Sync + 'static {
    /// Opens it under `folder`, which is this generation's own; creates it if the folder is empty or missing.
    fn open(&self, folder: &std::path::Path, model: &Model) -> Result<Arc<dyn VectorIndex>, IndexError>;
}
