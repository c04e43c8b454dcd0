//! A consumer group's life, as its coordinator wrote it down in `__consumer_offsets`: the only place that tells of
//! generations, and of those that are over.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::log;
use crate::wire::Answer;

/// Where the coordinator writes.
const TOPIC: &str = "__consumer_offsets";
/// The key of a record about a classic group as a whole.
const GROUP_METADATA: i16 = 2;
/// The version of its value that has static members and no tagged fields.
const VERSION: i16 = 3;

/// A group at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Rises with each rebalance.
    pub generation: i32,
    /// Members by instance name.
    pub members: BTreeMap<String, Member>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// A process that joins gets a new one.
    pub id: String,
    /// How long it may be silent.
    pub session_ms: i32,
}

/// A group's life so far, in order; the last is how it is now. A static member that came back adds a line with the same
/// generation.
pub async fn history(kafka: &str, group: &str) -> Result<Vec<Membership>> {
    let mut history = Vec::new();
    for record in log::records(kafka, TOPIC).await? {
        let mut key = Answer::of(record.key.as_deref().unwrap_or_default());
        if key.int16()? != GROUP_METADATA || key.string()?.as_deref() != Some(group) {
            continue;
        }
        if let Some(value) = record.value {
            history.push(membership(&value).with_context(|| format!("a record of group {group}"))?);
        }
    }
    Ok(history)
}

fn membership(value: &[u8]) -> Result<Membership> {
    let mut value = Answer::of(value);
    let version = value.int16()?;
    ensure!(version == VERSION, "version {version} is not known here");
    value.string()?;
    let generation = value.int32()?;
    // Protocol, leader, time of the last change.
    value.string()?;
    value.string()?;
    value.skip(8)?;
    let mut members = BTreeMap::new();
    for _ in 0..value.int32()? {
        let id = value.string()?.context("a member without an id")?;
        let instance = value.string()?;
        // Client, host, time for a rebalance.
        value.string()?;
        value.string()?;
        value.skip(4)?;
        let session_ms = value.int32()?;
        // Subscription, assignment.
        value.skip_bytes()?;
        value.skip_bytes()?;
        members.insert(instance.unwrap_or_else(|| id.clone()), Member { id, session_ms });
    }
    Ok(Membership { generation, members })
}
