//! A naive model of what surrounds the core: a log, what was committed to it, and a process that dies.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::*;
use crate::stage::{Failure, Origin, Output};

const TOPIC: &str = "in";
/// Markers that stand behind the last record of each partition.
const MARKERS: i64 = 3;

pub(super) fn partition(number: i32) -> TopicPartition {
    TopicPartition {
        topic: TOPIC.into(),
        partition: number,
    }
}

pub(super) fn record(number: i32, offset: i64, key: u8) -> Delivery {
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
        span: Default::default(),
    }
}

pub(super) fn outputs(delivery: &Delivery, topic: &str) -> Outputs {
    Outputs(vec![Output {
        topic: topic.into(),
        partition: Some(delivery.origin.partition),
        key: Bytes::new(),
        value: Some(Bytes::from(delivery.origin.offset.to_string())),
        headers: Default::default(),
    }])
}

pub(super) fn failure(class: &str) -> Failure {
    let (reason, message) = ("TEST", String::new());
    match class {
        "TRANSIENT" => Failure::Transient { reason, message },
        "AWAY" => Failure::Away { reason, message },
        "RATE_LIMITED" => Failure::RateLimited {
            reason,
            message,
            retry_after: Duration::from_secs(1),
        },
        "CONFIG" => Failure::Config { reason, message },
        "INVALID" => Failure::Invalid { reason, message },
        _ => Failure::Failed { reason, message },
    }
}

/// What comes of a record when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Good,
    Invalid,
    /// Fails this often before it works.
    Flaky(u32),
    /// Its output is refused by the log.
    Unwritable,
    /// Kills the process.
    Poison,
}

impl Nature {
    /// Whether it must end as a dead letter.
    pub(super) fn is_bad(self) -> bool {
        !matches!(self, Self::Good | Self::Flaky(0..=2))
    }
}

pub(super) fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        12 => Just(Nature::Good),
        1 => Just(Nature::Invalid),
        1 => (0u32..5).prop_map(Nature::Flaky),
        1 => Just(Nature::Unwritable),
        1 => Just(Nature::Poison),
    ]
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Arrive(u8),
    Run,
    Finish(u8),
    Transient(u8),
    Away(u8),
    RateLimited(u8),
    End(u8),
    Cut,
    Commit,
    Abort,
    /// The commit's outcome was lost and the process died: it stands, or it does not.
    DieCommitting(bool),
    Crash,
    /// A new session in the same process.
    Restart,
    Lost(u8),
    Revoked(u8),
    /// From now on a step takes a second, or a minute.
    Pace(bool),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<u8>().prop_map(Step::Arrive),
        6 => Just(Step::Run),
        6 => any::<u8>().prop_map(Step::Finish),
        2 => any::<u8>().prop_map(Step::Transient),
        1 => any::<u8>().prop_map(Step::RateLimited),
        1 => any::<u8>().prop_map(Step::End),
        4 => Just(Step::Cut),
        4 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => any::<bool>().prop_map(Step::DieCommitting),
        1 => Just(Step::Crash),
        1 => Just(Step::Restart),
        1 => any::<u8>().prop_map(Step::Lost),
        1 => any::<u8>().prop_map(Step::Revoked),
        1 => any::<bool>().prop_map(Step::Pace),
    ]
}

pub(super) type Log = Vec<Vec<(i64, u8, Nature)>>;

/// The log and what is committed: all that survives a crash.
pub(super) struct World {
    /// By partition: offset, key and nature of each record; offsets have gaps, as markers make them.
    pub(super) log: Log,
    pub(super) committed: Vec<(i64, String)>,
    pub(super) written: Vec<Vec<i64>>,
    pub(super) letters: BTreeSet<(i32, i64)>,
    pub(super) deaths: u32,
    // The process.
    pub(super) core: Core,
    pub(super) sent: Vec<usize>,
    pub(super) running: Vec<Work>,
    pub(super) open: Option<Transaction>,
    pub(super) assignment: u64,
    pub(super) now: Instant,
    hurries: bool,
    /// Behind the last record that was ever handed over, by partition.
    handed_over: Vec<i64>,
}

impl World {
    pub(super) fn new(log: Log) -> Self {
        let count = log.len();
        let mut world = Self {
            log,
            committed: vec![(0, String::new()); count],
            written: vec![Vec::new(); count],
            letters: BTreeSet::new(),
            deaths: 0,
            core: Core::new(Limits::default(), Sharing::default(), Marks::default()),
            sent: vec![0; count],
            running: Vec::new(),
            open: None,
            assignment: 0,
            now: Instant::now(),
            hurries: false,
            handed_over: vec![0; count],
        };
        world.start(Marks::default());
        world
    }

    pub(super) fn good(records: &[(i64, u8)]) -> Self {
        Self::new(vec![
            records.iter().map(|(at, key)| (*at, *key, Nature::Good)).collect(),
        ])
    }

    pub(super) fn crash(&mut self) {
        self.deaths += 1;
        self.start(Marks::default());
    }

    pub(super) fn start(&mut self, marks: Marks) {
        let limits = Limits {
            max_in_flight: 4,
            transaction_records: 3,
            blame_ms: 1 << 50,
            ..Limits::default()
        };
        self.core = Core::new(limits, Sharing::default(), marks);
        (self.running, self.open) = (Vec::new(), None);
        for number in 0..self.log.len() {
            self.assign(number);
        }
    }

    pub(super) fn assign(&mut self, number: usize) {
        self.assignment += 1;
        let (offset, metadata) = &self.committed[number];
        let position = Position::parse(*offset, metadata).unwrap();
        self.core.assignment_changed(self.assignment);
        self.core.assign(partition(number as i32), &position);
        self.sent[number] = self.log[number].partition_point(|(at, ..)| *at < position.offset);
        // The log may have grown since the last death, or not.
        let end = match self.assignment % 3 {
            0 => self.end(number),
            _ => self.handed_over[number],
        };
        self.core.log_end(&partition(number as i32), end, None);
    }

    pub(super) fn nature(&self, delivery: &Delivery) -> Nature {
        let records = &self.log[delivery.origin.partition as usize];
        let found = records.iter().find(|(at, ..)| *at == delivery.origin.offset);
        found.unwrap().2
    }

    pub(super) fn commit(&mut self, transaction: &Transaction) {
        for output in transaction.outputs() {
            let text = std::str::from_utf8(output.value.as_ref().unwrap()).unwrap();
            let (partition, offset) = (output.partition.unwrap(), text.parse().unwrap());
            self.written[partition as usize].push(offset);
            if output.topic == "dlq" {
                self.letters.insert((partition, offset));
            }
        }
        for (partition, position) in &transaction.positions {
            let committed = &mut self.committed[partition.partition as usize];
            assert!(committed.0 <= position.offset, "positions never go back");
            *committed = (position.offset, position.metadata());
        }
    }

    pub(super) fn finish(&mut self, work: Work, result: Result<Outputs, Failure>) {
        self.core.finish(work.id, result, self.now, 0, 1.0);
        self.bury();
    }

    pub(super) fn bury(&mut self) {
        while let Some((id, rejection)) = self.core.next_rejected(7) {
            let letter = outputs(&rejection.delivery, "dlq");
            self.core.bury(id, letter, self.now);
        }
    }

    pub(super) fn end_transaction(&mut self) {
        let Some(transaction) = self.open.take() else { return };
        if transaction.outputs().any(|output| output.topic == "refused") {
            drop(transaction);
            self.core.settle(Settled::Refused("too strange".into()), self.now, 1.0);
            self.bury();
        } else {
            self.commit(&transaction);
            drop(transaction);
            self.core.settle(Settled::Committed, self.now, 1.0);
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        self.now += Duration::from_secs(if self.hurries { 1 } else { 60 });
        self.step_at_once(step);
    }

    pub(super) fn step_at_once(&mut self, step: Step) {
        let pick = |n: u8, len: usize| usize::from(n) % len.max(1);
        let number = |n: u8| pick(n, self.log.len());
        match step {
            Step::Arrive(n) => {
                let number = number(n);
                if let Some((offset, key, _)) = self.log[number].get(self.sent[number]) {
                    self.sent[number] += 1;
                    self.handed_over[number] = self.handed_over[number].max(offset + 1);
                    self.core.arrive(record(number as i32, *offset, *key));
                }
            }
            Step::Run => {
                let work = self.core.next_to_run(self.now);
                self.bury();
                if let Some(work) = work {
                    let key = |w: &Work| (w.delivery.origin.partition, w.delivery.key.clone(), w.id.slot);
                    assert!(
                        !self.running.iter().any(|w| key(w) == key(&work)),
                        "two of a key at once"
                    );
                    match self.nature(&work.delivery) {
                        Nature::Poison => self.crash(),
                        _ => self.running.push(work),
                    }
                }
            }
            Step::Finish(n) if !self.running.is_empty() => {
                let work = self.running.remove(pick(n, self.running.len()));
                let result = match self.nature(&work.delivery) {
                    Nature::Invalid => Err(failure("INVALID")),
                    Nature::Flaky(times) if work.delivery.attempt <= times => Err(failure("FAILED")),
                    Nature::Unwritable => Ok(outputs(&work.delivery, "refused")),
                    _ => Ok(outputs(&work.delivery, "out")),
                };
                self.finish(work, result);
            }
            Step::Transient(n) if !self.running.is_empty() => {
                let work = self.running.remove(pick(n, self.running.len()));
                self.finish(work, Err(failure("TRANSIENT")));
            }
            Step::Away(n) if !self.running.is_empty() => {
                let work = self.running.remove(pick(n, self.running.len()));
                self.finish(work, Err(failure("AWAY")));
            }
            Step::RateLimited(n) if !self.running.is_empty() => {
                let work = self.running.remove(pick(n, self.running.len()));
                self.finish(work, Err(failure("RATE_LIMITED")));
            }
            Step::Finish(_) | Step::Transient(_) | Step::Away(_) | Step::RateLimited(_) => {}
            Step::Pace(hurries) => self.hurries = hurries,
            Step::End(n) => {
                let number = number(n);
                if self.sent[number] == self.log[number].len() {
                    let end = self.end(number);
                    self.core.log_end(&partition(number as i32), end, Some(end));
                }
            }
            Step::Cut => {
                if let Some(transaction) = self.core.cut(self.now, true) {
                    assert!(self.open.is_none(), "one transaction at a time");
                    self.open = Some(transaction);
                }
            }
            Step::Commit => self.end_transaction(),
            Step::Abort => {
                if self.open.take().is_some() {
                    self.core.settle(Settled::Aborted, self.now, 1.0);
                }
            }
            Step::DieCommitting(stands) => {
                if let Some(transaction) = self.open.take() {
                    if stands && !transaction.outputs().any(|output| output.topic == "refused") {
                        self.commit(&transaction);
                    }
                    self.crash();
                }
            }
            Step::Crash => self.crash(),
            Step::Restart => {
                let core = std::mem::replace(
                    &mut self.core,
                    Core::new(Limits::default(), Sharing::default(), Marks::default()),
                );
                self.start(core.into_marks());
            }
            Step::Lost(n) => {
                let number = number(n);
                let gone = [partition(number as i32)];
                self.core.lose(&gone);
                // The open transaction ends before a partition is given back.
                self.end_transaction();
                self.core.forget(&gone);
                self.assign(number);
            }
            Step::Revoked(n) => {
                let number = number(n);
                let gone = [partition(number as i32)];
                self.core.begin_drain(&gone);
                self.core.abandon(&gone);
                while !self.core.is_drained(&gone) {
                    self.end_transaction();
                    self.now += Duration::from_secs(60);
                    self.open = self.core.cut(self.now, true);
                }
                self.core.forget(&gone);
                let (offset, metadata) = &self.committed[number];
                let mark = Position::parse(*offset, metadata).unwrap().mark;
                assert!(
                    mark == Mark::default() || mark.alone.is_some(),
                    "a clean drain clears its starts"
                );
                self.assign(number);
            }
        }
    }

    pub(super) fn end(&self, number: usize) -> i64 {
        self.log[number].last().map_or(0, |(at, ..)| at + 1 + MARKERS)
    }

    pub(super) fn is_done(&self) -> bool {
        let at_end = |number: usize| self.committed[number] == (self.end(number), String::new());
        (0..self.log.len()).all(at_end)
    }

    pub(super) fn settle(&mut self) {
        self.hurries = false;
        self.step(Step::Commit);
        for round in 0..40_000u32 {
            let n = (round % 251) as u8;
            for step in [
                Step::Arrive(n),
                Step::Run,
                Step::Finish(n),
                Step::End(n),
                Step::Cut,
                Step::Commit,
            ] {
                self.step(step);
            }
            if self.is_done() {
                return;
            }
        }
        panic!("not done: {:?} of {:?}", self.committed, self.log);
    }

    pub(super) fn run_all(&mut self, steps: &[Step]) {
        steps.iter().for_each(|step| self.step(*step));
    }
}

pub(super) fn log() -> impl Strategy<Value = Log> {
    let partition = proptest::collection::vec((1i64..4, 0u8..4, nature()), 0..30).prop_map(|steps| {
        let at = steps.into_iter().scan(-1, |at, (gap, key, nature)| {
            *at += gap;
            Some((*at, key, nature))
        });
        at.collect()
    });
    proptest::collection::vec(partition, 1..3)
}
