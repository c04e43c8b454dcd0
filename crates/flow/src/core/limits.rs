//! Bounds of a stage.

use serde::{Deserialize, Serialize};

/// Bounds of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Records that run at once.
    pub max_in_flight: usize,
    /// Bytes of records received and not finished, over all partitions.
    pub window_bytes: usize,
    /// Records of a transaction.
    pub transaction_records: usize,
    /// Bytes of a transaction's outputs.
    pub transaction_bytes: usize,
    /// Age of a finished record at which a transaction is begun for it, in milliseconds.
    pub transaction_age_ms: u64,
    /// Time that running records have to finish when the stage leaves, in milliseconds; below the session timeout.
    pub drain_ms: u64,
    /// Attempts of a record that fails, before it is a dead letter.
    pub attempts: u32,
    /// Largest output in bytes: key, value and headers. A dead letter may be twice as large.
    pub output_bytes: usize,
    /// How long one record may say that a dependency is away while others succeed, in milliseconds; after that it fails.
    pub blame_ms: u64,
    /// How long the gate may be shut, in milliseconds, before the stage stops fetching and says that it is not ready.
    pub gate_patience_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            window_bytes: 64 << 20,
            transaction_records: 4000,
            transaction_bytes: 16 << 20,
            transaction_age_ms: 20,
            drain_ms: 15_000,
            attempts: 3,
            output_bytes: 4 << 20,
            blame_ms: 300_000,
            gate_patience_ms: 60_000,
        }
    }
}
