//! What can go wrong between us and the registry.

use std::time::Duration;

/// A call to the registry that did not work. Every message names the operation, its subject or id, and the registry.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The address is not one, or what is to be used with it (credentials, authorities) cannot be.
    #[error("`{address}` cannot be used as a registry: {why}")]
    Address {
        /// What was given, without user and password.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The registry asks for patience: not before a time.
    #[error("could not {operation}: the registry at {registry} asks to be spared for {retry_after:?}")]
    RateLimited {
        /// What was asked for, with its subject or id.
        operation: String,
        /// The registry's address.
        registry: String,
        /// As its `Retry-After` says in seconds, at most an hour; a second where it does not.
        retry_after: Duration,
    },
    /// The registry is away or overloaded: wait and try again.
    #[error("could not {operation}: the registry at {registry} is away: {why}")]
    Away {
        /// What was asked for, with its subject or id.
        operation: String,
        /// The registry's address.
        registry: String,
        /// The chain of causes, or the registry's own words.
        why: String,
    },
    /// The registry answered no.
    #[error("could not {operation}: the registry at {registry} refused with HTTP {status}{}: {message}", shown(*code))]
    Refused {
        /// What was asked for, with its subject or id.
        operation: String,
        /// The registry's address.
        registry: String,
        /// HTTP status.
        status: u16,
        /// The registry's own code, for example 42201 for an invalid schema.
        code: Option<i64>,
        /// The registry's own message.
        message: String,
    },
    /// Something answered, but not as a registry does: most often a wrong path or a proxy.
    #[error(
        "could not {operation}: {registry} does not answer as a schema registry does (HTTP {status}): {why}; \
         check the registry's url, for Apicurio it ends in /apis/ccompat/v7"
    )]
    NotARegistry {
        /// What was asked for, with its subject or id.
        operation: String,
        /// The registry's address.
        registry: String,
        /// HTTP status.
        status: u16,
        /// What was expected or found.
        why: String,
    },
}

impl RegistryError {
    /// Whether waiting may help.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::RateLimited { .. })
    }
}

fn shown(code: Option<i64>) -> String {
    code.map(|c| format!(" (code {c})")).unwrap_or_default()
}
