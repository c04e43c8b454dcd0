use std::collections::BTreeMap;

use millrace_events::Lane;
use millrace_runtime::config::ConfigError;
use serde::{Deserialize, Serialize};

use crate::batch::MOST_WEIGHT;

/// `[lanes]`: documents of a lane stand in a topic of their own and are embedded by its weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lanes {
    /// Weight of documents that are in no lane.
    pub base: u32,
    /// Weight of each lane: all that ingest knows.
    pub weights: BTreeMap<Lane, u32>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            base: 1,
            weights: BTreeMap::new(),
        }
    }
}

impl Lanes {
    /// Each lane with its weight, the base lane first.
    pub fn all(&self) -> impl Iterator<Item = (Lane, u32)> {
        let named = self.weights.iter().map(|(lane, weight)| (lane.clone(), *weight));
        std::iter::once((Lane::BASE, self.base)).chain(named)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.weights.contains_key(&Lane::BASE) {
            return Err(ConfigError::refused(
                "lanes.weights",
                "has an empty name: the base lane's weight is lanes.base",
            ));
        }
        match self.all().find(|(_, weight)| !(1..=MOST_WEIGHT).contains(weight)) {
            None => Ok(()),
            Some((lane, weight)) => {
                let message = format!("lane {lane} has weight {weight}: a weight is 1 to {MOST_WEIGHT}");
                Err(ConfigError::refused("lanes", &message))
            }
        }
    }
}
