//! What a registry has, against what it is to have.

use serde::Serialize;

use super::Wanted;
use crate::{Registered, Registry, RegistryError};

/// One subject: wanted against registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The subject.
    pub subject: String,
    /// The compatibility level that it is to have.
    pub wanted_level: String,
    /// Its own level; none if it has none, and the registry's applies.
    pub level: Option<String>,
    /// What became of each wanted version, and of each registered one beyond them.
    pub versions: Vec<Place>,
}

/// One version.
///
/// | wanted | registered at its place | state |
/// |---|---|---|
/// | yes | the same | SAME |
/// | yes | nothing | MISSING |
/// | yes | another schema | DIFFERENT |
/// | no | a schema | EXTRA |
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "UPPERCASE")]
pub enum Place {
    /// Registered as it is wanted.
    Same {
        /// Number in the folder.
        version: usize,
        /// Number in the registry: a deleted version leaves a gap there.
        registered: i32,
        /// The schema's id.
        id: u32,
    },
    /// Not registered.
    Missing {
        /// Number in the folder.
        version: usize,
    },
    /// Another schema stands in its place.
    Different {
        /// Number in the folder.
        version: usize,
        /// The number in the registry of what stands there.
        registered: i32,
        /// The id of what stands there.
        id: u32,
    },
    /// Registered and not wanted.
    Extra {
        /// Number in the registry.
        registered: i32,
        /// The schema's id.
        id: u32,
    },
}

impl Difference {
    /// Whether the registry has exactly what is wanted.
    pub fn is_none(&self) -> bool {
        self.same_level() && self.versions.iter().all(|v| matches!(v, Place::Same { .. }))
    }

    /// Whether the subject has the level that it is to have.
    pub fn same_level(&self) -> bool {
        self.level.as_deref() == Some(self.wanted_level.as_str())
    }

    /// Whether registering what is missing brings the registry in line: nothing stands where it would have to stand.
    ///
    /// Versions beyond all that are wanted are fine where none is missing: the registry knows a newer folder.
    pub fn can_be_applied(&self) -> bool {
        let any = |state: fn(&Place) -> bool| self.versions.iter().any(state);
        let extra_and_missing =
            any(|v| matches!(v, Place::Extra { .. })) && any(|v| matches!(v, Place::Missing { .. }));
        !extra_and_missing && !any(|v| matches!(v, Place::Different { .. }))
    }
}

/// Compares each subject.
pub async fn diff_all(registry: &Registry, wanted: &[Wanted]) -> Result<Vec<Difference>, RegistryError> {
    let mut differences = Vec::new();
    for subject in wanted {
        differences.push(diff(registry, subject).await?);
    }
    Ok(differences)
}

/// Compares one subject.
pub async fn diff(registry: &Registry, wanted: &Wanted) -> Result<Difference, RegistryError> {
    let registered = registry.registered(&wanted.subject).await?;
    compare(registry, wanted, &registered).await
}

/// Compares one subject with the versions that it has.
pub(super) async fn compare(
    registry: &Registry,
    wanted: &Wanted,
    registered: &[Registered],
) -> Result<Difference, RegistryError> {
    let level = registry.compatibility(&wanted.subject).await?;
    let mut versions = Vec::new();
    for (place, schema) in wanted.versions.iter().enumerate() {
        let version = place + 1;
        versions.push(match registered.get(place) {
            None => Place::Missing { version },
            Some(found) if is(registry, &wanted.subject, schema, found).await? => Place::Same {
                version,
                registered: found.version,
                id: found.id,
            },
            Some(found) => Place::Different {
                version,
                registered: found.version,
                id: found.id,
            },
        });
    }
    versions.extend(registered.iter().skip(wanted.versions.len()).map(|found| Place::Extra {
        registered: found.version,
        id: found.id,
    }));
    Ok(Difference {
        subject: wanted.subject.clone(),
        wanted_level: wanted.mode.to_string(),
        level,
        versions,
    })
}

/// Whether a registered version is this schema. Registries write schemas anew, each in its own way: where the JSON differs,
/// the registry itself says under which id it has ours.
async fn is(registry: &Registry, subject: &str, schema: &str, found: &Registered) -> Result<bool, RegistryError> {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    match (json(schema), json(&found.schema)) {
        (Some(ours), Some(theirs)) if ours == theirs => Ok(true),
        _ => Ok(registry.lookup(subject, schema).await? == Some(found.id)),
    }
}
