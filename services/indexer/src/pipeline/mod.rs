//! The indexer's own work, one file a stage.

pub mod index;
