//! One assigned partition: its window, its lanes and the records it holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_failpoints::mutants;

use crate::budget::Occupancy;
use crate::lane::Lanes;
use crate::position::{Mark, Position};
use crate::progress::FailureSeen;
use crate::quarantine::{Quarantine, Release};
use crate::retry::Tries;
use crate::stage::{Delivery, Failure, TopicPartition};
use crate::window::{Arrival, Window};

#[derive(Debug)]
pub(super) struct Held {
    pub(super) delivery: Delivery,
    pub(super) tries: Tries,
    /// It has finished: the next of its key may run.
    left_lane: bool,
}

/// How long a full partition waits for room before fetching stops, where nearly the whole budget is used: a pause drops
/// what was fetched ahead, and most of the time the next commits make room. Records of 50 KB went through at 3,500/s
/// without, 8,000/s with.
const ROOM_PATIENCE: Duration = Duration::from_millis(250);

/// What the log last said about a partition's end.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogEnd {
    pub(super) last_stable: i64,
    /// Everything up to the end was handed over.
    pub(super) caught_up: bool,
}

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) id: TopicPartition,
    pub(super) window: Window,
    pub(super) quarantine: Quarantine,
    pub(super) bytes: usize,
    pub(super) running: usize,
    pub(super) draining: bool,
    /// What ran has been cut off.
    pub(super) abandoned: bool,
    /// It belongs to somebody else.
    pub(super) lost: bool,
    pub(super) paused: bool,
    /// Since when it has been waiting for room.
    waiting: Option<Instant>,
    pub(super) stopped: Option<String>,
    pub(super) end: Option<LogEnd>,
    /// Where the log ended for readers at the assignment, behind whoever is blamed: nothing beyond can have run before.
    first_end: Option<i64>,
    committed: i64,
    lanes: Lanes<Bytes, i64>,
    records: BTreeMap<i64, Held>,
    /// Beyond the span, in order: the budget bounds them, as all that is received.
    held_back: VecDeque<Delivery>,
}

impl Partition {
    pub(super) fn new(id: TopicPartition, position: &Position, own: Option<Mark>, suspects: usize) -> Self {
        let window = match mutants::BITMAP_IGNORED.is_active() {
            true => Window::new(&Position::at(position.offset)),
            false => Window::new(position),
        };
        Self {
            id,
            window,
            quarantine: Quarantine::new(position.mark, own, suspects),
            bytes: 0,
            running: 0,
            draining: false,
            abandoned: false,
            lost: false,
            paused: false,
            waiting: None,
            stopped: None,
            end: None,
            first_end: None,
            committed: position.offset,
            lanes: Lanes::default(),
            records: BTreeMap::new(),
            held_back: VecDeque::new(),
        }
    }

    /// Takes a record in. The offset of one that may run now.
    pub(super) fn arrive(&mut self, delivery: Delivery) -> Option<i64> {
        self.bytes += delivery.size_bytes();
        if let Some(end) = &mut self.end {
            end.caught_up = false;
        }
        if self.held_back.is_empty() {
            self.admit(delivery)
        } else {
            self.held_back.push_back(delivery);
            None
        }
    }

    fn admit(&mut self, delivery: Delivery) -> Option<i64> {
        let offset = delivery.origin.offset;
        match self.window.arrive(offset) {
            Arrival::Open => {
                let key = key_of(&delivery);
                let held = Held {
                    delivery,
                    tries: Tries::default(),
                    left_lane: false,
                };
                self.records.insert(offset, held);
                if mutants::DROP_ORDER.is_active() {
                    return Some(offset);
                }
                self.lanes.enter(key, offset)
            }
            Arrival::Full => {
                self.held_back.push_front(delivery);
                None
            }
            Arrival::Finished | Arrival::Stale => {
                self.bytes -= delivery.size_bytes();
                None
            }
        }
    }

    /// The log's end. What was caught up and has nothing to run has nobody to blame, and may move past the markers.
    pub(super) fn log_end(&mut self, last_stable: i64, caught_up: Option<i64>) {
        let behind_blamed = self.quarantine.mark().alone.map_or(0, |blamed| blamed + 1);
        self.first_end.get_or_insert(last_stable.max(behind_blamed));
        let caught_up = caught_up.filter(|_| self.held_back.is_empty());
        if let Some(end) = caught_up {
            self.window.pass(end);
            if self.records.is_empty() {
                self.quarantine.clear();
            }
        }
        self.end = Some(LogEnd {
            last_stable,
            caught_up: caught_up.is_some(),
        });
    }

    /// Something should be committed although no record has finished: starts and deaths, or the way past markers.
    pub(super) fn wants_commit(&self) -> bool {
        let passed = || {
            self.end.is_some_and(|end| end.caught_up)
                && self.is_idle()
                && self.window.lowest_unfinished() > self.committed
        };
        self.stopped.is_none() && !self.lost && (self.quarantine.is_due() || passed())
    }

    /// The position to commit if `leaving` were finished as well.
    pub(super) fn position_after(&mut self, leaving: &BTreeSet<i64>) -> Position {
        let mut position = self.window.position_after(leaving);
        if mutants::COMMIT_EARLY.is_active() {
            position = Position::at(self.window.next());
        }
        if position.offset > self.committed {
            self.quarantine.moved();
        }
        Position {
            mark: self.quarantine.mark(),
            ..position
        }
    }

    /// A position stands in the log.
    pub(super) fn committed(&mut self, offset: i64, mark: Mark) {
        self.committed = offset;
        self.quarantine.committed(mark);
        if self.quarantine.is_alone() && self.first_end.is_some_and(|end| offset >= end) {
            self.quarantine.clear();
        }
    }

    /// Starts a record, unless the partition starts nothing now; one that quarantine holds is given out later.
    pub(super) fn start(&mut self, offset: i64) -> Option<Delivery> {
        let held = self.records.get(&offset)?;
        if self.draining || self.stopped.is_some() || !self.quarantine.admit(offset) {
            return None;
        }
        self.running += 1;
        Some(Delivery {
            attempt: held.tries.attempts + 1,
            ..held.delivery.clone()
        })
    }

    /// What quarantine lets go of now.
    pub(super) fn release_held(&mut self) -> Vec<Release> {
        if !self.quarantine.holds() || self.draining || self.stopped.is_some() {
            return Vec::new();
        }
        let caught_up = self.end.is_some_and(|end| end.caught_up);
        let coming = |offset| match self.records.get(&offset) {
            // Received: on its way, unless it waits for another one of its key.
            Some(held) => !self.lanes.is_waiting(&key_of(&held.delivery), &offset),
            None => offset >= self.window.next() && !caught_up,
        };
        self.quarantine.release(coming)
    }

    pub(super) fn held(&mut self, offset: i64) -> Option<&mut Held> {
        self.records.get_mut(&offset)
    }

    pub(super) fn has_left_lane(&self, offset: i64) -> bool {
        self.records.get(&offset).is_some_and(|held| held.left_lane)
    }

    /// The record's lane moves on. The offset of the next of its key, which may run now.
    pub(super) fn next_of_key(&mut self, offset: i64) -> Option<i64> {
        let held = self.records.get_mut(&offset)?;
        held.left_lane = true;
        self.lanes.leave(&key_of(&held.delivery))
    }

    /// A record is finished and committed.
    pub(super) fn finish(&mut self, offset: i64) {
        if let Some(held) = self.records.remove(&offset) {
            self.bytes -= held.delivery.size_bytes();
        }
        self.window.finish(offset);
        self.quarantine.finished();
    }

    /// Lets in what was held back, as far as it fits. Offsets that may run now.
    pub(super) fn let_in(&mut self) -> Vec<i64> {
        let mut started = Vec::new();
        while let Some(delivery) = self.held_back.pop_front() {
            let before = self.held_back.len();
            started.extend(self.admit(delivery));
            if self.held_back.len() > before {
                break;
            }
        }
        started
    }

    pub(super) fn is_idle(&self) -> bool {
        self.records.is_empty() && self.held_back.is_empty()
    }

    /// Records received and not finished.
    pub(super) fn len(&self) -> usize {
        self.records.len() + self.held_back.len()
    }

    pub(super) fn oldest_ms(&self) -> Option<i64> {
        let held = self.records.first_key_value().map(|(_, held)| &held.delivery);
        held.or(self.held_back.front()).map(|delivery| delivery.timestamp_ms)
    }

    /// Decides, and remembers, whether this partition must not be fetched now. `stop`: nothing should be.
    /// `patient`: now, if one that is full may wait for room first.
    pub(super) fn decide_pause(&mut self, occupancy: &Occupancy, stop: bool, patient: Option<Instant>) -> bool {
        let full = occupancy.pause(self.bytes, self.paused);
        let since = patient
            .filter(|_| full && !self.paused)
            .map(|now| self.waiting.unwrap_or(now));
        let patient = patient
            .zip(since)
            .is_some_and(|(now, since)| now < since + ROOM_PATIENCE);
        self.waiting = since.filter(|_| patient);
        self.paused = stop || self.stopped.is_some() || full && !patient;
        self.paused
    }

    /// Until when it waits for room, and should be given nothing more.
    pub(super) fn waits_for_room(&self) -> Option<Instant> {
        self.waiting.map(|since| since + ROOM_PATIENCE)
    }

    pub(super) fn is_paused_for_room(&self) -> bool {
        self.paused && self.stopped.is_none()
    }

    pub(super) fn failure_seen(&self, offset: i64, failure: &Failure, at_ms: i64) -> Option<FailureSeen> {
        let held = self.records.get(&offset)?;
        Some(FailureSeen {
            origin: held.delivery.origin.clone(),
            key: String::from_utf8_lossy(&key_of(&held.delivery)).into_owned(),
            class: failure.class(),
            reason: failure.reason().to_owned(),
            message: failure.message().to_owned(),
            at_ms,
        })
    }
}

/// Records without a key are one key: their order is kept as well.
fn key_of(delivery: &Delivery) -> Bytes {
    delivery.key.clone().unwrap_or_default()
}
