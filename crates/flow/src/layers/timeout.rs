//! A bound on the time of a call: tower's, with a failure that a stage's runtime understands.
//!
//! | the service | becomes |
//! |---|---|
//! | answers in time | its answer |
//! | does not | `Transient` `TIMEOUT`: most often something it needs is away; its future is dropped |

use std::time::Duration;

use tower::timeout::Timeout;
use tower::timeout::error::Elapsed;
use tower::util::MapErr;
use tower::{BoxError, Layer, ServiceExt as _};

use crate::stage::{Delivery, Failure};

/// Reason of a call that took too long.
const TIMEOUT: &str = "TIMEOUT";

/// Bounds the time of each call.
#[derive(Debug, Clone, Copy)]
pub struct TimeoutLayer {
    limit: Duration,
}

/// A service whose calls are bounded in time.
pub type Timed<S> = MapErr<Timeout<S>, fn(BoxError) -> Failure>;

impl TimeoutLayer {
    /// Calls may take this long.
    pub fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<S> Layer<S> for TimeoutLayer
where
    Timeout<S>: tower::Service<Delivery, Error = BoxError>,
{
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timeout::new(inner, self.limit).map_err(failure as fn(BoxError) -> Failure)
    }
}

fn failure(error: BoxError) -> Failure {
    match error.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(error) if error.is::<Elapsed>() => Failure::Transient {
            reason: TIMEOUT,
            message: "the record was not done within calls.timeout_ms".to_owned(),
        },
        // Tower's time-out makes no other error, and the service's own is a failure.
        Err(error) => Failure::Failed {
            reason: "UNKNOWN_ERROR",
            message: error.to_string(),
        },
    }
}
