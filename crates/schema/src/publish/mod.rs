//! Schemas brought into a registry: what differs, and the versions that lack registered after two checks.
//!
//! For people and deployments. A service never registers: it would publish whatever it was built with.
//!
//! Promises:
//! - Nothing is changed in the registry before every subject was looked at and found to be one that can be brought in line.
//! - A version is registered only if our checker and the registry both say that it fits; where they differ neither is
//!   believed.
//! - Registering twice is registering once.

mod apply;
mod diff;

pub use apply::{Applied, PublishError, Step, apply};
pub use diff::{Difference, Place, diff, diff_all};

use crate::compat::Mode;

/// A subject as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in the registry.
    pub subject: String,
    /// Its compatibility level.
    pub mode: Mode,
    /// Its versions as JSON, from version 1 on.
    pub versions: Vec<String>,
}

impl crate::folder::Folder {
    /// The subjects of a folder. Only a folder that was checked has all its versions here.
    pub fn wanted(&self) -> Vec<Wanted> {
        let wanted = |topic: &crate::folder::Topic| Wanted {
            subject: self.settings.subject_of(&topic.name),
            mode: self.settings.mode_of(&topic.name),
            versions: topic
                .versions
                .iter()
                .filter_map(|v| v.text().map(str::to_owned))
                .collect(),
        };
        self.topics.iter().map(wanted).collect()
    }
}
