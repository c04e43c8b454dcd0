//! What the status topic says of a document.

use millrace_events::{DocumentStatus, Lane, Revision, State};
use serde::{Deserialize, Serialize};

/// State of one revision, as its newest record says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionStatus {
    /// The record.
    pub record: DocumentStatus,
    /// Trace id of the revision; empty when its records carried none.
    pub trace_id: String,
    /// The document's lane.
    #[serde(default)]
    pub lane: Lane,
}

impl RevisionStatus {
    /// A deletion on its way, or an empty document.
    pub fn is_parsed_without_chunks(&self) -> bool {
        self.record.state == State::Parsed && self.record.chunk_count == 0
    }

    /// Whether nothing but a redrive changes it any more.
    pub fn is_final(&self) -> bool {
        match self.record.state {
            State::Indexed | State::Deleted | State::Failed | State::Superseded | State::DuplicateOf => true,
            State::Parsed | State::Unknown => false,
        }
    }
}

/// What is known of a document: the revision asked for, and the two that matter beside it.
///
/// | statuses by revision | latest | live |
/// |---|---|---|
/// | none | none | none |
/// | 1 PARSED | 1 | none |
/// | 1 INDEXED, 2 PARSED | 2 | 1 |
/// | 1 INDEXED, 2 DELETED | 2 | none |
/// | 1 INDEXED, 2 DELETED, 3 PARSED | 3 | none |
/// | 1 SUPERSEDED, 2 INDEXED, 3 FAILED | 3 | 2 |
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DocumentView {
    /// Status of the revision asked for, or of the latest one.
    pub status: Option<RevisionStatus>,
    /// Greatest revision with a status.
    pub latest: Option<Revision>,
    /// The revision that a search sees.
    pub live: Option<Revision>,
    /// The lane that the document is in; none where it was never parsed, or has been deleted since.
    pub lane: Option<Lane>,
}
