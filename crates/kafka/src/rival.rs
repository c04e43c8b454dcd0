//! Who fenced a member of the consumer group: another process with its instance's name, or it itself.
//!
//! Being fenced does not tell. A member that was silent for a whole session, say because the broker was away, joins again
//! under a new member id, and what it sent under its old one comes back as fenced. Nor does the group tell: Kafka keeps the
//! client id and the host of whoever held the name first. What tells is life: only somebody who sends heartbeats
//! stays a member for longer than a session.
//!
//! | the name's member in the group | it was fenced by |
//! |---|---|
//! | there is none, or it is gone within a session | itself: nobody sent heartbeats for its last join |
//! | still there after a session | a rival |
//! | the group did not answer in between | not decided: the session begins again |

use std::time::{Duration, Instant};

use rdkafka::groups::GroupInfo;

/// What a member id has behind the instance's name: a dash and a UUID, both the broker's.
const SUFFIX: usize = 37;
/// Beyond a session, for the coordinator to notice its end.
const MARGIN: Duration = Duration::from_secs(3);

/// Who fenced a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Itself,
    Rival,
}

/// Watches the name of a member that was fenced.
#[derive(Debug)]
pub(crate) struct Watch {
    session: Duration,
    /// Since when the name has been held in every answer.
    held: Option<Instant>,
}

impl Watch {
    /// For members that are missed after `session`.
    pub(crate) fn new(session: Duration) -> Self {
        Self { session, held: None }
    }

    /// What an answer says, if it decides. `held`: whether the group has a member of the name; none if it did not answer.
    pub(crate) fn seen(&mut self, held: Option<bool>, now: Instant) -> Option<By> {
        match held {
            None => self.held = None,
            Some(false) => return Some(By::Itself),
            Some(true) => {
                let since = *self.held.get_or_insert(now);
                return (now >= since + self.session + MARGIN).then_some(By::Rival);
            }
        }
        None
    }
}

/// Whether the group has a member of this instance's name.
pub(crate) fn is_held(group: &GroupInfo, instance: &str) -> bool {
    group.members().iter().any(|member| is_named(member.id(), instance))
}

fn is_named(member_id: &str, instance: &str) -> bool {
    member_id
        .strip_prefix(instance)
        .is_some_and(|rest| rest.len() == SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(30);

    #[test]
    fn each_row_of_the_table() {
        let now = Instant::now();
        let (before, after) = (now + SESSION, now + SESSION + MARGIN);
        assert_eq!(Watch::new(SESSION).seen(Some(false), now), Some(By::Itself));
        let mut watch = Watch::new(SESSION);
        assert_eq!(watch.seen(Some(true), now), None);
        assert_eq!(watch.seen(Some(true), before), None);
        assert_eq!(watch.seen(Some(true), after), Some(By::Rival));
        let mut watch = Watch::new(SESSION);
        assert_eq!(watch.seen(Some(true), now), None);
        assert_eq!(watch.seen(Some(false), before), Some(By::Itself));
        let mut watch = Watch::new(SESSION);
        assert_eq!(watch.seen(Some(true), now), None);
        assert_eq!(watch.seen(None, before), None);
        assert_eq!(
            watch.seen(Some(true), after),
            None,
            "a broker that was away knew of no session's end"
        );
        assert_eq!(watch.seen(Some(true), after + SESSION + MARGIN), Some(By::Rival));
    }

    #[test]
    fn another_name_that_begins_alike_is_another() {
        const UUID: &str = "0b1f7c1e-52a7-4a2c-9d0f-6f1f0d9f3a11";
        assert!(is_named(&format!("a-{UUID}"), "a"));
        assert!(!is_named(&format!("a-b-{UUID}"), "a"));
        assert!(!is_named("a", "a"));
    }
}
