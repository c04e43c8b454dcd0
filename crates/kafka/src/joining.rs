//! How long a member that was given no assignment yet, not even an empty one, waits for its group.
//!
//! A request to join waits at the broker for the other members, so the client gives it as long as they may take between two
//! polls: ten minutes. An answer that was lost meanwhile is waited for as long. Two sessions are enough for the others to come
//! or to be missed. Who is replaced and is still given nothing gets twice the time, as who is [`crate::stalled`] does: a group
//! that is merely slow gets through.
//!
//! Only the first assignment of a session is waited for: a later join is left to the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What the client's own patience is, unless an operator sets `max.poll.interval.ms`.
const LONGEST: Duration = Duration::from_secs(600);

/// How many members of a name, one after another, were replaced without an assignment. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct JoinPatience(Arc<AtomicU32>);

impl JoinPatience {
    fn of(&self, session: Duration) -> Duration {
        let doubled = 1_u32.checked_shl(self.0.load(Ordering::SeqCst) + 1);
        session.saturating_mul(doubled.unwrap_or(u32::MAX)).min(LONGEST)
    }

    /// A member joins that is missed after `session`.
    pub(crate) fn begin(&self, session: Duration) -> Joining {
        Joining {
            replaced: self.clone(),
            patience: self.of(session),
            began: Instant::now(),
            assigned: false,
        }
    }

    fn let_in(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    fn given_up(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// One member's wait.
#[derive(Debug)]
pub(crate) struct Joining {
    replaced: JoinPatience,
    patience: Duration,
    began: Instant,
    assigned: bool,
}

impl Joining {
    /// Why the member is to be replaced, if it is. `is_assigned`: whether it was given an assignment; asked until it was.
    pub(crate) fn given_up(&mut self, is_assigned: impl FnOnce() -> bool) -> Option<String> {
        if self.assigned {
            return None;
        }
        if is_assigned() {
            self.assigned = true;
            self.replaced.let_in();
            return None;
        }
        if self.began.elapsed() <= self.patience {
            return None;
        }
        self.replaced.given_up();
        let seconds = self.patience.as_secs();
        Some(format!(
            "the consumer group has not answered a request to join for {seconds} s"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_answered_gets_twice_the_time_until_it_is() {
        let (replaced, session) = (JoinPatience::default(), Duration::from_secs(30));
        let seconds = || replaced.of(session).as_secs();
        let waits: Vec<u64> = (0..40).map(|_| (seconds(), replaced.given_up()).0).collect();
        assert_eq!(waits[..6], [60, 120, 240, 480, 600, 600]);
        assert_eq!(waits.last(), Some(&600));
        replaced.let_in();
        assert_eq!(seconds(), 60);
    }

    #[test]
    fn an_assignment_ends_the_wait_for_good() {
        let replaced = JoinPatience::default();
        assert!(replaced.begin(Duration::ZERO).given_up(|| false).is_some());
        let mut joining = replaced.begin(Duration::ZERO);
        assert_eq!(joining.given_up(|| true), None);
        assert_eq!(joining.given_up(|| false), None);
        assert_eq!(
            replaced.of(Duration::from_secs(1)).as_secs(),
            2,
            "the next one begins anew"
        );
        assert_eq!(replaced.begin(Duration::from_secs(60)).given_up(|| false), None);
    }
}
