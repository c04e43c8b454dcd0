//! What the outside may see of a stage. One writer (the runner), any number of readers.

use crate::stage::Origin;

/// Reads the newest picture of a stage; renewed several times a second and at each change of state.
pub type ProgressReader = tokio::sync::watch::Receiver<StageProgress>;

/// Life of a stage in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StageState {
    /// Connecting, or waiting for partitions.
    #[default]
    Starting,
    /// Holds partitions and processes what arrives.
    Running,
    /// Finishing what runs before it leaves.
    Draining,
    /// Left.
    Stopped,
    /// Holds partitions and starts nothing, as it was asked to.
    Paused,
}

/// Life of an assigned partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PartitionState {
    /// Records flow.
    #[default]
    Running,
    /// The window is full: waiting for records to finish.
    Paused,
    /// One record at a time, after a start that came to nothing: the reason says which.
    Quarantined,
    /// Finishing what runs before it is given back.
    Draining,
    /// Needs a person: the reason says why.
    Stopped,
}

/// A stage at one moment.
#[derive(Debug, Clone, Default)]
pub struct StageProgress {
    /// For example `parse`.
    pub name: String,
    /// Its consumer group.
    pub consumer_group: String,
    /// Life of the stage.
    pub state: StageState,
    /// Why it is not running, for people; empty when it is.
    pub reason: String,
    /// Why no record starts, or only one to probe, for people; empty while the gate is open.
    pub gate: String,
    /// Assigned partitions, in order.
    pub partitions: Vec<PartitionProgress>,
    /// Records finished and committed since the process started.
    pub processed: u64,
    /// Records given up since the process started: dead letters.
    pub failed: u64,
    /// Of the last five minutes: records finished, and records given up.
    pub recent: (u64, u64),
    /// Records received and not finished.
    pub window_records: u64,
    /// Bytes of them.
    pub window_bytes: u64,
    /// Newest last, bounded.
    pub last_failures: Vec<FailureSeen>,
}

/// An assigned partition at one moment.
#[derive(Debug, Clone, Default)]
pub struct PartitionProgress {
    /// Topic's name.
    pub topic: String,
    /// Partition of the topic.
    pub partition: i32,
    /// Lowest offset that is not finished.
    pub position: i64,
    /// Last stable offset less position; 0 when idle, although markers occupy offsets; none while unknown.
    pub lag_records: Option<i64>,
    /// Age of the oldest record that is not finished, in milliseconds; 0 when idle.
    pub lag_ms: i64,
    /// Life of the partition.
    pub state: PartitionState,
    /// Why it is stopped or quarantined, for people; empty when it is neither.
    pub reason: String,
}

/// A failure as it was seen.
#[derive(Debug, Clone)]
pub struct FailureSeen {
    /// The record.
    pub origin: Origin,
    /// Its key, as text.
    pub key: String,
    /// TRANSIENT, RATE_LIMITED, CONFIG, INVALID or FAILED.
    pub class: &'static str,
    /// Stable code.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When, milliseconds since 1970 UTC.
    pub at_ms: i64,
}
