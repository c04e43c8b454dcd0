//! One assigned partition: its window, its lanes and the records it holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::WorkId;
use crate::budget::Occupancy;
use crate::lane::Lanes;
use crate::position::Position;
use crate::progress::FailureSeen;
use crate::stage::{Delivery, Failure, TopicPartition};
use crate::window::{Arrival, MAX_SPAN, Window};

#[derive(Debug)]
struct Held {
    delivery: Delivery,
    tries: u32,
}

/// What the log last said about a partition's end.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogEnd {
    pub(super) last_stable: i64,
    /// Everything up to the end was handed over.
    pub(super) caught_up: bool,
}

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) assignment: u64,
    pub(super) window: Window,
    pub(super) bytes: usize,
    pub(super) running: usize,
    pub(super) draining: bool,
    pub(super) paused: bool,
    pub(super) stopped: Option<String>,
    pub(super) end: Option<LogEnd>,
    lanes: Lanes<Bytes, i64>,
    records: BTreeMap<i64, Held>,
    /// Beyond the span, in order.
    held_back: VecDeque<Delivery>,
    /// Committed in the transaction that is being settled.
    committed: BTreeSet<i64>,
}

impl Partition {
    pub(super) fn new(assignment: u64, position: &Position) -> Self {
        Self {
            assignment,
            window: Window::new(position),
            bytes: 0,
            running: 0,
            draining: false,
            paused: false,
            stopped: None,
            end: None,
            lanes: Lanes::default(),
            records: BTreeMap::new(),
            held_back: VecDeque::new(),
            committed: BTreeSet::new(),
        }
    }

    pub(super) fn work_id(&self, partition: TopicPartition, offset: i64) -> WorkId {
        WorkId {
            partition,
            assignment: self.assignment,
            offset,
        }
    }

    /// Takes a record in. The offset of one that may run now.
    pub(super) fn arrive(&mut self, delivery: Delivery) -> Option<i64> {
        self.bytes += delivery.size_bytes();
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
                self.records.insert(offset, Held { delivery, tries: 0 });
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

    /// Starts a record, unless the partition starts nothing now.
    pub(super) fn start(&mut self, offset: i64) -> Option<Delivery> {
        if self.draining || self.stopped.is_some() {
            return None;
        }
        let held = self.records.get(&offset)?;
        self.running += 1;
        Some(held.delivery.clone())
    }

    /// The record's lane moves on. The offset of the next of its key, which may run now.
    pub(super) fn next_of_key(&mut self, offset: i64) -> Option<i64> {
        let key = key_of(&self.records.get(&offset)?.delivery);
        self.lanes.leave(&key)
    }

    /// Counts a try that burns no attempt; how many there were before.
    pub(super) fn count_try(&mut self, offset: i64) -> u32 {
        let Some(held) = self.records.get_mut(&offset) else {
            return 0;
        };
        held.tries += 1;
        held.tries - 1
    }

    pub(super) fn leaving(&mut self, offset: i64) {
        if let Some(held) = self.records.remove(&offset) {
            self.bytes -= held.delivery.size_bytes();
        }
        self.committed.insert(offset);
    }

    /// Moves the window past what was committed and lets in what was held back. Offsets that may run now.
    pub(super) fn advance(&mut self) -> Vec<i64> {
        self.window.finish(&std::mem::take(&mut self.committed));
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

    /// Decides, and remembers, whether this partition must not be fetched now.
    pub(super) fn decide_pause(&mut self, occupancy: &Occupancy) -> bool {
        let span = self.window.span();
        self.paused = self.stopped.is_some()
            || !self.held_back.is_empty()
            || (self.paused && span >= MAX_SPAN / 2)
            || occupancy.pause(self.bytes, self.paused);
        self.paused
    }

    pub(super) fn failure_seen(&self, id: &WorkId, failure: &Failure, at_ms: i64) -> Option<FailureSeen> {
        let held = self.records.get(&id.offset)?;
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
