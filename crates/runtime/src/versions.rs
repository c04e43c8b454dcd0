//! Which registered versions of a topic's schema this build reads.
//!
//! | the version | then |
//! |---|---|
//! | is no schema | unreadable: `NOT_A_SCHEMA` |
//! | does not resolve to this build's, by Avro's rules | unreadable: the rule that it breaks |
//! | resolves, and says what our decoder does not read | unreadable: `NOT_DECODED` |
//! | holds a type within itself | unreadable: `UNBOUNDED`, a record of it could be deeper than any stack |
//! | else | readable, with whatever it says |

use std::fmt::{self, Display, Formatter};

use apache_avro::Schema;
use millrace_events::proof::{self, ProofError};
use millrace_events::topics::Topic;
use millrace_rpc::error::chain;
use millrace_schema::{Registry, RegistryError, avro, compat};

/// Why a version cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Where in this build's schema; empty for the schema as a whole.
    pub path: String,
    /// A stable code.
    pub rule: String,
    /// For people.
    pub message: String,
}

impl Display for Unreadable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        write!(f, "at {path}: {}: {}", self.rule, self.message)
    }
}

/// A version of a topic's schema as this build's decoder wants it, if it reads all that can be written with it.
pub fn readable(topic: &Topic, text: &str) -> Result<Schema, Unreadable> {
    let refused = |rule: &str, message: String| Unreadable {
        path: String::new(),
        rule: rule.to_owned(),
        message,
    };
    let parsed = |text| avro::Schema::lenient(text).map_err(|problem| refused("NOT_A_SCHEMA", problem.message));
    let own = topic
        .schema
        .ok_or_else(|| refused("NO_SCHEMA", format!("{} carries raw bytes", topic.name)))?;
    if let Some(mismatch) = compat::reads(&parsed(own)?, &parsed(text)?).into_iter().next() {
        return Err(Unreadable {
            path: mismatch.path,
            rule: mismatch.rule.to_string(),
            message: mismatch.message,
        });
    }
    let schema = Schema::parse_str(text).map_err(|error| refused("NOT_A_SCHEMA", chain(&error)))?;
    match proof::prove(topic, &schema) {
        Ok(()) => Ok(schema),
        Err(error @ ProofError::Sample(_)) => Err(refused("UNBOUNDED", chain(&error))),
        Err(error @ (ProofError::Decode { .. } | ProofError::NoRecord { .. })) => {
            Err(refused("NOT_DECODED", chain(&error)))
        }
    }
}

/// The version of a subject that has this id; none if no version has.
pub async fn version_of(registry: &Registry, subject: &str, id: u32) -> Result<Option<i32>, RegistryError> {
    let mut registered = registry.registered(subject).await?.into_iter();
    Ok(registered.find(|found| found.id == id).map(|found| found.version))
}
