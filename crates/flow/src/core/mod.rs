//! The decisions of a stage, as one plain value: what runs next, what leaves, what is committed.
//!
//! The life of a record:
//!
//! ```text
//! arrive ─▶ waiting in its key's lane ─▶ runnable ─▶ running ─▶ ready ─▶ leaving ─▶ committed
//!    │                                      ▲            │         ▲         │
//!    └▶ held back (span full)               └─ backoff ──┤         └─ abort ─┘
//!                                                        └▶ stopped: keeps its lane, says so
//! ```
//!
//! A partition that is taken away is forgotten with all its records; whatever still runs for it meets a closed door,
//! because its [`WorkId`] carries the assignment that it belongs to.

mod partition;
#[cfg(test)]
mod tests;
mod view;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::position::Position;
use crate::progress::FailureSeen;
use crate::retry::backoff;
use crate::stage::{Delivery, Failure, Output, Outputs, TopicPartition};
use partition::Partition;

/// Failures that are kept to be shown.
const FAILURES_KEPT: usize = 20;

/// Bounds of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Records that run at once.
    pub max_in_flight: usize,
    /// Bytes of records received and not finished, over all partitions.
    pub window_bytes: usize,
    /// Records of a transaction.
    pub transaction_records: usize,
    /// Bytes of a transaction's outputs.
    pub transaction_bytes: usize,
    /// Age of a finished record at which a transaction is begun for it, in milliseconds.
    pub transaction_age_ms: u64,
    /// Time that running records have to finish when the stage leaves, in milliseconds; below the session timeout.
    pub drain_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            window_bytes: 64 << 20,
            transaction_records: 1000,
            transaction_bytes: 16 << 20,
            transaction_age_ms: 20,
            drain_ms: 15_000,
        }
    }
}

/// A unit of work: a record under one assignment of its partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkId {
    /// The record's partition.
    pub partition: TopicPartition,
    /// The assignment under which it was received.
    pub assignment: u64,
    /// The record's offset.
    pub offset: i64,
}

/// A record to run now.
#[derive(Debug)]
pub struct Work {
    /// To be given back with the result.
    pub id: WorkId,
    /// The record.
    pub delivery: Delivery,
}

/// A record that has finished and not left yet.
#[derive(Debug)]
struct Ready {
    id: WorkId,
    outputs: Outputs,
    bytes: usize,
    since: Instant,
}

/// What leaves together: outputs in order, and the positions that make their inputs finished.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Newest assignment that the stage knew when it cut this: no commit under another one.
    pub assignment: u64,
    /// Positions to commit.
    pub positions: Vec<(TopicPartition, Position)>,
    items: Arc<Vec<Ready>>,
}

impl Transaction {
    /// Outputs, in the order in which they must be written.
    pub fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.items.iter().flat_map(|item| &item.outputs.0)
    }
    /// Inputs that it finishes.
    pub fn records(&self) -> usize {
        self.items.len()
    }
}

/// The state of a stage.
#[derive(Debug)]
pub struct Core {
    limits: Limits,
    budget: Budget,
    partitions: BTreeMap<TopicPartition, Partition>,
    /// Number of the newest assignment; the log counts them.
    assignment: u64,
    runnable: VecDeque<WorkId>,
    waiting: BinaryHeap<Reverse<(Instant, WorkId)>>,
    running: usize,
    ready: VecDeque<Ready>,
    leaving: Option<Arc<Vec<Ready>>>,
    /// After an abort, no transaction before this moment.
    hold: Option<Instant>,
    aborts: u32,
    processed: u64,
    failed: u64,
    failures: VecDeque<FailureSeen>,
}

impl Core {
    /// A stage without partitions.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            budget: Budget::new(limits.window_bytes),
            partitions: BTreeMap::new(),
            assignment: 0,
            runnable: VecDeque::new(),
            waiting: BinaryHeap::new(),
            running: 0,
            ready: VecDeque::new(),
            leaving: None,
            hold: None,
            aborts: 0,
            processed: 0,
            failed: 0,
            failures: VecDeque::new(),
        }
    }

    /// A partition was given to this stage, where an earlier owner's position stands.
    pub fn assign(&mut self, assignment: u64, partition: TopicPartition, position: &Position) {
        self.assignment = self.assignment.max(assignment);
        self.partitions.insert(partition, Partition::new(assignment, position));
    }

    /// A partition was given to this stage, which cannot process it until a person has acted.
    pub fn assign_stopped(&mut self, assignment: u64, partition: TopicPartition, reason: String) {
        self.assign(assignment, partition.clone(), &Position::default());
        self.stop(&partition, reason);
    }

    /// A partition cannot go on until a person has acted.
    pub fn stop(&mut self, partition: &TopicPartition, reason: String) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.stopped = Some(reason);
        }
    }

    /// Partitions are about to be taken away: start nothing more of them.
    pub fn begin_drain(&mut self, assignment: u64, partitions: &[TopicPartition]) {
        self.assignment = self.assignment.max(assignment);
        for partition in partitions {
            if let Some(partition) = self.partitions.get_mut(partition) {
                partition.draining = true;
            }
        }
    }

    /// Nothing of these partitions runs, is ready or is leaving.
    pub fn is_drained(&self, partitions: &[TopicPartition]) -> bool {
        let busy = |p| self.partitions.get(p).is_some_and(|p| p.running > 0);
        let held = |item: &Ready| partitions.contains(&item.id.partition);
        !partitions.iter().any(busy)
            && !self.ready.iter().any(held)
            && !self.leaving.iter().flat_map(|items| items.iter()).any(held)
    }

    /// Forgets partitions and all their records.
    pub fn forget(&mut self, partitions: &[TopicPartition]) {
        self.partitions.retain(|partition, _| !partitions.contains(partition));
        self.ready.retain(|item| !partitions.contains(&item.id.partition));
    }

    /// The partitions held now.
    pub fn assigned(&self) -> Vec<TopicPartition> {
        self.partitions.keys().cloned().collect()
    }

    /// A record arrived.
    pub fn arrive(&mut self, delivery: Delivery) {
        let id = delivery.origin.topic_partition();
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        if let Some(offset) = partition.arrive(delivery) {
            self.runnable.push_back(partition.work_id(id, offset));
        }
    }

    /// The next record to run, if one may.
    pub fn next_to_run(&mut self, now: Instant) -> Option<Work> {
        while let Some(Reverse((at, _))) = self.waiting.peek() {
            if *at > now {
                break;
            }
            self.runnable.extend(self.waiting.pop().map(|Reverse((_, id))| id));
        }
        if self.running >= self.limits.max_in_flight {
            return None;
        }
        while let Some(id) = self.runnable.pop_front() {
            let Some(partition) = current(&mut self.partitions, &id) else {
                continue;
            };
            if let Some(delivery) = partition.start(id.offset) {
                self.running += 1;
                return Some(Work { id, delivery });
            }
        }
        None
    }

    /// A record has run. `jitter` is a random number from 0 to 1, `now_ms` the wall clock for people.
    pub fn finish(&mut self, id: WorkId, result: Result<Outputs, Failure>, now: Instant, now_ms: i64, jitter: f64) {
        self.running -= 1;
        let Some(partition) = current(&mut self.partitions, &id) else {
            return;
        };
        partition.running -= 1;
        match result {
            Ok(outputs) => {
                if let Some(offset) = partition.next_of_key(id.offset) {
                    self.runnable.push_back(WorkId { offset, ..id.clone() });
                }
                let bytes = outputs.0.iter().map(Output::size_bytes).sum();
                self.ready.push_back(Ready {
                    id,
                    outputs,
                    bytes,
                    since: now,
                });
            }
            Err(failure) => {
                let again = match &failure {
                    Failure::Transient { .. } => Some(backoff(partition.count_try(id.offset), jitter)),
                    Failure::RateLimited { retry_after, .. } => {
                        Some(*retry_after + backoff(partition.count_try(id.offset), jitter))
                    }
                    Failure::Config { reason, message } => {
                        partition.stopped = Some(format!("{reason}: {message}"));
                        None
                    }
                    Failure::Invalid { .. } | Failure::Failed { .. } => None,
                };
                let seen = partition.failure_seen(&id, &failure, now_ms);
                match again {
                    Some(delay) => self.waiting.push(Reverse((now + delay, id))),
                    None => self.failed += 1,
                }
                self.failures.extend(seen);
                if self.failures.len() > FAILURES_KEPT {
                    self.failures.pop_front();
                }
            }
        }
    }

    /// Cuts the next transaction if one is due, or, when `flush` is set, if anything is ready. One is open at a time:
    /// [`Self::settle`] ends it.
    pub fn cut(&mut self, now: Instant, flush: bool) -> Option<Transaction> {
        if self.leaving.is_some() || self.hold.is_some_and(|until| now < until) || !(flush || self.is_due(now)) {
            return None;
        }
        self.hold = None;
        let bytes = self.ready.iter().scan(0, |bytes, item| {
            *bytes += item.bytes;
            Some(*bytes)
        });
        let fitting = bytes.take_while(|bytes| *bytes <= self.limits.transaction_bytes);
        let count = fitting.take(self.limits.transaction_records).count().max(1);
        let items: Vec<Ready> = self.ready.drain(..count.min(self.ready.len())).collect();
        if items.is_empty() {
            return None;
        }
        let mut finished: BTreeMap<&TopicPartition, BTreeSet<i64>> = BTreeMap::new();
        for item in &items {
            finished.entry(&item.id.partition).or_default().insert(item.id.offset);
        }
        let position = |(id, offsets): (&TopicPartition, &BTreeSet<i64>)| {
            let partition = self.partitions.get(id)?;
            Some((id.clone(), partition.window.position_after(offsets)))
        };
        let positions = finished
            .iter()
            .filter_map(|(id, offsets)| position((id, offsets)))
            .collect();
        let items = Arc::new(items);
        self.leaving = Some(items.clone());
        Some(Transaction {
            assignment: self.assignment,
            positions,
            items,
        })
    }

    fn is_due(&self, now: Instant) -> bool {
        let Some(oldest) = self.ready.front() else { return false };
        let bytes = || self.ready.iter().map(|item| item.bytes).sum::<usize>();
        now >= oldest.since + Duration::from_millis(self.limits.transaction_age_ms)
            || self.ready.len() >= self.limits.transaction_records
            || bytes() >= self.limits.transaction_bytes
    }

    /// The open transaction has ended. An aborted one leaves again from memory, in the same order, after a backoff.
    pub fn settle(&mut self, committed: bool, now: Instant, jitter: f64) {
        let Some(items) = self.leaving.take() else { return };
        if committed {
            self.aborts = 0;
            for item in items.iter() {
                if let Some(partition) = current(&mut self.partitions, &item.id) {
                    partition.leaving(item.id.offset);
                    self.processed += 1;
                }
            }
            for (id, partition) in &mut self.partitions {
                let started = partition.advance();
                self.runnable
                    .extend(started.into_iter().map(|offset| partition.work_id(id.clone(), offset)));
            }
        } else {
            self.hold = Some(now + backoff(self.aborts, jitter));
            self.aborts += 1;
            // The transaction's own copy is gone by now; if not, the outputs are cloned.
            let items = Arc::try_unwrap(items).unwrap_or_else(|shared| shared.iter().map(Ready::again).collect());
            for item in items.into_iter().rev() {
                if current(&mut self.partitions, &item.id).is_some() {
                    self.ready.push_front(item);
                }
            }
        }
    }

    /// When something is due by time alone.
    pub fn next_deadline(&self) -> Option<Instant> {
        let retry = self.waiting.peek().map(|Reverse((at, _))| *at);
        let age = Duration::from_millis(self.limits.transaction_age_ms);
        let cut = self.ready.front().filter(|_| self.leaving.is_none());
        let cut = cut.map(|item| (item.since + age).max(self.hold.unwrap_or(item.since)));
        [retry, cut].into_iter().flatten().min()
    }

    /// A transaction is open.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// The partitions that must not be fetched now.
    pub fn paused(&mut self) -> BTreeSet<TopicPartition> {
        let used: Vec<usize> = self.partitions.values().map(|p| p.bytes).collect();
        let occupancy = self.budget.occupancy(used.into_iter());
        let mut paused = BTreeSet::new();
        for (id, partition) in &mut self.partitions {
            if partition.decide_pause(&occupancy) {
                paused.insert(id.clone());
            }
        }
        paused
    }
}

impl Ready {
    fn again(&self) -> Self {
        Self {
            id: self.id.clone(),
            outputs: self.outputs.clone(),
            bytes: self.bytes,
            since: self.since,
        }
    }
}

/// The partition of a unit of work, if the door is still open.
fn current<'p>(partitions: &'p mut BTreeMap<TopicPartition, Partition>, id: &WorkId) -> Option<&'p mut Partition> {
    let partition = partitions.get_mut(&id.partition)?;
    (partition.assignment == id.assignment).then_some(partition)
}
