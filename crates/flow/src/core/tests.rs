//! The core against a naive model: a log, what was committed to it, and random interleavings of everything that can
//! happen between them, crashes included.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::stage::Origin;

const TOPIC: &str = "in";

fn partition(number: i32) -> TopicPartition {
    TopicPartition {
        topic: TOPIC.into(),
        partition: number,
    }
}

fn record(number: i32, offset: i64, key: u8) -> Delivery {
    Delivery {
        origin: Origin {
            topic: TOPIC.into(),
            partition: number,
            offset,
        },
        key: Some(Bytes::copy_from_slice(&[key])),
        value: None,
        headers: Default::default(),
        timestamp_ms: 0,
        attempt: 1,
    }
}

fn outputs(id: &WorkId) -> Outputs {
    Outputs(vec![Output {
        topic: "out".into(),
        partition: Some(id.partition.partition),
        key: Bytes::new(),
        value: Some(Bytes::from(id.offset.to_string())),
        headers: Default::default(),
    }])
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Arrive(u8),
    Run,
    Finish(u8),
    Fail(u8),
    Cut,
    Commit,
    Abort,
    /// The commit's outcome was lost and the process died: it stands, or it does not.
    DieCommitting(bool),
    Crash,
    Rebalance(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<u8>().prop_map(Step::Arrive),
        6 => Just(Step::Run),
        6 => any::<u8>().prop_map(Step::Finish),
        2 => any::<u8>().prop_map(Step::Fail),
        4 => Just(Step::Cut),
        4 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => any::<bool>().prop_map(Step::DieCommitting),
        1 => Just(Step::Crash),
        1 => any::<u8>().prop_map(Step::Rebalance),
    ]
}

/// The log and what is committed: all that survives a crash.
struct World {
    /// By partition: offset and key of each record; offsets have gaps, as markers make them.
    log: Vec<Vec<(i64, u8)>>,
    committed: Vec<(i64, String)>,
    written: Vec<Vec<i64>>,
    // The process.
    core: Core,
    sent: Vec<usize>,
    running: Vec<Work>,
    open: Option<Transaction>,
    assignment: u64,
    now: Instant,
}

impl World {
    fn new(log: Vec<Vec<(i64, u8)>>) -> Self {
        let count = log.len();
        let mut world = Self {
            log,
            committed: vec![(0, String::new()); count],
            written: vec![Vec::new(); count],
            core: Core::new(Limits::default()),
            sent: vec![0; count],
            running: Vec::new(),
            open: None,
            assignment: 0,
            now: Instant::now(),
        };
        world.crash();
        world
    }

    fn crash(&mut self) {
        let limits = Limits {
            max_in_flight: 4,
            transaction_records: 3,
            ..Limits::default()
        };
        self.core = Core::new(limits);
        (self.running, self.open) = (Vec::new(), None);
        for number in 0..self.log.len() {
            self.assign(number);
        }
    }

    fn assign(&mut self, number: usize) {
        self.assignment += 1;
        let (offset, metadata) = &self.committed[number];
        let position = Position::parse(*offset, metadata).unwrap();
        self.core.assign(self.assignment, partition(number as i32), &position);
        self.sent[number] = self.log[number].partition_point(|(at, _)| *at < position.offset);
    }

    fn commit(&mut self, transaction: &Transaction) {
        for output in transaction.outputs() {
            let offset = std::str::from_utf8(output.value.as_ref().unwrap())
                .unwrap()
                .parse()
                .unwrap();
            self.written[output.partition.unwrap() as usize].push(offset);
        }
        for (partition, position) in &transaction.positions {
            self.committed[partition.partition as usize] = (position.offset, position.metadata());
        }
    }

    fn step(&mut self, step: Step) {
        self.now += Duration::from_secs(60);
        let pick = |n: u8, len: usize| usize::from(n) % len.max(1);
        match step {
            Step::Arrive(n) => {
                let number = pick(n, self.log.len());
                if let Some((offset, key)) = self.log[number].get(self.sent[number]) {
                    self.sent[number] += 1;
                    self.core.arrive(record(number as i32, *offset, *key));
                }
            }
            Step::Run => {
                let work = self.core.next_to_run(self.now);
                if let Some(work) = &work {
                    let key = |w: &Work| (w.id.partition.clone(), w.delivery.key.clone());
                    assert!(
                        !self
                            .running
                            .iter()
                            .any(|w| key(w) == key(work) && w.id.assignment == work.id.assignment)
                    );
                }
                self.running.extend(work);
            }
            Step::Finish(n) if !self.running.is_empty() => {
                let work = self.running.remove(pick(n, self.running.len()));
                let outputs = outputs(&work.id);
                self.core.finish(work.id, Ok(outputs), self.now, 0, 1.0);
            }
            Step::Fail(n) if !self.running.is_empty() => {
                let work = self.running.remove(pick(n, self.running.len()));
                let failure = Failure::Transient {
                    reason: "AWAY",
                    message: String::new(),
                };
                self.core.finish(work.id, Err(failure), self.now, 0, 1.0);
            }
            Step::Cut => {
                if let Some(transaction) = self.core.cut(self.now, true) {
                    assert!(self.open.is_none(), "one transaction at a time");
                    self.open = Some(transaction);
                }
            }
            Step::Commit => {
                if let Some(transaction) = self.open.take() {
                    self.commit(&transaction);
                    self.core.settle(true, self.now, 1.0);
                }
            }
            Step::Abort => {
                if self.open.take().is_some() {
                    self.core.settle(false, self.now, 1.0);
                }
            }
            Step::DieCommitting(stands) => {
                if let Some(transaction) = self.open.take() {
                    if stands {
                        self.commit(&transaction);
                    }
                    self.crash();
                }
            }
            Step::Crash => self.crash(),
            Step::Rebalance(n) => {
                let number = pick(n, self.log.len());
                let gone = [partition(number as i32)];
                self.core.begin_drain(self.assignment, &gone);
                // The open transaction ends before a partition is given back.
                if self.open.is_none() {
                    self.core.forget(&gone);
                    self.assign(number);
                }
            }
            Step::Finish(_) | Step::Fail(_) => {}
        }
    }

    fn settle(&mut self) {
        self.step(Step::Commit);
        self.crash();
        for round in 0..10_000 {
            for step in [
                Step::Arrive(round as u8),
                Step::Run,
                Step::Finish(round as u8),
                Step::Cut,
                Step::Commit,
            ] {
                self.step(step);
            }
            let len = |lists: &[Vec<i64>]| lists.iter().map(Vec::len).sum::<usize>();
            if len(&self.written) == self.log.iter().map(Vec::len).sum() && self.running.is_empty() {
                break;
            }
        }
    }
}

fn log() -> impl Strategy<Value = Vec<Vec<(i64, u8)>>> {
    let partition = proptest::collection::vec((1i64..4, 0u8..4), 0..30).prop_map(|steps| {
        let at = steps.into_iter().scan(-1, |at, (gap, key)| {
            *at += gap;
            Some((*at, key))
        });
        at.collect()
    });
    proptest::collection::vec(partition, 1..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn exactly_once_and_in_order_per_key(log in log(), steps in proptest::collection::vec(step(), 0..200)) {
        let mut world = World::new(log);
        for step in steps {
            world.step(step);
        }
        world.settle();
        for (number, records) in world.log.iter().enumerate() {
            let keys: BTreeMap<i64, u8> = records.iter().copied().collect();
            let mut written = world.written[number].clone();
            for key in 0..4 {
                let of_key: Vec<i64> = written.iter().copied().filter(|offset| keys[offset] == key).collect();
                prop_assert!(of_key.is_sorted(), "order of key {key}: {of_key:?}");
            }
            written.sort_unstable();
            let offsets: Vec<i64> = keys.into_keys().collect();
            prop_assert_eq!(written, offsets, "each once");
        }
    }
}

#[test]
fn a_slow_record_holds_back_nothing_but_its_key() {
    let mut world = World::new(vec![vec![(0, 0), (1, 1), (2, 0), (3, 1)]]);
    let limits = Limits {
        max_in_flight: 4,
        ..Limits::default()
    };
    world.core.limits = limits;
    (0..4).for_each(|_| world.step(Step::Arrive(0)));
    (0..4).for_each(|_| world.step(Step::Run));
    assert_eq!(world.running.len(), 2, "two keys");
    world.step(Step::Finish(1));
    world.step(Step::Run);
    world.step(Step::Finish(1));
    world.step(Step::Cut);
    world.step(Step::Commit);
    assert_eq!(world.written[0], [1, 3]);
    assert_eq!(
        world.committed[0],
        (0, "1;s=0;o=;a=0;b=BQ".into()),
        "1 and 3 above the lowest unfinished"
    );
}

#[test]
fn a_record_that_cannot_work_stops_its_key_and_says_so() {
    let mut world = World::new(vec![vec![(0, 0), (1, 1), (2, 0)]]);
    (0..3).for_each(|_| world.step(Step::Arrive(0)));
    let work = world.core.next_to_run(world.now).unwrap();
    let failure = Failure::Invalid {
        reason: "BROKEN",
        message: "it is".into(),
    };
    world.core.finish(work.id, Err(failure), world.now, 7, 0.0);
    let other = world.core.next_to_run(world.now).unwrap();
    assert_eq!(other.id.offset, 1);
    assert!(world.core.next_to_run(world.now + Duration::from_secs(3600)).is_none());
    let mut progress = Default::default();
    world.core.show(&mut progress, 7);
    assert_eq!((progress.failed, progress.last_failures[0].class), (1, "INVALID"));
    assert_eq!(progress.last_failures[0].origin.to_string(), "in/0/0");
}

#[test]
fn what_finishes_after_its_partition_was_taken_away_changes_nothing() {
    let mut world = World::new(vec![vec![(0, 0)]]);
    world.step(Step::Arrive(0));
    world.step(Step::Run);
    world.step(Step::Rebalance(0));
    world.step(Step::Finish(0));
    assert!(world.core.cut(world.now, true).is_none());
}

#[test]
fn a_full_budget_pauses_and_half_of_it_resumes() {
    let mut core = Core::new(Limits {
        window_bytes: 4096,
        ..Limits::default()
    });
    core.assign(1, partition(0), &Position::at(0));
    let mut offset = 0;
    while core.paused().is_empty() {
        core.arrive(record(0, offset, offset as u8));
        offset += 1;
        assert!(offset < 100);
    }
    let now = Instant::now();
    let works: Vec<Work> = std::iter::from_fn(|| core.next_to_run(now)).collect();
    let mut finished = 0;
    for work in works {
        let done = outputs(&work.id);
        core.finish(work.id, Ok(done), now, 0, 0.0);
        assert!(core.cut(now, true).is_some());
        core.settle(true, now, 0.0);
        finished += 1;
        if core.paused().is_empty() {
            break;
        }
    }
    assert!(finished >= 3 && finished < offset, "{finished} of {offset}");
}

#[test]
fn beyond_the_span_records_wait_and_none_is_dropped() {
    let mut core = Core::new(Limits {
        max_in_flight: 1 << 20,
        transaction_records: 1 << 20,
        ..Limits::default()
    });
    core.assign(1, partition(0), &Position::at(0));
    let span = crate::window::MAX_SPAN;
    for offset in 0..span + 10 {
        core.arrive(record(0, offset, offset as u8));
    }
    assert!(core.paused().contains(&partition(0)));
    let now = Instant::now();
    let mut done = 0;
    while let Some(work) = core.next_to_run(now) {
        let result = outputs(&work.id);
        core.finish(work.id, Ok(result), now, 0, 0.0);
        if core.cut(now, true).is_some() {
            core.settle(true, now, 0.0);
        }
        done += 1;
    }
    assert_eq!(done, span + 10);
    assert!(core.paused().is_empty());
}
