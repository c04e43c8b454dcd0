//! How long a member that its group does not let in waits.
//!
//! A request to join waits at the broker for the other members, so the client gives it as long as they may take between two
//! polls: ten minutes. An answer that was lost meanwhile is waited for as long. Two sessions are enough for the others to come
//! or to be missed: a member that must give partitions back does so within one, unless it waits for the end of a transaction.
//! Who is replaced and is not let in either gets twice the time, as who is [`crate::stalled`] does: a group that is merely slow
//! gets through.
//!
//! | the member | then |
//! |---|---|
//! | was given an assignment, were it an empty one, or is asked to give partitions back | in |
//! | joins, for the first time or again | out: waited for. It works on with what partitions it holds, but should its group have gone on without it, each of its commits is refused |
//! | is out, and the client does not reach the group's coordinator | out, from now on: nobody could have let it in |

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::statistics::ConsumerGroup;

/// How many members of a name, one after another, were replaced without being let in. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct JoinPatience(Arc<AtomicU32>);

impl JoinPatience {
    fn of(&self, session: Duration, longest: Duration) -> Duration {
        let doubled = 1_u32.checked_shl(self.0.load(Ordering::SeqCst) + 1);
        session.saturating_mul(doubled.unwrap_or(u32::MAX)).min(longest)
    }

    /// A member joins that is missed after `session`, and for which its client has as much patience as `longest`.
    pub(crate) fn begin(&self, session: Duration, longest: Duration) -> Joining {
        Joining {
            replaced: self.clone(),
            session,
            longest,
            out_since: Some(Instant::now()),
            said: None,
        }
    }
}

/// One member's wait.
#[derive(Debug)]
pub(crate) struct Joining {
    replaced: JoinPatience,
    session: Duration,
    longest: Duration,
    /// None while it is in.
    out_since: Option<Instant>,
    /// What its client said last while it was out.
    said: Option<String>,
}

impl Joining {
    /// It was given an assignment, or is asked to give some of its own back.
    pub(crate) fn let_in(&mut self) {
        self.replaced.0.store(0, Ordering::SeqCst);
        (self.out_since, self.said) = (None, None);
    }

    /// What the client's statistics say of it.
    pub(crate) fn learn(&mut self, group: &ConsumerGroup) {
        let reached = group.state == "up";
        match self.out_since {
            _ if reached && group.join_state == "steady" => self.let_in(),
            None if reached => self.out_since = Some(Instant::now()),
            Some(_) if !reached => self.out_since = Some(Instant::now()),
            _ => {}
        }
    }

    /// What its client says meanwhile, which may be why.
    pub(crate) fn said(&mut self, error: impl ToString) {
        self.said = self.out_since.map(|_| error.to_string());
    }

    /// Why the member is to be replaced, if it is.
    pub(crate) fn given_up(&mut self) -> Option<String> {
        let patience = self.replaced.of(self.session, self.longest);
        if self.out_since?.elapsed() < patience {
            return None;
        }
        self.replaced.0.fetch_add(1, Ordering::SeqCst);
        let said = self.said.take().map(|said| format!("; the client said last: {said}"));
        Some(format!(
            "the consumer group has not let this member in for {} s{}",
            patience.as_secs(),
            said.unwrap_or_default()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(30);
    const LONGEST: Duration = Duration::from_secs(600);

    fn group(state: &str, join_state: &str) -> ConsumerGroup {
        ConsumerGroup {
            state: state.into(),
            join_state: join_state.into(),
            ..ConsumerGroup::default()
        }
    }

    #[test]
    fn who_is_not_let_in_gets_twice_the_time_until_it_is() {
        let replaced = JoinPatience::default();
        let seconds = || replaced.of(SESSION, LONGEST).as_secs();
        let given_up = || replaced.begin(Duration::ZERO, Duration::ZERO).given_up();
        let waits: Vec<u64> = (0..40).map(|_| (seconds(), given_up()).0).collect();
        assert_eq!(waits[..6], [60, 120, 240, 480, 600, 600]);
        assert_eq!(waits.last(), Some(&600));
        replaced.begin(SESSION, LONGEST).let_in();
        assert_eq!(seconds(), 60, "the next one begins anew");
    }

    #[test]
    fn out_is_who_joins_at_a_coordinator_within_reach() {
        for (state, join_state, is_out) in [
            ("up", "init", true),
            ("up", "wait-join", true),
            ("up", "wait-sync", true),
            ("up", "steady", false),
            ("wait-coord", "steady", false),
            ("wait-broker-transport", "wait-join", false),
        ] {
            // No patience at all: out is given up at once.
            let mut joining = JoinPatience::default().begin(Duration::ZERO, Duration::ZERO);
            joining.let_in();
            assert_eq!(joining.given_up(), None);
            joining.learn(&group(state, join_state));
            assert_eq!(joining.given_up().is_some(), is_out, "{state}, {join_state}");
            joining.let_in();
            assert_eq!(joining.given_up(), None, "{state}, {join_state}: let in again");
        }
    }

    #[test]
    fn what_says_out_again_and_again_does_not_begin_the_wait_anew() {
        let mut joining = JoinPatience::default().begin(SESSION, LONGEST);
        let began = joining.out_since;
        joining.learn(&group("up", "wait-join"));
        assert_eq!(joining.out_since, began);
        assert_eq!(joining.given_up(), None, "in time");
    }

    #[test]
    fn the_time_without_a_coordinator_does_not_count() {
        let mut joining = JoinPatience::default().begin(SESSION, LONGEST);
        let began = joining.out_since.unwrap();
        joining.learn(&group("query-coord", "wait-join"));
        assert!(joining.out_since.unwrap() > began, "waits anew");
        joining.let_in();
        joining.learn(&group("query-coord", "wait-join"));
        assert_eq!(joining.out_since, None, "who was let in stays so");
    }

    #[test]
    fn what_the_client_said_while_it_was_out_is_told() {
        let mut joining = JoinPatience::default().begin(Duration::ZERO, Duration::ZERO);
        joining.said("before");
        joining.let_in();
        joining.said("while it was in");
        joining.learn(&group("up", "wait-join"));
        assert!(!joining.given_up().unwrap().contains("said"));
        joining.said("no such topic");
        assert!(
            joining
                .given_up()
                .unwrap()
                .ends_with("the client said last: no such topic")
        );
    }
}
