//! How partitions are given back, for a revoke and for a shutdown alike.
//!
//! | now | still busy | step |
//! |---|---|---|
//! | any | no, and what is finished stands in the log | over |
//! | before its bound | yes | wait: what runs may finish, what is finished leaves |
//! | past its bound, the first time | yes | cut off what runs |
//! | within its last words | what is finished does not stand yet | wait for its transaction |
//! | past its last words | yes, and no transaction is open | over: what is not committed is done again by the next owner |
//! | past its last words | a transaction is open | wait: its end decides |

use std::time::{Duration, Instant};

use crate::stage::TopicPartition;

/// For the positions of drained partitions to be committed, once what ran past the bound has been cut off.
pub const LAST_WORDS: Duration = Duration::from_secs(3);

/// Partitions on their way out.
#[derive(Debug)]
pub struct Drain {
    /// Which ones.
    pub partitions: Vec<TopicPartition>,
    bound: Instant,
    end: Instant,
    cut_off: bool,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// Stop what runs; ask again.
    CutOff,
    /// They can go.
    Over,
}

impl Drain {
    /// Partitions that are still held: what runs has until `bound` to finish.
    pub fn new(partitions: Vec<TopicPartition>, bound: Instant) -> Self {
        Self {
            partitions,
            bound,
            end: bound + LAST_WORDS,
            cut_off: false,
        }
    }

    /// Partitions that belong to somebody else already: nothing of them can be committed.
    pub fn of_lost(partitions: Vec<TopicPartition>, now: Instant) -> Self {
        Self {
            end: now,
            ..Self::new(partitions, now)
        }
    }

    /// The next step. `drained`: nothing of them is under way; `leaving`: a transaction is open.
    pub fn step(&mut self, now: Instant, drained: bool, leaving: bool) -> Step {
        if drained || (self.cut_off && now >= self.end && !leaving) {
            Step::Over
        } else if now >= self.bound && !self.cut_off {
            self.cut_off = true;
            Step::CutOff
        } else {
            Step::Wait
        }
    }

    /// When the next step is due by time alone.
    pub fn deadline(&self) -> Instant {
        if self.cut_off { self.end } else { self.bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_table() {
        let now = Instant::now();
        let bound = now + Duration::from_secs(15);
        let mut drain = Drain::new(Vec::new(), bound);
        assert_eq!(drain.step(now, false, false), Step::Wait);
        assert_eq!(drain.deadline(), bound);
        assert_eq!(drain.step(bound, false, true), Step::CutOff);
        assert_eq!(
            drain.step(bound, false, false),
            Step::Wait,
            "its transaction is to come"
        );
        let end = drain.deadline();
        assert_eq!(end, bound + LAST_WORDS);
        assert_eq!(drain.step(end, false, true), Step::Wait, "the open transaction decides");
        assert_eq!(drain.step(end, false, false), Step::Over);
        assert_eq!(Drain::new(Vec::new(), bound).step(now, true, false), Step::Over);
    }

    #[test]
    fn what_is_lost_is_cut_off_and_over_at_once() {
        let now = Instant::now();
        let mut drain = Drain::of_lost(Vec::new(), now);
        assert_eq!(drain.step(now, false, false), Step::CutOff);
        assert_eq!(
            drain.step(now, false, true),
            Step::Wait,
            "but never in the middle of a transaction"
        );
        assert_eq!(drain.step(now, false, false), Step::Over);
    }
}
