//! Schemas between teams: the client of a registry, and a checker that says what a change would break.
//!
//! Promises:
//! - An outage is told from a refusal: [`RegistryError::is_outage`] is waited for, all else needs a person.
//! - "Not registered" is only what the registry itself says; a proxy's or a wrong path's 404 is an error.
//! - Answers that can never change (a schema of an id, an id of a schema) are asked for once; failures never stay.
//! - Every call ends: connect, answer and size are bounded.
//! - [`compat::check`] gives the verdict of Java Avro 1.12, which registries ask; every no comes with its place, its rule, a
//!   reason in words and a remedy. What a registry lets through although consumers break is told apart from it.
//! - No schema makes the checker panic, overflow its stack or run for long: size, depth and work are bounded.
//!
//! Parts: `registry` asks a registry that speaks Confluent's API (Confluent, Apicurio, Karapace); [`avro`] reads schemas;
//! [`compat`] compares them; [`folder`] is a repository's folder of them, checked without a network.
//!
//! Services only look up. Registering is for people: `publish`, behind `millrace schema apply` and `topics apply`.
//!
//! Rejected: `schema_registry_converter`, which hides which call failed and why, and decodes through untyped values;
//! `apache_avro::schema_compatibility`, which says yes to pairs that break and no to good ones (ADR 18).

pub mod avro;
pub mod compat;
pub mod folder;
#[cfg(feature = "registry")]
pub mod publish;
#[cfg(feature = "registry")]
mod registry;

pub use avro::Schema;
#[cfg(feature = "registry")]
pub use registry::{Access, Credentials, CredentialsError, Registered, Registry, RegistryError, Sources, Verdict};
