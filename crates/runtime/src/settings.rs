//! Sections that the configuration of every service has.

use millrace_flow::layers::Calls;
use millrace_flow::runner::Limits;
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// `[registry]`: the schema registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Address of its Confluent-compatible API: `http://host:port`, and a path if it has one.
    pub url: String,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8081".into(),
        }
    }
}

/// Name of a process that is given none: its host's, which in a StatefulSet is stable and nobody else's.
pub fn default_instance() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Longest drain, in milliseconds: with the last words of what is cut off it stays below a session of 30 s.
const MAX_DRAIN_MS: u64 = 20_000;

/// Refuses bounds of a stage, `[stage]` and `[calls]`, with which no record would ever be done, or be done twice at once.
pub fn check_stage(stage: &Limits, calls: &Calls) -> Result<(), ConfigError> {
    let rows = [
        ("stage.max_in_flight", stage.max_in_flight > 0, "no record would run"),
        (
            "stage.window_bytes",
            stage.window_bytes > 0,
            "no record would be received",
        ),
        ("calls.concurrency", calls.concurrency > 0, "no record would run"),
        (
            "calls.timeout_ms",
            calls.timeout_ms > 0,
            "no record would be done in time",
        ),
    ];
    if stage.drain_ms > MAX_DRAIN_MS {
        return Err(ConfigError::refused(
            "stage.drain_ms",
            format!("must be at most {MAX_DRAIN_MS}: the group would give the partitions away before they are drained"),
        ));
    }
    match rows.into_iter().find(|(_, usable, _)| !usable) {
        None => Ok(()),
        Some((key, _, why)) => Err(ConfigError::refused(key, format!("must be at least 1: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_can_do_nothing_is_refused_by_its_key() {
        type Change = fn(&mut Limits, &mut Calls);
        let rows: [(Change, Option<&str>); 7] = [
            (|_, _| {}, None),
            (|stage, _| stage.max_in_flight = 0, Some("stage.max_in_flight")),
            (|stage, _| stage.window_bytes = 0, Some("stage.window_bytes")),
            (|stage, _| stage.drain_ms = 20_000, None),
            (|stage, _| stage.drain_ms = 20_001, Some("stage.drain_ms")),
            (|_, calls| calls.concurrency = 0, Some("calls.concurrency")),
            (|_, calls| calls.timeout_ms = 0, Some("calls.timeout_ms")),
        ];
        for (change, key) in rows {
            let (mut stage, mut calls) = (Limits::default(), Calls::default());
            change(&mut stage, &mut calls);
            let refused = check_stage(&stage, &calls).err().map(|e| e.to_string());
            assert_eq!(refused.is_some(), key.is_some());
            assert!(key.is_none_or(|key| refused.is_some_and(|text| text.contains(key))));
        }
    }
}
