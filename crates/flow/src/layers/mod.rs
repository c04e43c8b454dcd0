//! Layers around a stage's service, put together by the service itself, outermost first:
//!
//! ```text
//! ServiceBuilder::new()
//!     .layer(TraceLayer::new("parse"))              one span a record
//!     .layer(GateLayer::new(gate))                  no record starts while a dependency asks for patience
//!     .concurrency_limit(calls.concurrency)         tower's own
//!     .layer(TimeoutLayer::new(calls.timeout()))    tower's own, with a stage's failure
//!     .service(parse)
//! ```
//!
//! What they decide is about one call and no more: whether a record is tried again, and when, is the core's. The time-out
//! stands innermost, so that waiting for a turn counts for nothing.

mod gate;
mod timeout;
mod trace;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use gate::{GateLayer, Gated};
pub use timeout::{Timed, TimeoutLayer};
pub use trace::{TraceLayer, Traced};

/// How a stage's service is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Calls {
    /// Records that the service works on at once; others of the stage's `max_in_flight` wait for their turn.
    pub concurrency: usize,
    /// Longest time that it works on one record, in milliseconds, its turn not counted. A record that takes longer is
    /// tried again.
    pub timeout_ms: u64,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            concurrency: 256,
            timeout_ms: 300_000,
        }
    }
}

impl Calls {
    /// [`Self::timeout_ms`].
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

#[cfg(test)]
mod tests;
