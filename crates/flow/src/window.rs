//! One partition's received records: what is open, what is finished, and where its position stands.

use std::collections::BTreeSet;

use rangemap::RangeSet;

use crate::position::{MAX_BITS, MAX_RUNS, Position};

/// Offsets that a window spans at most, however few of its records are open.
pub const MAX_SPAN: i64 = 1 << 20;

/// What to do with a record that arrived.
///
/// | offset | answer |
/// |---|---|
/// | below the next expected one | `Stale`: seen in this assignment, nothing changes |
/// | finished by an earlier owner | `Finished`: not run again |
/// | 8,192 or more above the lowest open one, and 300 or more are open | `Full`: offer it again when one has finished |
/// | [`MAX_SPAN`] or more above the lowest open one | `Full` |
/// | else | `Open`: run it; offsets skipped on the way are never delivered and count as finished |
///
/// The bounds are those of the two texts of a position ([`crate::position`]): any pattern within 8,192 offsets, few open
/// records beyond. One record that waits for an hour does not hold back its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Run it.
    Open,
    /// Finished by an earlier owner.
    Finished,
    /// Beyond the span: offer it again later.
    Full,
    /// Not expected any more.
    Stale,
}

/// A partition's window. Offsets only move forward.
#[derive(Debug, Clone)]
pub struct Window {
    /// Received and not finished.
    open: BTreeSet<i64>,
    /// Above the newest offset received; every lower one that is not open is finished.
    next: i64,
    /// Above it every record received is open.
    highest: i64,
    /// Finished by an earlier owner and not met again yet; all at `next` or above.
    restored: RangeSet<i64>,
}

impl Window {
    /// Takes over where an earlier owner's position stands.
    pub fn new(position: &Position) -> Self {
        Self {
            open: BTreeSet::new(),
            next: position.offset,
            highest: position.offset - 1,
            restored: position.finished.clone(),
        }
    }

    /// Above the newest offset received.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Lowest offset that is not finished.
    pub fn lowest_unfinished(&self) -> i64 {
        let restored = || self.restored.get(&self.next).map_or(self.next, |range| range.end);
        self.open.first().copied().unwrap_or_else(restored)
    }

    /// Notes the arrival of a record.
    pub fn arrive(&mut self, offset: i64) -> Arrival {
        if offset < self.next {
            return Arrival::Stale;
        }
        if let Some(lowest) = self.open.first() {
            let span = offset - lowest;
            if span >= MAX_SPAN || (span >= MAX_BITS && self.open.len() >= MAX_RUNS) {
                return Arrival::Full;
            }
        }
        let known = self.restored.contains(&offset);
        self.pass(offset + 1);
        if known {
            return Arrival::Finished;
        }
        self.open.insert(offset);
        Arrival::Open
    }

    /// Everything below `end` was received, or will never be delivered.
    pub fn pass(&mut self, end: i64) {
        if end > self.next {
            self.next = end;
            if !self.restored.is_empty() {
                self.highest = self.highest.max(end - 1);
                self.restored.remove(i64::MIN..end);
            }
        }
    }

    /// The position to commit if `leaving` were finished as well. Changes nothing.
    pub fn position_after(&self, leaving: &BTreeSet<i64>) -> Position {
        let mut open = self.open.iter().copied().filter(|offset| !leaving.contains(offset));
        let mut finished = self.restored.clone();
        let Some(lowest) = open.next() else {
            let offset = self.restored.get(&self.next).map_or(self.next, |range| range.end);
            finished.remove(i64::MIN..offset + 1);
            return Position {
                finished,
                ..Position::at(offset)
            };
        };
        // What was skipped above the highest need not be told: it is never delivered.
        let end = leaving.last().map_or(self.highest, |last| self.highest.max(*last)) + 1;
        let mut from = lowest + 1;
        for until in open.take_while(|offset| *offset < end).chain([end]) {
            if from < until {
                finished.insert(from..until);
            }
            from = until + 1;
        }
        Position {
            finished,
            ..Position::at(lowest)
        }
    }

    /// Marks an offset as finished and committed.
    pub fn finish(&mut self, offset: i64) {
        self.open.remove(&offset);
        self.highest = self.highest.max(offset);
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "sets of offsets, not vectors")]
mod tests {
    use super::*;

    fn set<const N: usize>(offsets: [i64; N]) -> BTreeSet<i64> {
        offsets.into()
    }

    fn position<const N: usize>(offset: i64, finished: [std::ops::Range<i64>; N]) -> Position {
        Position {
            finished: finished.into(),
            ..Position::at(offset)
        }
    }

    #[test]
    fn each_row_of_the_table() {
        let mut window = Window::new(&position(10, [12..13]));
        assert_eq!(window.arrive(10), Arrival::Open);
        assert_eq!(window.arrive(10), Arrival::Stale);
        assert_eq!(window.arrive(9), Arrival::Stale);
        assert_eq!(window.arrive(12), Arrival::Finished);
        let many = MAX_RUNS as i64;
        for offset in 13..12 + many {
            assert_eq!(window.arrive(offset), Arrival::Open);
        }
        assert_eq!(window.arrive(10 + MAX_BITS), Arrival::Full, "{many} are open");
        window.finish(13);
        assert_eq!(window.arrive(10 + MAX_BITS), Arrival::Open, "one less");
        assert_eq!(window.arrive(9 + MAX_SPAN), Arrival::Full, "{many} again");
        (14..40).for_each(|offset| window.finish(offset));
        assert_eq!(window.arrive(10 + MAX_SPAN), Arrival::Full);
        assert_eq!(window.arrive(9 + MAX_SPAN), Arrival::Open);
        window.finish(10);
        // 11 was never delivered, 12 was finished before, and so on: the position moves past all of them.
        assert_eq!(window.lowest_unfinished(), 40);
    }

    #[test]
    fn what_an_earlier_owner_finished_stays_until_it_is_passed() {
        let start = position(10, [12..14]);
        let mut window = Window::new(&start);
        assert_eq!(window.position_after(&set([])), start);
        window.arrive(10);
        assert_eq!(window.position_after(&set([10])), position(11, [12..14]));
        window.finish(10);
        window.arrive(11);
        assert_eq!(window.position_after(&set([11])), Position::at(14));
        assert_eq!(window.position_after(&set([])), position(11, [12..14]));
    }

    #[test]
    fn an_idle_window_takes_any_gap() {
        let mut window = Window::new(&Position::at(0));
        assert_eq!(window.arrive(10_000_000), Arrival::Open);
        assert_eq!(window.arrive(20_000_000), Arrival::Full);
        assert_eq!(window.position_after(&set([])), Position::at(10_000_000));
        window.finish(10_000_000);
        assert_eq!(window.arrive(20_000_000), Arrival::Open);
    }

    #[test]
    fn what_is_passed_is_finished_although_it_was_never_delivered() {
        let mut window = Window::new(&position(5, [8..9]));
        window.arrive(5);
        window.pass(9);
        assert_eq!(window.position_after(&set([])), position(5, [6..9]));
        window.finish(5);
        assert_eq!(window.position_after(&set([])), Position::at(9));
        window.pass(3);
        assert_eq!(window.lowest_unfinished(), 9, "never backwards");
    }

    #[test]
    fn one_slow_record_holds_back_nobody_for_a_million_offsets() {
        let mut window = Window::new(&Position::at(0));
        window.arrive(0);
        for offset in 1..MAX_SPAN {
            assert_eq!(window.arrive(offset), Arrival::Open);
            window.finish(offset);
        }
        let position = window.position_after(&set([]));
        assert_eq!(position.metadata(), "2;s=0;o=;a=0;r=0.1048575");
        assert_eq!(window.arrive(MAX_SPAN), Arrival::Full);
    }

    #[test]
    fn no_position_is_wider_than_its_text() {
        let mut window = Window::new(&Position::at(0));
        for offset in 0..MAX_BITS {
            assert_eq!(window.arrive(offset), Arrival::Open);
        }
        let even = (0..MAX_BITS).filter(|offset| offset % 2 == 1).collect();
        let position = window.position_after(&even);
        assert_eq!(Position::parse(0, &position.metadata()).unwrap(), position);
        (1..MAX_BITS).filter(|at| at % 40 != 0).for_each(|at| window.finish(at));
        let mut next = MAX_BITS;
        while window.arrive(next) == Arrival::Open {
            window.pass(next + 99);
            next = window.next();
        }
        let position = window.position_after(&set([]));
        assert!(position.metadata().len() < 4000);
        assert_eq!(Position::parse(0, &position.metadata()).unwrap(), position);
    }
}
