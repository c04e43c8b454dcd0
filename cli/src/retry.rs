//! Trying a call again while a service is away or asks for patience.

use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use crate::output::Progress;

/// One call's attempts, within a time. The same request is sent again: its request_id makes it one effect.
#[derive(Debug)]
pub struct Retry {
    since: Instant,
    delay: Duration,
}

impl Retry {
    /// An outage longer than this is reported.
    const LIMIT: Duration = Duration::from_secs(60);
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(5);

    /// Before the first attempt.
    pub fn new() -> Self {
        Self {
            since: Instant::now(),
            delay: Self::FIRST,
        }
    }

    /// Waits before the next attempt, or gives the error back if there is to be none.
    ///
    /// | code | again |
    /// |---|---|
    /// | UNAVAILABLE, RESOURCE_EXHAUSTED | after the RetryInfo's delay, else 0.2 s doubling to 5 s |
    /// | DEADLINE_EXCEEDED | the same: what became of it is unknown |
    /// | UNKNOWN, INTERNAL, CANCELLED without a reason of Millrace's | the same: the connection was cut |
    /// | any other | no |
    pub async fn after(&mut self, status: Status, progress: &Progress) -> Result<(), Status> {
        let cut = millrace_rpc::error::reason(&status).is_none();
        let again = match status.code() {
            Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => true,
            Code::Unknown | Code::Internal | Code::Cancelled => cut,
            _ => false,
        };
        if !again || self.since.elapsed() >= Self::LIMIT {
            return Err(status);
        }
        if status.code() != Code::ResourceExhausted {
            progress.notice(format!("{}; trying again", millrace_rpc::error::describe(&status)));
        }
        sleep(self.next(millrace_rpc::error::retry_after(&status))).await;
        Ok(())
    }

    fn next(&mut self, asked: Option<Duration>) -> Duration {
        let base = asked.unwrap_or(self.delay);
        self.delay = (self.delay * 2).min(Self::LONGEST);
        // Many that were refused together must not come back together; never earlier than asked.
        base + base.mul_f64(rand::rng().random_range(0.0..0.3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_for_and_a_refusal_is_not() {
        let quiet = Progress::stderr();
        let mut retry = Retry::new();
        assert!(retry.after(Status::invalid_argument("x"), &quiet).await.is_err());
        let bug = millrace_rpc::error::internal("INDEX_BROKEN", "x").status();
        assert!(retry.after(bug, &quiet).await.is_err());
        assert!(retry.after(Status::unknown("h2 protocol error"), &quiet).await.is_ok());
        let mut attempts = 0;
        while retry.after(Status::unavailable("away"), &quiet).await.is_ok() {
            attempts += 1;
        }
        assert!((10..40).contains(&attempts), "{attempts}");
    }

    #[test]
    fn the_service_decides_the_delay() {
        let mut retry = Retry::new();
        let asked = Duration::from_secs(7);
        let delay = retry.next(Some(asked));
        assert!(delay >= asked && delay <= asked.mul_f64(1.3), "{delay:?}");
    }
}
