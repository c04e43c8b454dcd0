//! One partition's received records: what is open, what is finished, and where its position stands.

use std::collections::{BTreeSet, VecDeque};

use crate::position::{MAX_BITS, Position};

/// Offsets that a window spans at most: what the bitmap of a position can hold.
pub const MAX_SPAN: i64 = MAX_BITS;

/// What to do with a record that arrived.
///
/// | offset | answer |
/// |---|---|
/// | below the next expected one | `Stale`: seen in this assignment, nothing changes |
/// | finished by an earlier owner (bitmap) | `Finished`: not run again |
/// | [`MAX_SPAN`] or more above the lowest unfinished | `Full`: offer it again when the position has advanced |
/// | else | `Open`: run it; offsets skipped on the way are never delivered and count as finished |
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
    /// Offset of the first slot. Every lower offset is finished and committed, or was at assignment.
    base: i64,
    /// From `base` on, one slot for each offset received or skipped: is it finished?
    slots: VecDeque<bool>,
    /// Finished by an earlier owner and not met again yet; all at `base + slots.len()` or above.
    restored: BTreeSet<i64>,
}

impl Window {
    /// Takes over where an earlier owner's position stands.
    pub fn new(position: &Position) -> Self {
        Self {
            base: position.offset,
            slots: VecDeque::new(),
            restored: position.finished.clone(),
        }
    }

    fn next(&self) -> i64 {
        self.base + self.slots.len() as i64
    }

    /// Lowest offset that is not finished.
    pub fn lowest_unfinished(&self) -> i64 {
        self.position_after(&BTreeSet::new()).offset
    }

    /// Offsets from the lowest unfinished one to the newest received.
    pub fn span(&self) -> i64 {
        self.slots.len() as i64
    }

    /// Nothing received is unfinished.
    pub fn is_idle(&self) -> bool {
        self.slots.iter().all(|finished| *finished)
    }

    /// Notes the arrival of a record.
    pub fn arrive(&mut self, offset: i64) -> Arrival {
        if offset < self.next() {
            return Arrival::Stale;
        }
        if offset - self.base >= MAX_SPAN && !self.is_idle() {
            return Arrival::Full;
        }
        let skipped = offset - self.next();
        if skipped >= MAX_SPAN {
            // Idle: nothing below is open, so the window may start anew.
            self.base = offset;
            self.slots.clear();
        } else {
            self.slots.extend((0..skipped).map(|_| true));
        }
        let known = self.restored.contains(&offset);
        self.restored = self.restored.split_off(&(offset + 1));
        self.slots.push_back(known);
        self.trim();
        if known { Arrival::Finished } else { Arrival::Open }
    }

    /// The position to commit if `leaving` were finished as well. Changes nothing.
    pub fn position_after(&self, leaving: &BTreeSet<i64>) -> Position {
        let open = |(i, finished): (usize, &bool)| {
            let offset = self.base + i as i64;
            (!finished && !leaving.contains(&offset)).then_some(offset)
        };
        let mut offset = self
            .slots
            .iter()
            .enumerate()
            .find_map(open)
            .unwrap_or_else(|| self.next());
        while self.restored.contains(&offset) {
            offset += 1;
        }
        let finished = self.slots.iter().enumerate().filter_map(|(i, finished)| {
            let at = self.base + i as i64;
            (at > offset && (*finished || leaving.contains(&at))).then_some(at)
        });
        let restored = self.restored.iter().copied().filter(|at| *at > offset);
        Position {
            finished: finished.chain(restored).collect(),
            ..Position::at(offset)
        }
    }

    /// Marks offsets as finished and committed.
    pub fn finish(&mut self, committed: &BTreeSet<i64>) {
        for offset in committed {
            let slot = usize::try_from(offset - self.base).ok();
            if let Some(slot) = slot.and_then(|i| self.slots.get_mut(i)) {
                *slot = true;
            }
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.slots.front() == Some(&true) {
            self.slots.pop_front();
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<const N: usize>(offsets: [i64; N]) -> BTreeSet<i64> {
        offsets.into()
    }

    #[test]
    fn each_row_of_the_table() {
        let position = Position {
            finished: set([12]),
            ..Position::at(10)
        };
        let mut window = Window::new(&position);
        assert_eq!(window.arrive(10), Arrival::Open);
        assert_eq!(window.arrive(10), Arrival::Stale);
        assert_eq!(window.arrive(9), Arrival::Stale);
        assert_eq!(window.arrive(12), Arrival::Finished);
        assert_eq!(window.arrive(10 + MAX_SPAN), Arrival::Full);
        assert_eq!(window.arrive(9 + MAX_SPAN), Arrival::Open);
        window.finish(&set([10]));
        // 11 was never delivered, 12 was finished before: the position moves past both.
        assert_eq!(window.lowest_unfinished(), 9 + MAX_SPAN);
    }

    #[test]
    fn what_an_earlier_owner_finished_stays_in_the_bitmap_until_it_is_passed() {
        let position = Position {
            finished: set([12, 13]),
            ..Position::at(10)
        };
        let mut window = Window::new(&position);
        assert_eq!(window.position_after(&set([])), position);
        window.arrive(10);
        assert_eq!(
            window.position_after(&set([10])),
            Position {
                finished: set([12, 13]),
                ..Position::at(11)
            }
        );
        window.finish(&set([10]));
        window.arrive(11);
        assert_eq!(window.position_after(&set([11])), Position::at(14));
    }

    #[test]
    fn an_idle_window_takes_any_gap() {
        let mut window = Window::new(&Position::at(0));
        assert_eq!(window.arrive(1_000_000), Arrival::Open);
        assert_eq!(window.arrive(2_000_000), Arrival::Full);
        assert_eq!(window.position_after(&set([])), Position::at(1_000_000));
        window.finish(&set([1_000_000]));
        assert_eq!(window.arrive(2_000_000), Arrival::Open);
    }

    #[test]
    fn no_position_is_wider_than_its_bitmap() {
        let mut window = Window::new(&Position::at(0));
        for offset in 0..MAX_SPAN {
            assert_eq!(window.arrive(offset), Arrival::Open);
        }
        let all_but_first = (1..MAX_SPAN).collect();
        let position = window.position_after(&all_but_first);
        assert_eq!(Position::parse(0, &position.metadata()).unwrap(), position);
    }
}
