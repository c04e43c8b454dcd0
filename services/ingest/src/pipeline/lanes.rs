//! Which lane a document is in: for its life, until it is deleted.
//!
//! | the document is | asked for | its tenant's rule | its lane |
//! |---|---|---|---|
//! | in a lane, or in the base lane | nothing, or that lane | any | that lane |
//! | in a lane, or in the base lane | another one | any | `Invalid` `LANE_CHANGED` |
//! | the same, and its newest revision may be its deletion | another one | any | `Away` `LANE_UNDECIDED` until that has ended |
//! | new, or deleted | a lane | any | that one |
//! | new, or deleted | nothing | a lane, none | that one, the base lane |
//! | any | a lane that is not configured here | any | `Away` `LANE_UNKNOWN`: another ingest has accepted it |
//! | any | what is no lane's name | any | `Invalid` `LANE_INVALID` |
//!
//! Here and not where commands are accepted, since all commands of a document pass here one after another. Sources are those
//! of [`super::repeats`]: the replica, and what this process parsed itself.
//!
//! Order does not rest on it: a revision that another one overtook in another lane ends as SUPERSEDED.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use millrace_events::{DocumentKey, Kind, Lane, Revision};
use millrace_flow::Failure;
use serde::{Deserialize, Serialize};

use super::repeats::{REMEMBERED, Repeats};
use crate::log::LogEnds;
use crate::recent::Recent;

/// The `[lanes]` section of ingest's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LaneConfig {
    /// Lanes that documents may be in. Each has a topic `documents.parsed.<lane>`, which every embedder must read.
    pub names: BTreeSet<Lane>,
    /// Lanes of tenants' documents that are not put into one when they are first submitted.
    pub tenants: BTreeMap<String, Lane>,
}

impl LaneConfig {
    /// Whether documents may be in it.
    pub fn has(&self, lane: &Lane) -> bool {
        lane.is_base() || self.names.contains(lane)
    }
    /// All of them, the base lane first.
    pub fn all(&self) -> impl Iterator<Item = Lane> {
        std::iter::once(Lane::BASE).chain(self.names.iter().cloned())
    }
}

/// Knows the lane of each document.
#[derive(Debug)]
pub struct Lanes<E> {
    config: LaneConfig,
    repeats: Arc<Repeats<E>>,
    parsed: Mutex<Recent<DocumentKey, Parsed>>,
}

#[derive(Debug, Clone)]
struct Parsed {
    revision: Revision,
    /// None of a delete: whoever comes after it is new.
    lane: Option<Lane>,
}

/// The lane that a document is in.
struct Known {
    lane: Lane,
    /// Its newest revision may be its deletion: nobody can tell before that has ended.
    undecided: bool,
}

/// A command, as far as its lane goes.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its document.
    pub document: &'a DocumentKey,
    /// Its own revision.
    pub revision: Revision,
    /// What it does.
    pub kind: Kind,
    /// The lane that it names, if any.
    pub lane: &'a str,
    /// Partition that it came from; the document's in every topic.
    pub partition: i32,
}

impl<E: LogEnds> Lanes<E> {
    /// Nothing parsed yet.
    pub fn new(config: LaneConfig, repeats: Arc<Repeats<E>>) -> Self {
        Self {
            config,
            repeats,
            parsed: Mutex::new(Recent::new(REMEMBERED)),
        }
    }

    /// The lane that a command's document is in.
    pub async fn of(&self, asked: Asked<'_>) -> Result<Lane, Failure> {
        let wanted = Lane::new(asked.lane).map_err(|error| invalid("LANE_INVALID", error.to_string()))?;
        self.configured(&wanted)?;
        if self.config.names.is_empty() {
            return Ok(Lane::BASE);
        }
        let lane = match (self.known(asked).await?, wanted) {
            (Some(known), wanted) if wanted.is_base() || known.lane == wanted => known.lane,
            (Some(Known { lane, undecided: true }), _) => {
                let message = format!("the document is in lane {lane}, and what may be its deletion is under way");
                return Err(away("LANE_UNDECIDED", message));
            }
            (Some(Known { lane, .. }), wanted) => {
                let message =
                    format!("the document is in lane {lane} and stays there until it is deleted, not {wanted}");
                return Err(invalid("LANE_CHANGED", message));
            }
            (None, wanted) if !wanted.is_base() => wanted,
            (None, _) => {
                let rule = self.config.tenants.get(asked.document.tenant.as_str());
                rule.cloned().unwrap_or_default()
            }
        };
        self.configured(&lane)?;
        Ok(lane)
    }

    fn configured(&self, lane: &Lane) -> Result<(), Failure> {
        match self.config.has(lane) {
            true => Ok(()),
            false => {
                let message = format!("lane {lane} is not configured here: add it to lanes.names of every ingest");
                Err(away("LANE_UNKNOWN", message))
            }
        }
    }

    /// Remembers a command that was parsed.
    pub fn parsed(&self, asked: Asked<'_>, lane: &Lane) {
        if self.config.names.is_empty() {
            return;
        }
        let parsed = Parsed {
            revision: asked.revision,
            lane: (asked.kind != Kind::Delete).then(|| lane.clone()),
        };
        let mut recent = self.recent();
        // A redrive is of an older one.
        if recent
            .get(asked.document)
            .is_none_or(|known| known.revision <= asked.revision)
        {
            recent.insert(asked.document.clone(), parsed);
        }
    }

    async fn known(&self, asked: Asked<'_>) -> Result<Option<Known>, Failure> {
        let view = self.repeats.view(asked.document, asked.partition).await?;
        let own = self.recent().get(asked.document).cloned();
        // What is parsed again, since its transaction came to nothing, does not see what came after it.
        let own = own.filter(|own| own.revision < asked.revision);
        let own = own.filter(|own| view.latest.is_none_or(|latest| latest <= own.revision));
        let undecided = view.status.is_some_and(|status| status.is_parsed_without_chunks());
        Ok(match own {
            Some(own) => own.lane.map(|lane| Known { lane, undecided: false }),
            None => view.lane.map(|lane| Known { lane, undecided }),
        })
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent<DocumentKey, Parsed>> {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn away(reason: &'static str, message: String) -> Failure {
    Failure::Away { reason, message }
}

fn invalid(reason: &'static str, message: String) -> Failure {
    Failure::Invalid { reason, message }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
