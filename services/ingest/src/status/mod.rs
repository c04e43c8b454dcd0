//! The status replica: `documents.status` as a local table, so that every ingest process answers for every document.
//!
//! [`store`] says what is kept of a status and how it is found, [`view`] is what is known of a document; the rest is
//! every replica's ([`crate::replica`]).

pub mod store;
pub mod view;

use millrace_events::{DocumentKey, RequestId, Revision};

use crate::replica;
pub use crate::replica::StoreError;
pub use store::Statuses;
pub use view::{DocumentView, RevisionStatus};

/// `documents.status` on disk.
pub type Store = replica::Store<Statuses>;
/// `documents.status`, fed from its topic.
pub type Replica = replica::Replica<Statuses>;

impl Replica {
    /// What is known of a document; see [`Store::view`].
    pub async fn view(&self, document: &DocumentKey, revision: Option<Revision>) -> Result<DocumentView, StoreError> {
        let document = document.clone();
        self.read(move |store| store.view(&document, revision)).await
    }
    /// The revision that took effect for a request id; see [`Store::request`].
    pub async fn request(
        &self,
        document: &DocumentKey,
        request: RequestId,
        now_ms: i64,
    ) -> Result<Option<RevisionStatus>, StoreError> {
        let document = document.clone();
        self.read(move |store| store.request(&document, request, now_ms)).await
    }
}
