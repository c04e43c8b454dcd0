//! A backend that can be made, and how much patience there is with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::ModelError;
use crate::model::backend::Backend;

/// A canary is three short sentences.
const CANARY_LIMIT: Duration = Duration::from_secs(10);

/// Makes a backend: blocking work of seconds.
pub type Make = dyn Fn() -> Result<Box<dyn Backend>, ModelError> + Send + Sync;

/// A backend that can be made, as often as it is lost.
#[derive(Clone)]
pub struct Candidate {
    /// For people: `cuda`, `cpu`, `endpoint`.
    pub name: &'static str,
    /// How to make it.
    pub make: Arc<Make>,
    /// It runs elsewhere: making it anew changes nothing.
    pub remote: bool,
    /// Longest time for one batch. Whatever takes longer hangs.
    pub call_limit: Duration,
}

/// How much patience there is with backends.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Longest time to make one.
    pub start: Duration,
    /// How long the first rest of a lost one is, and the longest: each is twice the one before. At an endpoint each is the
    /// first.
    pub rest: (Duration, Duration),
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            rest: (Duration::from_secs(1), Duration::from_secs(60)),
        }
    }
}

impl Candidate {
    pub(super) fn canary_limit(&self) -> Duration {
        CANARY_LIMIT.min(self.call_limit)
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
