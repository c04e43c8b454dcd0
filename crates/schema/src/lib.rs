//! The schema registry, as services and `millrace schema` see it: any that speaks Confluent's API (Confluent, Apicurio,
//! Karapace).
//!
//! Promises:
//! - An outage is told from a refusal: [`RegistryError::is_outage`] is waited for, all else needs a person.
//! - "Not registered" is only what the registry itself says; a proxy's or a wrong path's 404 is an error.
//! - Answers that can never change (a schema of an id, an id of a schema) are asked for once; failures never stay.
//! - Every call ends: connect, answer and size are bounded.
//!
//! Services only look up. Registering is for `millrace topics apply`.
//!
//! Rejected: `schema_registry_converter`, which hides which call failed and why, and decodes through untyped values.

mod registry;

pub use registry::{Access, Credentials, Registered, Registry, RegistryError, Verdict};
