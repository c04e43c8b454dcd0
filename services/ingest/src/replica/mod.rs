//! Replicas of compacted topics: each a local table, so that every ingest process answers for every document.
//!
//! [`store`] keeps the records with their offsets in one file; [`feed`] owns the store, feeds it from the topic and tells
//! watchers. What is kept of a topic, and how it is asked for, is its [`Kept`]: see [`crate::status`] and
//! [`crate::letters`]. A replica is derived: whatever is wrong with it, it is thrown away and read again.

pub mod feed;
pub mod store;

pub use feed::{Event, Feed, Replica, ReplicaError, Standing, replica};
pub use store::{Batch, Change, ChangeOf, Kept, Store, StoreError};
