//! Which lane a document is in: for its life, until it is deleted.
//!
//! | the document is | asked for | its tenant's rule | its lane |
//! |---|---|---|---|
//! | in a lane, or in the base lane | nothing, or that lane | any | that lane |
//! | in a lane, or in the base lane | another one | any | `Invalid` `LANE_CHANGED` |
//! | new, or deleted | a lane | any | that one |
//! | new, or deleted | nothing | a lane, none | that one, the base lane |
//! | any | a lane that is not configured | any | `Invalid` `LANE_UNKNOWN` |
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
        let wanted = match asked.lane {
            "" => None,
            name => Some(
                Lane::new(name)
                    .ok()
                    .filter(|lane| self.config.has(lane))
                    .ok_or_else(|| {
                        let message = format!("lane {name} is not configured: add it to lanes.names of every ingest");
                        invalid("LANE_UNKNOWN", message)
                    })?,
            ),
        };
        if self.config.names.is_empty() {
            return Ok(Lane::BASE);
        }
        let lane = match (self.known(asked).await?, wanted) {
            (Some(is_in), Some(wanted)) if is_in != wanted => {
                let message =
                    format!("the document is in lane {is_in} and stays there until it is deleted, not {wanted}");
                return Err(invalid("LANE_CHANGED", message));
            }
            (Some(is_in), _) => is_in,
            (None, Some(wanted)) => wanted,
            (None, None) => {
                let rule = self.config.tenants.get(asked.document.tenant.as_str());
                rule.cloned().unwrap_or_default()
            }
        };
        match self.config.has(&lane) {
            true => Ok(lane),
            false => {
                let message = format!("the document is in lane {lane}, which is not configured: add it to lanes.names");
                Err(invalid("LANE_UNKNOWN", message))
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
        self.recent().insert(asked.document.clone(), parsed);
    }

    async fn known(&self, asked: Asked<'_>) -> Result<Option<Lane>, Failure> {
        let view = self.repeats.view(asked.document, asked.partition).await?;
        let own = self.recent().get(asked.document).cloned();
        let own = own.filter(|own| view.latest.is_none_or(|latest| latest <= own.revision));
        Ok(match own {
            Some(own) => own.lane,
            None => view.lane,
        })
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent<DocumentKey, Parsed>> {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn invalid(reason: &'static str, message: String) -> Failure {
    Failure::Invalid { reason, message }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
