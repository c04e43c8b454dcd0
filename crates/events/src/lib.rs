//! The records of Millrace's topics as Rust types, and the rules that freeze on the first day.
//!
//! What stands here is a contract between services that are deployed apart from each other, and with readers in other
//! teams: identities and how they are written as keys ([`ids`]), topic names and their settings ([`topics`]), headers
//! ([`headers`]), point ids ([`points`]), the records themselves ([`records`]), their wire format ([`wire`]) and what can be
//! told of records that cannot be read ([`partial`]).
//! The Avro schemas are the files under `schemas/`; the Rust types are checked against them by this crate's tests.
//!
//! Promises:
//! - An identity that exists as a value is valid: constructors refuse, nothing is repaired silently.
//! - `tenant/document_id` splits at the first slash and `tenant/document_id#revision` at the last `#`, always.
//! - Decoding never panics and never trusts a length: vectors are checked against the model's dimensions.
//!
//! This crate knows neither Kafka's client, nor gRPC, nor the registry: schema ids come in as numbers.

pub mod headers;
pub mod ids;
pub mod partial;
pub mod points;
pub mod proof;
pub mod records;
pub mod samples;
pub mod topics;
pub mod wire;

pub use ids::{DocumentId, DocumentKey, Epoch, IdError, Lane, LetterKey, RequestId, Revision, StatusKey, Tenant};
pub use millrace_telemetry::TraceContext;
pub use records::*;
