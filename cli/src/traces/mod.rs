//! Traces of the local stack: a receiver that takes them from the services, the last of them on disk, one of them as a tree.
//!
//! `millrace up` receives ([`receiver`]) and keeps ([`store`]), `millrace trace` reads what is kept, whether the stack runs
//! or not, and shows it ([`tree`]). With OTEL_EXPORTER_OTLP_ENDPOINT in the environment of `up` the services send to that
//! address instead, and nothing is kept here.

/// Name of its folder and of its port.
pub const PART: &str = "traces";

pub mod receiver;
pub mod store;
pub mod tree;
