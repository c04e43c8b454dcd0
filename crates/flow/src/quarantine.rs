//! Records that kill the process: a partition that was started and came to nothing runs its records one at a time, so
//! that the next death has one suspect.
//!
//! | what the position says at the start | what runs | what is committed first |
//! |---|---|---|
//! | `s=0` | everything, side by side | `s=1` |
//! | `s>0` | one record at a time | `s+1`; then, before each record, its offset and how often it was started: `o`, `a` |
//! | `s>0`, `o` with `a<3` | that record first | as above, `a+1` |
//! | `s>0`, `o` with `a=3` | that record never again: a dead letter | |
//!
//! Side by side, `s` is cleared when the position's offset has moved. One at a time, it stays until as many records as
//! can run at once have ended well, or all that stood in the log at the assignment has, or nothing is left to run: only
//! then is every suspect of the death behind. Whatever ends in this process, well or not, has not killed it, so its `a`
//! begins anew; a drain clears everything but the blame of a suspect that still waits. Being killed from outside costs a
//! start, and an attempt only of the record that ran alone.
//!
//! A record blamed for a death before runs again only when the session has worked for [`SETTLED`] and nothing else of the
//! stage runs, in any partition, and those with fewer deaths go first ([`Quarantine::wants_solo`]): a kill from outside
//! while many partitions have a record of their own alone must not count against each of them three times, nor must
//! three kills in a row that each hit a process as soon as it works.
//!
//! A session that is replaced within one process is no death: what this process wrote itself, it takes back.

use std::collections::BTreeSet;
use std::time::Duration;

use millrace_failpoints::mutants;

use crate::position::Mark;

/// Deaths of one record, alone, that make it a dead letter.
pub const DEATHS: u32 = 3;

/// How long a session must have had partitions before it runs a record that was blamed for a death: who is killed from
/// outside again and again dies before that, mostly, and no record with it.
pub const SETTLED: Duration = Duration::from_secs(5);

/// One partition's quarantine: what may start, and what must be committed first.
#[derive(Debug)]
pub struct Quarantine {
    mark: Mark,
    /// What stands in the log.
    written: Mark,
    /// Nothing starts until the mark stands in the log.
    barrier: bool,
    alone: Option<Alone>,
    /// Ready to start, and held.
    parked: BTreeSet<i64>,
}

#[derive(Debug)]
struct Alone {
    /// Records to go until everything runs side by side again.
    left: usize,
    /// The one that is to run, or runs.
    chosen: Option<i64>,
    running: bool,
    /// The record that ran alone at the last death, and its deaths.
    suspect: Option<(i64, u32)>,
    /// The suspect may run: nothing else of the stage does.
    solo: bool,
}

/// What to do with a record that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// It may start.
    Start(i64),
    /// It has killed the process too often.
    Bury(i64),
}

impl Quarantine {
    /// A partition was assigned with `read` in its position. `own` is what this process itself wrote last, `suspects`
    /// how many records can run at once.
    pub fn new(read: Mark, own: Option<Mark>, suspects: usize) -> Self {
        let before = match own {
            Some(own) if own == read => Mark {
                starts: read.starts.saturating_sub(1),
                attempts: read.attempts.saturating_sub(1),
                ..read
            },
            _ => read,
        };
        let alone = (before.starts > 0).then(|| Alone {
            left: suspects,
            chosen: None,
            running: false,
            suspect: before.alone.map(|offset| (offset, before.attempts)),
            solo: false,
        });
        let kept = if alone.is_some() { before } else { Mark::default() };
        let mark = Mark {
            starts: before.starts.saturating_add(1),
            ..kept
        };
        Self {
            mark,
            written: read,
            barrier: mark != read,
            alone,
            parked: BTreeSet::new(),
        }
    }

    /// To be committed with the next position.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// The mark should be committed now, even if nothing else is.
    pub fn is_due(&self) -> bool {
        let freed = self.mark.alone.is_none() && self.written.alone.is_some();
        self.mark != self.written && (self.barrier || freed || self.mark == Mark::default())
    }

    /// Records run one at a time.
    pub fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// The record that runs alone, or will next.
    pub fn chosen(&self) -> Option<i64> {
        self.alone.as_ref()?.chosen
    }

    /// The suspect is here and waits to be the only record that runs: its deaths so far.
    pub fn wants_solo(&self) -> Option<u32> {
        let alone = self
            .alone
            .as_ref()
            .filter(|alone| !self.barrier && !alone.solo && alone.chosen.is_none())?;
        let (offset, deaths) = alone.suspect?;
        (self.parked.contains(&offset) && (1..DEATHS).contains(&deaths)).then_some(deaths)
    }

    /// Nothing else runs, and nothing will start until [`Self::is_solo`] is false again.
    pub fn grant_solo(&mut self) {
        if let Some(alone) = &mut self.alone {
            alone.solo = true;
        }
    }

    /// The suspect is about to run, or runs, as the only record of the stage.
    pub fn is_solo(&self) -> bool {
        self.alone.as_ref().is_some_and(|alone| alone.solo)
    }

    /// A record is ready to start: may it? If not it is held, until [`Self::release`] gives it out.
    pub fn admit(&mut self, offset: i64) -> bool {
        if let Some(alone) = &mut self.alone
            && !self.barrier
            && alone.chosen == Some(offset)
            && !alone.running
        {
            alone.running = true;
            return true;
        }
        let free = !self.barrier && self.alone.is_none();
        if !free {
            self.parked.insert(offset);
        }
        free
    }

    /// A position with this mark was committed.
    pub fn committed(&mut self, mark: Mark) {
        self.written = mark;
        self.barrier &= mark != self.mark;
    }

    /// What may start now of what is held. `coming` tells of an offset whether its record is on its way here.
    pub fn release(&mut self, coming: impl Fn(i64) -> bool) -> Vec<Release> {
        if self.barrier {
            return Vec::new();
        }
        let Some(alone) = &mut self.alone else {
            return std::mem::take(&mut self.parked)
                .into_iter()
                .map(Release::Start)
                .collect();
        };
        if alone.chosen.is_none() {
            // The suspect goes first, or its count would be lost.
            let suspect = alone.suspect.filter(|(offset, _)| self.parked.contains(offset));
            if suspect.is_none() && alone.suspect.is_some_and(|(offset, _)| coming(offset)) {
                return Vec::new();
            }
            let blamed = suspect.is_some_and(|(_, deaths)| (1..DEATHS).contains(&deaths));
            if blamed && !alone.solo {
                return Vec::new();
            }
            let Some(chosen) = suspect.map(|(offset, _)| offset).or(self.parked.first().copied()) else {
                return Vec::new();
            };
            alone.chosen = Some(chosen);
            let deaths = suspect.map_or(0, |(_, deaths)| deaths);
            if deaths >= DEATHS || deaths > 0 && mutants::KILL_BURNS_ATTEMPTS.is_active() {
                self.parked.remove(&chosen);
                alone.running = true;
                return vec![Release::Bury(chosen)];
            }
            self.mark.alone = Some(chosen);
            self.mark.attempts = deaths + 1;
            self.barrier = self.mark != self.written;
        }
        match alone.chosen {
            Some(chosen) if !self.barrier && !alone.running && self.parked.remove(&chosen) => {
                vec![Release::Start(chosen)]
            }
            _ => Vec::new(),
        }
    }

    /// A record's run ended, well or not.
    pub fn ended(&mut self, offset: i64) {
        if let Some(alone) = self.alone.as_mut().filter(|alone| alone.chosen == Some(offset)) {
            (alone.chosen, alone.running, alone.suspect, alone.solo) = (None, false, None, false);
            // Nothing runs now: nobody is to be blamed until the next one is chosen.
            (self.mark.alone, self.mark.attempts) = (None, 0);
        }
    }

    /// A position is about to be committed whose offset has moved.
    pub fn moved(&mut self) {
        if self.alone.is_none() && !self.barrier {
            self.mark = Mark::default();
        }
    }

    /// A record was committed.
    pub fn finished(&mut self) {
        if let Some(alone) = &mut self.alone {
            alone.left = alone.left.saturating_sub(1);
            if alone.left == 0 {
                self.clear();
            }
        }
    }

    /// Something is held: ask [`Self::release`].
    pub fn holds(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Every suspect is behind, or nothing is left to run: nobody is to be blamed for what comes.
    pub fn clear(&mut self) {
        self.mark = Mark::default();
        self.alone = None;
        self.barrier = false;
    }

    /// Everything that ran was drained: nobody is to be blamed for what comes, but a suspect that still waited.
    pub fn drained(&mut self) {
        let waits = |alone: &Alone| alone.suspect.is_some() && alone.chosen.is_none();
        if !self.alone.as_ref().is_some_and(waits) {
            self.clear();
        }
    }

    /// What this process wrote last: see `own` of [`Self::new`].
    pub fn written(&self) -> Mark {
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No record is on its way.
    const NOTHING: fn(i64) -> bool = |_| false;

    fn mark(starts: u32, alone: Option<i64>, attempts: u32) -> Mark {
        Mark {
            starts,
            alone,
            attempts,
        }
    }

    fn commit(quarantine: &mut Quarantine) -> Mark {
        assert!(quarantine.is_due());
        let mark = quarantine.mark();
        quarantine.committed(mark);
        mark
    }

    #[test]
    fn the_first_start_is_counted_before_anything_runs_side_by_side() {
        let mut fresh = Quarantine::new(mark(0, None, 0), None, 9);
        assert!(!fresh.admit(1) && !fresh.admit(2));
        assert_eq!(fresh.release(NOTHING), []);
        assert_eq!(commit(&mut fresh), mark(1, None, 0));
        assert_eq!(fresh.release(NOTHING), [Release::Start(1), Release::Start(2)]);
        assert!(fresh.admit(3));
        fresh.finished();
        assert_eq!(
            fresh.mark(),
            mark(1, None, 0),
            "others finished, the position did not move"
        );
        fresh.moved();
        assert_eq!(commit(&mut fresh), Mark::default());
    }

    #[test]
    fn after_a_start_that_came_to_nothing_one_at_a_time() {
        let mut q = Quarantine::new(mark(1, None, 0), None, 2);
        assert!(!q.admit(5) && !q.admit(7));
        assert_eq!(commit(&mut q), mark(2, None, 0));
        assert_eq!(q.release(NOTHING), []);
        assert_eq!(commit(&mut q), mark(2, Some(5), 1), "before it runs");
        assert_eq!(q.release(NOTHING), [Release::Start(5)]);
        assert!(q.admit(5));
        assert_eq!(q.release(NOTHING), [], "alone");
        q.ended(5);
        assert_eq!(q.release(NOTHING), []);
        assert_eq!(q.mark(), mark(2, Some(7), 1), "leaves with the outputs of 5");
        commit(&mut q);
        q.finished();
        assert_eq!(q.release(NOTHING), [Release::Start(7)]);
        assert!(q.admit(7));
        q.ended(7);
        q.finished();
        assert_eq!(commit(&mut q), Mark::default(), "both suspects are behind");
        assert!(q.admit(9) && q.admit(10));
    }

    #[test]
    fn the_suspect_goes_first_and_is_buried_at_its_third_death() {
        for (deaths, buried) in [(1, false), (2, false), (3, true)] {
            let mut q = Quarantine::new(mark(2, Some(7), deaths), None, 9);
            commit(&mut q);
            q.admit(5);
            assert_eq!(q.release(|offset| offset == 7), [], "it has not come yet");
            q.admit(7);
            let released = q.release(NOTHING);
            if buried {
                assert_eq!(released, [Release::Bury(7)]);
                q.ended(7);
                assert_eq!((q.release(NOTHING), q.mark()), (vec![], mark(3, Some(5), 1)));
            } else {
                assert_eq!((released, q.wants_solo()), (vec![], Some(deaths)));
                q.grant_solo();
                assert_eq!((q.release(NOTHING), q.mark()), (vec![], mark(3, Some(7), deaths + 1)));
                assert!(q.is_solo() && q.wants_solo().is_none());
                q.ended(7);
                assert!(!q.is_solo());
            }
        }
    }

    #[test]
    fn a_suspect_that_will_not_come_holds_up_nobody() {
        let mut q = Quarantine::new(mark(1, Some(7), 2), None, 9);
        commit(&mut q);
        q.admit(5);
        assert_eq!(q.release(NOTHING), []);
        assert_eq!(q.mark(), mark(2, Some(5), 1));
    }

    #[test]
    fn what_ended_without_a_death_begins_anew() {
        let mut q = Quarantine::new(mark(1, Some(7), 2), None, 9);
        commit(&mut q);
        q.admit(7);
        q.grant_solo();
        q.release(NOTHING);
        assert_eq!(commit(&mut q), mark(2, Some(7), 3));
        assert_eq!(q.release(NOTHING), [Release::Start(7)]);
        q.admit(7);
        q.ended(7);
        q.admit(7);
        q.release(NOTHING);
        assert_eq!(q.mark(), mark(2, Some(7), 1), "for example a dependency was away");
    }

    #[test]
    fn a_drain_clears_all_but_the_blame_of_a_suspect_that_waited() {
        let suspect = mark(3, Some(7), 2);
        let mut q = Quarantine::new(mark(2, Some(7), 2), None, 9);
        commit(&mut q);
        q.admit(7);
        q.drained();
        assert_eq!((q.mark(), q.is_due()), (suspect, false), "it never ran");
        q.grant_solo();
        q.release(NOTHING);
        commit(&mut q);
        assert_eq!(q.release(NOTHING), [Release::Start(7)]);
        q.admit(7);
        q.ended(7);
        q.drained();
        assert_eq!(commit(&mut q), Mark::default());
    }

    #[test]
    fn a_replaced_session_is_no_death() {
        let first = Quarantine::new(mark(0, None, 0), None, 9);
        let own = first.mark();
        let again = Quarantine::new(own, Some(own), 9);
        assert!(!again.is_alone());
        assert_eq!(again.mark(), mark(1, None, 0));
        let other = Quarantine::new(own, Some(mark(5, None, 0)), 9);
        assert!(other.is_alone(), "somebody else wrote it, and died");
    }
}
