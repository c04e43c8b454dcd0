//! Adapters: request → domain → Status.

pub mod audit;
pub mod search;
