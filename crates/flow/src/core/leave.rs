//! What leaves together, and what becomes of it.
//!
//! | a transaction | then |
//! |---|---|
//! | was committed | its inputs are finished, its positions stand |
//! | was aborted | the same leaves again from memory, in the same order, after a backoff |
//! | was refused for what a record of it is | halves leave by themselves, until one record is left: that one is given up |
//! | was refused for a dead letter alone | its partition stops and says so |
//! | has an outcome that nobody knows | a new session starts from what is committed |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_failpoints::mutants;
use millrace_telemetry::Span;

use super::{Core, Ready, WorkId, take_back};
use crate::position::{Mark, Position};
use crate::retry::backoff;
use crate::stage::{Output, TopicPartition};

/// What leaves together: outputs in order, and the positions that make their inputs finished.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Newest change of assignment that the stage knew when it cut this: no commit under another one.
    pub assignment: u64,
    /// Positions to commit.
    pub positions: Vec<(TopicPartition, Position)>,
    items: Arc<Vec<Ready>>,
}

impl Transaction {
    /// What it finishes, in the order in which the outputs must be written.
    pub fn finished(&self) -> impl ExactSizeIterator<Item = Finished<'_>> {
        self.items.iter().map(|item| Finished {
            outputs: &item.outputs.0,
            buried: item.buried,
            span: &item.span,
        })
    }
    /// Outputs, in the order in which they must be written.
    pub fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.finished().flat_map(|finished| finished.outputs)
    }
    /// Inputs that it finishes.
    pub fn records(&self) -> usize {
        self.items.len()
    }
}

/// A record that a transaction finishes.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'t> {
    /// What it became.
    pub outputs: &'t [Output],
    /// It was given up: that is its dead letter.
    pub buried: bool,
    /// The record's span.
    pub span: &'t Span,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It stands.
    Committed,
    /// It does not; the same may work later.
    Aborted,
    /// It does not, because of what a record of it is: the log says why.
    Refused(String),
}

/// The open transaction.
#[derive(Debug)]
pub(super) struct Leaving {
    items: Arc<Vec<Ready>>,
    positions: Vec<(u32, i64, Mark)>,
}

impl Leaving {
    pub(super) fn concerns(&self, slots: &BTreeSet<u32>) -> bool {
        self.positions.iter().any(|(slot, ..)| slots.contains(slot))
    }
}

/// Looks for the records that the log refuses: half after a refusal, twice as many after a success.
#[derive(Debug)]
pub(super) struct Bisection {
    /// Records at the front of what is ready that are suspected.
    left: usize,
    /// As many leave at once.
    step: usize,
}

impl Core {
    /// Cuts the next transaction if one is due, or, when `flush` is set, if anything is ready. One is open at a time:
    /// [`Self::settle`] ends it.
    pub fn cut(&mut self, now: Instant, flush: bool) -> Option<Transaction> {
        if self.leaving.is_some() || self.hold.is_some_and(|until| now < until) {
            return None;
        }
        let marks = self.partitions.values().any(|partition| partition.wants_commit());
        if !(marks || flush && !self.ready.is_empty() || self.is_due(now)) {
            return None;
        }
        self.hold = None;
        let mut count = self.fitting();
        if mutants::METADATA_AFTER_CUT.is_active() {
            count = count.div_ceil(2);
        }
        let items: Vec<Ready> = self.ready.drain(..count).collect();
        self.ready_bytes -= items.iter().map(|item| item.bytes).sum::<usize>();
        let mut finished: BTreeMap<u32, BTreeSet<i64>> = BTreeMap::new();
        let after = mutants::METADATA_AFTER_CUT.is_active().then_some(&self.ready);
        for item in items.iter().chain(after.into_iter().flatten()) {
            finished.entry(item.id.slot).or_default().insert(item.id.offset);
        }
        let mut positions = Vec::new();
        let mut written = Vec::new();
        for (&slot, partition) in &mut self.partitions {
            let leaving = finished.remove(&slot);
            if leaving.is_none() && !partition.wants_commit() {
                continue;
            }
            let position = partition.position_after(&leaving.unwrap_or_default());
            written.push((slot, position.offset, position.mark));
            positions.push((partition.id.clone(), position));
        }
        let items = Arc::new(items);
        self.leaving = Some(Leaving {
            items: items.clone(),
            positions: written,
        });
        Some(Transaction {
            assignment: self.assignment,
            positions,
            items,
        })
    }

    /// How many of those that are ready leave with the next transaction.
    fn fitting(&self) -> usize {
        let sizes = self.ready.iter().scan(0, |bytes, item| {
            *bytes += item.bytes;
            Some(*bytes)
        });
        let fitting = sizes.take_while(|bytes| *bytes <= self.limits.transaction_bytes);
        let mut count = fitting.take(self.limits.transaction_records).count().max(1);
        if let Some(bisection) = &self.bisection {
            count = count.min(bisection.step).min(bisection.left.max(1));
        }
        count.min(self.ready.len())
    }

    fn age(&self) -> Duration {
        Duration::from_millis(self.limits.transaction_age_ms)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.ready
            .front()
            .is_some_and(|oldest| now >= oldest.since + self.age())
            || self.ready.len() >= self.limits.transaction_records
            || self.ready_bytes >= self.limits.transaction_bytes
    }

    /// When a transaction is due by time alone.
    pub(super) fn next_cut(&self) -> Option<Instant> {
        if self.leaving.is_some() {
            return None;
        }
        let oldest = self.ready.front().map(|oldest| oldest.since + self.age());
        let marks = self.partitions.values().any(|partition| partition.wants_commit());
        let held = self.hold.filter(|_| marks);
        oldest.map(|at| at.max(self.hold.unwrap_or(at))).or(held)
    }

    /// A transaction is open.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// The open transaction has ended.
    pub fn settle(&mut self, settled: Settled, now: Instant, jitter: f64) {
        let Some(leaving) = self.leaving.take() else { return };
        match settled {
            Settled::Committed => self.committed(leaving, now),
            Settled::Refused(reason) if !leaving.items.is_empty() => self.refused(leaving, reason),
            Settled::Aborted | Settled::Refused(_) => {
                self.hold = Some(now + backoff(self.aborts, jitter));
                self.aborts += 1;
                self.put_back(take_back(leaving.items));
            }
        }
    }

    fn committed(&mut self, leaving: Leaving, now: Instant) {
        let before = self.processed;
        self.aborts = 0;
        if let Some(bisection) = &mut self.bisection {
            bisection.left = bisection.left.saturating_sub(leaving.items.len());
            bisection.step *= 2;
            if bisection.left == 0 {
                self.bisection = None;
            }
        }
        for (slot, offset, mark) in leaving.positions {
            if let Some(partition) = self.partitions.get_mut(&slot) {
                partition.committed(offset, mark);
                self.marks.0.insert(partition.id.clone(), mark);
            }
        }
        for item in leaving.items.iter() {
            if let Some(partition) = self.partitions.get_mut(&item.id.slot) {
                partition.finish(item.id.offset);
                self.processed += u64::from(!item.buried);
            }
        }
        self.rate.ended(now, self.processed - before, 0);
        let mut let_in = Vec::new();
        for (&slot, partition) in &mut self.partitions {
            let_in.extend(partition.let_in().into_iter().map(|offset| WorkId { slot, offset }));
        }
        let_in.into_iter().for_each(|id| self.line_up(id));
    }

    fn refused(&mut self, leaving: Leaving, reason: String) {
        let mut items = take_back(leaving.items);
        let count = items.len();
        let left = self.bisection.as_ref().map_or(count, |bisection| bisection.left);
        // The guilty one's dead letter, or nothing, takes its place.
        self.bisection = Some(Bisection {
            left,
            step: (count / 2).max(1),
        });
        if count > 1 {
            self.put_back(items);
            return;
        }
        let Some(guilty) = items.pop() else { return };
        let Some(partition) = self.partitions.get_mut(&guilty.id.slot) else {
            return;
        };
        if guilty.buried {
            let offset = guilty.id.offset;
            partition.stopped = Some(format!(
                "DEAD_LETTER_REFUSED: the dead letter of offset {offset}: {reason}"
            ));
            return;
        }
        if let Some(held) = partition.held(guilty.id.offset) {
            held.tries.attempts += 1;
        }
        self.reject(guilty.id, "INVALID", "OUTPUT_REFUSED", &reason);
    }

    fn put_back(&mut self, items: Vec<Ready>) {
        for item in items.into_iter().rev() {
            if self.partitions.get(&item.id.slot).is_some_and(|of| !of.lost) {
                self.ready_bytes += item.bytes;
                self.ready.push_front(item);
            }
        }
    }
}
