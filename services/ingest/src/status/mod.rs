//! The status replica: `documents.status` as a local table, so that every ingest process answers for every document.
//!
//! [`store`] keeps the records with their offsets in one file; [`view`] is what is known of a document; [`replica`] owns
//! the store, feeds it from the topic and tells watchers. The replica is derived: whatever is wrong with it, it is
//! thrown away and read again.

pub mod replica;
pub mod store;
pub mod view;

pub use replica::Replica;
pub use store::{Store, StoreError};
pub use view::{DocumentView, RevisionStatus};
