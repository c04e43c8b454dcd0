//! The decisions of a stage, as one plain value: what runs next, what leaves, what is committed, what is given up.
//!
//! The life of a record:
//!
//! ```text
//! arrive ─▶ waiting in its key's lane ─▶ runnable ─▶ running ─▶ ready ─▶ leaving ─▶ committed
//!    │                                    ▲    ▲        │        ▲  ▲        │
//!    └▶ held back (span full)     backoff ┘    │        │        │  └─ abort ┘
//!                                 quarantine ──┘        └▶ given up: its dead letter is ready in its place
//! ```
//!
//! A partition that is taken away is forgotten with all its records; whatever still runs for it meets a closed door,
//! because its [`WorkId`] carries the number of the assignment that it belongs to.

mod fail;
mod leave;
mod limits;
mod partition;
mod places;
#[cfg(test)]
mod tests;
mod view;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_telemetry::Span;

use crate::budget::Budget;
use crate::fair::{FairQueue, Sharing};
use crate::gate::Gate;
use crate::position::{Mark, Position};
use crate::progress::FailureSeen;
use crate::quarantine::{Release, SETTLED};
use crate::rate::Rate;
use crate::stage::{Delivery, Outputs, Rejection, TopicPartition};
pub use leave::{Finished, Settled, Transaction};
pub use limits::Limits;
use partition::Partition;
use places::{Place, Places};

/// A unit of work: a record under one assignment of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId {
    /// The assignment of the partition under which it was received; never used twice.
    slot: u32,
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
#[derive(Debug, Clone)]
struct Ready {
    id: WorkId,
    outputs: Outputs,
    bytes: usize,
    since: Instant,
    /// The outputs are its dead letter.
    buried: bool,
    /// The record's.
    span: Span,
}

/// A record that waits to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    until: Instant,
    id: WorkId,
    /// For a dependency: it runs as soon as the gate opens again.
    outage: bool,
}

/// What this process wrote of starts and deaths, kept while one session follows another.
#[derive(Debug, Clone, Default)]
pub struct Marks(HashMap<TopicPartition, Mark>);

/// The state of a stage.
#[derive(Debug)]
pub struct Core {
    limits: Limits,
    sharing: Sharing,
    budget: Budget,
    gate: Gate,
    partitions: BTreeMap<u32, Partition>,
    slots: HashMap<TopicPartition, u32>,
    last_slot: u32,
    marks: Marks,
    /// Number of the newest change of assignment; the log counts them.
    assignment: u64,
    /// Nothing more starts, as somebody has asked for.
    held: bool,
    runnable: FairQueue<WorkId>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    places: Places,
    /// When the session has worked long enough to run a suspect; unknown before it has a partition.
    settled: Option<Instant>,
    /// When a record last succeeded.
    success: Option<Instant>,
    rejected: VecDeque<(WorkId, Rejection)>,
    ready: VecDeque<Ready>,
    ready_bytes: usize,
    leaving: Option<leave::Leaving>,
    bisection: Option<leave::Bisection>,
    /// After an abort, no transaction before this moment.
    hold: Option<Instant>,
    aborts: u32,
    processed: u64,
    failed: u64,
    rate: Rate,
    failures: VecDeque<FailureSeen>,
}

impl Core {
    /// A stage without partitions. `marks` is what an earlier session of this process gave back.
    pub fn new(limits: Limits, sharing: Sharing, marks: Marks) -> Self {
        Self {
            limits,
            sharing,
            budget: Budget::new(limits.window_bytes),
            gate: Gate::default(),
            partitions: BTreeMap::new(),
            slots: HashMap::new(),
            last_slot: 0,
            marks,
            assignment: 0,
            held: false,
            runnable: FairQueue::default(),
            waiting: BinaryHeap::new(),
            places: Places::default(),
            settled: None,
            success: None,
            rejected: VecDeque::new(),
            ready: VecDeque::new(),
            ready_bytes: 0,
            leaving: None,
            bisection: None,
            hold: None,
            aborts: 0,
            processed: 0,
            failed: 0,
            rate: Rate::default(),
            failures: VecDeque::new(),
        }
    }

    /// For the next session of this process.
    pub fn into_marks(self) -> Marks {
        self.marks
    }

    /// The assignment changed, if only in its number: a change can give and take nothing.
    pub fn assignment_changed(&mut self, assignment: u64) {
        self.assignment = self.assignment.max(assignment);
    }

    /// A partition was given to this stage, where an earlier owner's position stands.
    pub fn assign(&mut self, id: TopicPartition, position: &Position) {
        self.last_slot += 1;
        let own = self.marks.0.get(&id).copied();
        let partition = Partition::new(id.clone(), position, own, self.limits.max_in_flight);
        self.partitions.insert(self.last_slot, partition);
        if let Some(before) = self.slots.insert(id, self.last_slot) {
            self.drop_slot(before);
        }
    }

    /// A partition was given to this stage, which cannot process it until a person has acted.
    pub fn assign_stopped(&mut self, id: TopicPartition, reason: String) {
        self.assign(id.clone(), &Position::default());
        if let Some(partition) = self.partition(&id) {
            partition.stopped = Some(reason);
        }
    }

    /// Partitions are about to be taken away: start nothing more of them.
    pub fn begin_drain(&mut self, partitions: &[TopicPartition]) {
        for id in partitions {
            if let Some(partition) = self.partition(id) {
                partition.draining = true;
            }
        }
    }

    /// Whether nothing of these partitions runs, is ready or is leaving, and their positions say so.
    pub fn is_drained(&mut self, partitions: &[TopicPartition]) -> bool {
        let slots: BTreeSet<u32> = partitions.iter().filter_map(|id| self.slots.get(id).copied()).collect();
        let held = |item: &Ready| slots.contains(&item.id.slot);
        if self.ready.iter().any(held) || self.leaving.as_ref().is_some_and(|leaving| leaving.concerns(&slots)) {
            return false;
        }
        let mut drained = true;
        for (_, partition) in self.partitions.iter_mut().filter(|(slot, _)| slots.contains(slot)) {
            if partition.running > 0 {
                return false;
            }
            partition.quarantine.drained();
            drained &= !partition.wants_commit();
        }
        drained
    }

    /// What still runs of these partitions has been cut off.
    pub fn abandon(&mut self, partitions: &[TopicPartition]) {
        for id in partitions {
            if let Some(partition) = self.partition(id) {
                (partition.running, partition.abandoned) = (0, true);
            }
        }
    }

    /// Partitions belong to somebody else already: nothing more of them starts, ends or leaves.
    pub fn lose(&mut self, partitions: &[TopicPartition]) {
        self.begin_drain(partitions);
        self.abandon(partitions);
        for id in partitions {
            if let Some(&slot) = self.slots.get(id) {
                self.drop_ready(slot);
                let partition = self.partitions.get_mut(&slot);
                partition.into_iter().for_each(|partition| partition.lost = true);
            }
        }
    }

    /// Forgets partitions and all their records.
    pub fn forget(&mut self, partitions: &[TopicPartition]) {
        for id in partitions {
            if let Some(slot) = self.slots.remove(id) {
                self.drop_slot(slot);
            }
        }
        let partitions = &self.partitions;
        self.runnable.retain(|id| partitions.contains_key(&id.slot));
    }

    fn drop_slot(&mut self, slot: u32) {
        self.partitions.remove(&slot);
        self.drop_ready(slot);
    }

    fn drop_ready(&mut self, slot: u32) {
        self.ready.retain(|item| item.id.slot != slot);
        self.ready_bytes = self.ready.iter().map(|item| item.bytes).sum();
    }

    /// The partitions held now.
    pub fn assigned(&self) -> Vec<TopicPartition> {
        let mut assigned: Vec<TopicPartition> = self.slots.keys().cloned().collect();
        assigned.sort_unstable();
        assigned
    }

    /// The partition of a unit of work, while it is held.
    pub fn partition_of(&self, id: WorkId) -> Option<&TopicPartition> {
        self.partitions.get(&id.slot).map(|partition| &partition.id)
    }

    fn partition(&mut self, id: &TopicPartition) -> Option<&mut Partition> {
        self.partitions.get_mut(self.slots.get(id)?)
    }

    /// A record arrived.
    pub fn arrive(&mut self, delivery: Delivery) {
        let Some(&slot) = self.slots.get(&delivery.origin.topic_partition()) else {
            return;
        };
        let offset = self.partitions.get_mut(&slot).and_then(|p| p.arrive(delivery));
        if let Some(offset) = offset {
            self.line_up(WorkId { slot, offset });
        }
    }

    /// A record could run now: when its turn comes.
    fn line_up(&mut self, id: WorkId) {
        let Some(partition) = self.partitions.get_mut(&id.slot) else {
            return;
        };
        let topic = partition.id.topic.clone();
        let Some(held) = partition.held(id.offset) else { return };
        let share = self.sharing.of(topic, &held.delivery);
        self.runnable.push(share, id);
    }

    /// The log said where a partition ends; `caught_up` is the offset below which everything was handed over.
    pub fn log_end(&mut self, id: &TopicPartition, last_stable: i64, caught_up: Option<i64>) {
        if let Some(partition) = self.partition(id) {
            partition.log_end(last_stable, caught_up);
        }
    }

    /// Nothing more starts or is fetched while it is held; what runs goes on and leaves.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// The next record to run, if one may.
    pub fn next_to_run(&mut self, now: Instant) -> Option<Work> {
        if self.held {
            return None;
        }
        while self.waiting.peek().is_some_and(|first| first.0.until <= now)
            && let Some(Reverse(due)) = self.waiting.pop()
        {
            self.line_up(due.id);
        }
        let solo = self.solo(now);
        self.release_held();
        let tenants = self.sharing.tenant_of.is_some();
        while self.gate.admits(now) {
            let place = self.places.free(self.limits.max_in_flight, tenants)?;
            let next = match (solo, place) {
                // Everything else waits for the suspect's run to end.
                (Some(slot), _) => self.runnable.take(|id| id.slot == slot),
                (None, Place::Common) => self.runnable.pop(),
                (None, Place::Kept) => self.runnable.pop_of(|tenant| self.places.is_new(tenant)),
            };
            let id = next?;
            let partition = self.partitions.get_mut(&id.slot);
            if let Some(delivery) = partition.and_then(|partition| partition.start(id.offset)) {
                self.gate.start();
                self.places.take(place, id, self.sharing.tenant(&delivery));
                return Some(Work { id, delivery });
            }
        }
        None
    }

    /// Whether calls may be made: not while the gate is shut, but by the record that probes.
    pub fn lets_calls_through(&self) -> bool {
        !self.gate.is_shut()
    }

    /// The partition whose suspect runs, or will, as the only record of the stage: of those that want to, the one with
    /// the fewest deaths, once nothing runs and the session has worked a while.
    fn solo(&mut self, now: Instant) -> Option<u32> {
        if self.partitions.is_empty() {
            return None;
        }
        let settled = *self.settled.get_or_insert(now + SETTLED);
        if let Some(slot) = self.has_solo() {
            return Some(slot);
        }
        let slot = self.wants_solo().filter(|_| settled <= now)?;
        if self.places.is_empty()
            && let Some(partition) = self.partitions.get_mut(&slot)
        {
            partition.quarantine.grant_solo();
        }
        Some(slot)
    }

    /// The partition whose suspect was let run alone, until that run has ended.
    fn has_solo(&self) -> Option<u32> {
        let mut partitions = self.partitions.iter();
        partitions.find(|(_, p)| p.quarantine.is_solo()).map(|(slot, _)| *slot)
    }

    /// The partition with the suspect of the fewest deaths.
    fn wants_solo(&self) -> Option<u32> {
        let live = |partition: &&Partition| !partition.draining && partition.stopped.is_none();
        let partitions = self.partitions.iter().filter(|(_, partition)| live(partition));
        let wanting = partitions.filter_map(|(slot, p)| p.quarantine.wants_solo().map(|deaths| (deaths, *slot)));
        wanting.min().map(|(_, slot)| slot)
    }

    fn release_held(&mut self) {
        let (mut freed, mut died) = (Vec::new(), Vec::new());
        for (&slot, partition) in &mut self.partitions {
            for release in partition.release_held() {
                match release {
                    Release::Start(offset) => freed.push(WorkId { slot, offset }),
                    Release::Bury(offset) => died.push(WorkId { slot, offset }),
                }
            }
        }
        freed.into_iter().for_each(|id| self.line_up(id));
        died.into_iter().for_each(|id| self.died(id));
    }

    /// When something is due by time alone.
    pub fn next_deadline(&self) -> Option<Instant> {
        let retry = self.waiting.peek().map(|Reverse(first)| first.until);
        let starts = !self.held;
        let gate = self.gate.next_change().filter(|_| !self.runnable.is_empty());
        let room = self.partitions.values().filter_map(Partition::waits_for_room).min();
        let suspect = self
            .settled
            .filter(|_| self.places.is_empty() && self.has_solo().is_none() && self.wants_solo().is_some());
        let start = [retry, gate, suspect].into_iter().flatten().filter(|_| starts);
        start.chain(room).chain(self.next_cut()).min()
    }

    /// Whether more should be taken from the log: not while a partition that is full waits a moment for room.
    pub fn has_room(&self) -> bool {
        self.partitions.values().all(|p| p.waits_for_room().is_none())
    }

    /// Why the stage fetches nothing, once its gate has been shut for its patience.
    pub fn why_not_fetching(&self, now: Instant) -> Option<String> {
        let patience = Duration::from_millis(self.limits.gate_patience_ms);
        let (shut, why) = self.gate.in_force(now).filter(|(shut, _)| *shut >= patience)?;
        let seconds = shut.as_secs();
        Some(format!(
            "nothing has been let through for {seconds} s, one record probes from time to time: {why}"
        ))
    }

    /// The partitions that must not be fetched now.
    pub fn paused(&mut self, now: Instant) -> BTreeSet<TopicPartition> {
        let stop = self.held || self.why_not_fetching(now).is_some();
        let used: Vec<usize> = self.partitions.values().map(|p| p.bytes).collect();
        let occupancy = self.budget.occupancy(&used);
        // Once one had to pause, the others need not wait for room: there will be none.
        let patient = occupancy.no_room() && !self.partitions.values().any(Partition::is_paused_for_room);
        let paused = self.partitions.values_mut().filter_map(|partition| {
            let pause = partition.decide_pause(&occupancy, stop, patient.then_some(now));
            pause.then(|| partition.id.clone())
        });
        paused.collect()
    }
}

/// The transaction's own copy is gone by the time it is settled; if not, the outputs are cloned.
fn take_back(items: Arc<Vec<Ready>>) -> Vec<Ready> {
    Arc::try_unwrap(items).unwrap_or_else(|shared| shared.as_ref().clone())
}
