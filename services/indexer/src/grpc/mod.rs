//! Adapters: request → domain → Status.

pub mod search;
