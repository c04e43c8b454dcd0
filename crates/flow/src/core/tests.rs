//! The core against a naive model: a log, what was committed to it, and random interleavings of everything that can
//! happen between them, crashes included.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::stage::{Failure, Origin, Output};

const TOPIC: &str = "in";
/// Markers that stand behind the last record of each partition.
const MARKERS: i64 = 3;

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

fn outputs(delivery: &Delivery, topic: &str) -> Outputs {
    Outputs(vec![Output {
        topic: topic.into(),
        partition: Some(delivery.origin.partition),
        key: Bytes::new(),
        value: Some(Bytes::from(delivery.origin.offset.to_string())),
        headers: Default::default(),
    }])
}

fn failure(class: &str) -> Failure {
    let (reason, message) = ("TEST", String::new());
    match class {
        "TRANSIENT" => Failure::Transient { reason, message },
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
enum Nature {
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
    fn is_bad(self) -> bool {
        !matches!(self, Self::Good | Self::Flaky(0..=2))
    }
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        12 => Just(Nature::Good),
        1 => Just(Nature::Invalid),
        1 => (0u32..5).prop_map(Nature::Flaky),
        1 => Just(Nature::Unwritable),
        1 => Just(Nature::Poison),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Arrive(u8),
    Run,
    Finish(u8),
    Transient(u8),
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
}

fn step() -> impl Strategy<Value = Step> {
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
    ]
}

type Log = Vec<Vec<(i64, u8, Nature)>>;

/// The log and what is committed: all that survives a crash.
struct World {
    /// By partition: offset, key and nature of each record; offsets have gaps, as markers make them.
    log: Log,
    committed: Vec<(i64, String)>,
    written: Vec<Vec<i64>>,
    letters: BTreeSet<(i32, i64)>,
    deaths: u32,
    // The process.
    core: Core,
    sent: Vec<usize>,
    running: Vec<Work>,
    open: Option<Transaction>,
    assignment: u64,
    now: Instant,
}

impl World {
    fn new(log: Log) -> Self {
        let count = log.len();
        let mut world = Self {
            log,
            committed: vec![(0, String::new()); count],
            written: vec![Vec::new(); count],
            letters: BTreeSet::new(),
            deaths: 0,
            core: Core::new(Limits::default(), Marks::default()),
            sent: vec![0; count],
            running: Vec::new(),
            open: None,
            assignment: 0,
            now: Instant::now(),
        };
        world.start(Marks::default());
        world
    }

    fn good(records: &[(i64, u8)]) -> Self {
        Self::new(vec![
            records.iter().map(|(at, key)| (*at, *key, Nature::Good)).collect(),
        ])
    }

    fn crash(&mut self) {
        self.deaths += 1;
        self.start(Marks::default());
    }

    fn start(&mut self, marks: Marks) {
        let limits = Limits {
            max_in_flight: 4,
            transaction_records: 3,
            blame_ms: 1 << 50,
            ..Limits::default()
        };
        self.core = Core::new(limits, marks);
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
        self.sent[number] = self.log[number].partition_point(|(at, ..)| *at < position.offset);
    }

    fn nature(&self, delivery: &Delivery) -> Nature {
        let records = &self.log[delivery.origin.partition as usize];
        let found = records.iter().find(|(at, ..)| *at == delivery.origin.offset);
        found.unwrap().2
    }

    fn commit(&mut self, transaction: &Transaction) {
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

    fn finish(&mut self, work: Work, result: Result<Outputs, Failure>) {
        self.core.finish(work.id, result, self.now, 0, 1.0);
        self.bury();
    }

    fn bury(&mut self) {
        while let Some((id, rejection)) = self.core.next_rejected(7) {
            let letter = outputs(&rejection.delivery, "dlq");
            self.core.bury(id, letter, self.now);
        }
    }

    fn end_transaction(&mut self) {
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

    fn step(&mut self, step: Step) {
        self.now += Duration::from_secs(60);
        let pick = |n: u8, len: usize| usize::from(n) % len.max(1);
        let number = |n: u8| pick(n, self.log.len());
        match step {
            Step::Arrive(n) => {
                let number = number(n);
                if let Some((offset, key, _)) = self.log[number].get(self.sent[number]) {
                    self.sent[number] += 1;
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
            Step::RateLimited(n) if !self.running.is_empty() => {
                let work = self.running.remove(pick(n, self.running.len()));
                self.finish(work, Err(failure("RATE_LIMITED")));
            }
            Step::Finish(_) | Step::Transient(_) | Step::RateLimited(_) => {}
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
                let core = std::mem::replace(&mut self.core, Core::new(Limits::default(), Marks::default()));
                self.start(core.into_marks());
            }
            Step::Lost(n) => {
                let number = number(n);
                let gone = [partition(number as i32)];
                self.core.begin_drain(self.assignment, &gone);
                // The open transaction ends before a partition is given back.
                self.end_transaction();
                self.core.abandon(&gone);
                self.core.forget(&gone);
                self.assign(number);
            }
            Step::Revoked(n) => {
                let number = number(n);
                let gone = [partition(number as i32)];
                self.core.begin_drain(self.assignment, &gone);
                self.core.abandon(&gone);
                while !self.core.is_drained(&gone) {
                    self.end_transaction();
                    self.now += Duration::from_secs(60);
                    self.open = self.core.cut(self.now, true);
                }
                self.core.forget(&gone);
                assert!(
                    !self.committed[number].1.contains("s=1"),
                    "a clean drain clears its starts"
                );
                self.assign(number);
            }
        }
    }

    fn end(&self, number: usize) -> i64 {
        self.log[number].last().map_or(0, |(at, ..)| at + 1 + MARKERS)
    }

    fn is_done(&self) -> bool {
        let at_end = |number: usize| self.committed[number] == (self.end(number), String::new());
        (0..self.log.len()).all(at_end)
    }

    fn settle(&mut self) {
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

    fn run_all(&mut self, steps: &[Step]) {
        steps.iter().for_each(|step| self.step(*step));
    }
}

fn log() -> impl Strategy<Value = Log> {
    let partition = proptest::collection::vec((1i64..4, 0u8..4, nature()), 0..30).prop_map(|steps| {
        let at = steps.into_iter().scan(-1, |at, (gap, key, nature)| {
            *at += gap;
            Some((*at, key, nature))
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
        world.run_all(&steps);
        let deaths = world.deaths;
        world.settle();
        for (number, records) in world.log.iter().enumerate() {
            let keys: BTreeMap<i64, u8> = records.iter().map(|(at, key, _)| (*at, *key)).collect();
            let mut written = world.written[number].clone();
            for key in 0..4 {
                let of_key: Vec<i64> = written.iter().copied().filter(|offset| keys[offset] == key).collect();
                prop_assert!(of_key.is_sorted(), "order of key {key}: {of_key:?}");
            }
            written.sort_unstable();
            let offsets: Vec<i64> = keys.into_keys().collect();
            prop_assert_eq!(written, offsets, "each once");
            for (offset, _, nature) in records {
                let letter = world.letters.contains(&(number as i32, *offset));
                // Three deaths from outside while one record runs alone look like its own.
                prop_assert!(letter || !nature.is_bad(), "{nature:?} at {offset} must be given up");
                prop_assert!(!letter || nature.is_bad() || deaths >= 3, "{nature:?} at {offset} must work");
            }
        }
        let poisons = world.log.iter().flatten().filter(|(.., nature)| *nature == Nature::Poison).count() as u32;
        prop_assert!(world.deaths - deaths <= 9 * poisons, "{} deaths by {poisons}", world.deaths - deaths);
    }
}

/// All that arrives, all that may run, one result for each, and a committed transaction.
const ROUND: [Step; 5] = [Step::Arrive(0), Step::Run, Step::Finish(0), Step::Cut, Step::Commit];

fn world_of(natures: &[(u8, Nature)]) -> World {
    let records = natures.iter().enumerate();
    World::new(vec![
        records.map(|(at, (key, nature))| (at as i64, *key, *nature)).collect(),
    ])
}

fn started(world: &mut World) {
    // The start is committed before anything runs.
    world.run_all(&[Step::Cut, Step::Commit]);
}

#[test]
fn a_slow_record_holds_back_nothing_but_its_key() {
    let mut world = World::good(&[(0, 0), (1, 1), (2, 0), (3, 1)]);
    started(&mut world);
    (0..4).for_each(|_| world.step(Step::Arrive(0)));
    (0..4).for_each(|_| world.step(Step::Run));
    assert_eq!(world.running.len(), 2, "two keys");
    world.run_all(&[Step::Finish(1), Step::Run, Step::Finish(1), Step::Cut, Step::Commit]);
    assert_eq!(world.written[0], [1, 3]);
    assert_eq!(
        world.committed[0],
        (0, "1;s=1;o=;a=0;b=BQ".into()),
        "1 and 3 above the lowest unfinished, which has not moved since the start"
    );
    world.run_all(&[Step::Finish(0), Step::Cut, Step::Commit]);
    assert_eq!(world.committed[0], (2, "1;s=0;o=;a=0;b=AQ".into()));
}

#[test]
fn an_invalid_record_is_given_up_at_once_and_a_failing_one_after_three_attempts() {
    let mut world = world_of(&[
        (0, Nature::Invalid),
        (1, Nature::Flaky(2)),
        (2, Nature::Flaky(3)),
        (0, Nature::Good),
    ]);
    let mut attempts = Vec::new();
    started(&mut world);
    (0..4).for_each(|_| world.step(Step::Arrive(0)));
    while !world.core.runnable.is_empty() || !world.core.waiting.is_empty() || !world.running.is_empty() {
        world.step(Step::Run);
        attempts.extend(
            world
                .running
                .last()
                .map(|work| (work.delivery.origin.offset, work.delivery.attempt)),
        );
        world.step(Step::Finish(0));
    }
    world.run_all(&[Step::Cut, Step::Commit, Step::Cut, Step::Commit]);
    attempts.sort_unstable();
    assert_eq!(
        attempts,
        [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1)]
    );
    assert_eq!(world.letters, [(0, 0), (0, 2)].into());
    assert_eq!(
        world.written[0]
            .iter()
            .filter(|at| [0, 3].contains(*at))
            .collect::<Vec<_>>(),
        [&0, &3],
        "in order"
    );
    let mut progress = Default::default();
    world.core.show(&mut progress, world.now, 7);
    assert_eq!((progress.processed, progress.failed), (2, 2));
    assert_eq!(
        progress
            .last_failures
            .iter()
            .filter(|seen| seen.class == "FAILED")
            .count(),
        5
    );
}

#[test]
fn an_outage_burns_no_attempt_however_long() {
    let mut world = World::good(&[(0, 0)]);
    started(&mut world);
    world.run_all(&[Step::Arrive(0), Step::Run]);
    for _ in 0..1000 {
        assert_eq!(world.running[0].delivery.attempt, 1);
        world.run_all(&[Step::Transient(0), Step::Run]);
    }
    world.run_all(&[Step::Finish(0), Step::Cut, Step::Commit]);
    assert_eq!((world.written[0].len(), world.letters.len()), (1, 0));
}

#[test]
fn a_record_that_alone_finds_its_dependency_away_fails_after_a_while() {
    let records: Vec<(i64, u8)> = (0..200).map(|at| (at, at as u8)).collect();
    let mut world = World::good(&records);
    world.core.limits.blame_ms = 300_000;
    started(&mut world);
    world.run_all(&[Step::Arrive(0), Step::Run]);
    let mut runs = 0;
    while world.letters.is_empty() {
        // The first stays away, the others succeed.
        world.step(Step::Transient(0));
        runs += 1;
        while world
            .running
            .first()
            .is_none_or(|work| work.delivery.origin.offset != 0)
            && world.letters.is_empty()
        {
            world.run_all(&[Step::Arrive(0), Step::Run]);
            if let Some(other) = world.running.iter().position(|work| work.delivery.origin.offset != 0) {
                world.step(Step::Finish(other as u8));
            }
            world.run_all(&[Step::Cut, Step::Commit]);
        }
    }
    assert_eq!(world.letters, [(0, 0)].into());
    assert!((4..10).contains(&runs), "{runs}");
}

#[test]
fn a_refused_configuration_stops_its_partition() {
    let mut world = World::good(&[(0, 0), (1, 1)]);
    started(&mut world);
    world.run_all(&[Step::Arrive(0), Step::Arrive(0), Step::Run]);
    let work = world.running.remove(0);
    world.finish(work, Err(failure("CONFIG")));
    world.step(Step::Run);
    assert!(world.running.is_empty() && world.letters.is_empty());
    assert!(world.core.paused(world.now).contains(&partition(0)));
    let mut progress = Default::default();
    world.core.show(&mut progress, world.now, 7);
    assert_eq!(progress.partitions[0].reason, "TEST: ");
}

#[test]
fn a_limit_shuts_the_gate_for_all_and_a_long_one_stops_fetching() {
    let mut world = World::good(&[(0, 0), (1, 1), (2, 2)]);
    started(&mut world);
    (0..3).for_each(|_| world.step(Step::Arrive(0)));
    let now = world.now;
    let first = world.core.next_to_run(now).unwrap();
    world.core.finish(first.id, Err(failure("RATE_LIMITED")), now, 0, 0.0);
    assert!(!world.core.lets_calls_through() && world.core.next_to_run(now).is_none());
    assert_eq!(world.core.next_deadline(), Some(now + Duration::from_secs(1)));
    let later = now + Duration::from_secs(1);
    assert!(world.core.paused(later).is_empty());
    let probe = world.core.next_to_run(later).unwrap();
    assert!(world.core.lets_calls_through(), "those of the probe");
    assert!(world.core.next_to_run(later).is_none(), "one probe");
    world.core.finish(probe.id, Err(failure("RATE_LIMITED")), later, 0, 0.0);
    let minute = now + Duration::from_secs(60);
    assert!(world.core.why_not_fetching(minute).unwrap().contains("60 s"));
    assert!(world.core.paused(minute).contains(&partition(0)));
    let probe = world.core.next_to_run(minute).unwrap();
    let done = outputs(&probe.delivery, "out");
    world.core.finish(probe.id, Ok(done), minute, 0, 0.0);
    assert!(world.core.paused(minute).is_empty(), "fetches again at once");
    assert!(world.core.next_to_run(minute).is_some() && world.core.next_to_run(minute).is_some());
}

#[test]
fn an_output_larger_than_a_topic_takes_is_invalid() {
    let mut world = World::good(&[(0, 0)]);
    started(&mut world);
    world.run_all(&[Step::Arrive(0), Step::Run]);
    let work = world.running.remove(0);
    let mut large = outputs(&work.delivery, "out");
    large.0[0].value = Some(vec![0; Limits::default().output_bytes].into());
    world.finish(work, Ok(large));
    world.run_all(&[Step::Cut, Step::Commit]);
    assert_eq!(world.letters, [(0, 0)].into());
}

#[test]
fn a_refused_transaction_is_bisected_and_only_the_guilty_are_given_up() {
    let natures: Vec<(u8, Nature)> = (0..40)
        .map(|at| (at, if at % 17 == 5 { Nature::Unwritable } else { Nature::Good }))
        .collect();
    let mut world = world_of(&natures);
    world.core.limits = Limits::default();
    started(&mut world);
    (0..40).for_each(|_| world.step(Step::Arrive(0)));
    (0..40).for_each(|_| world.step(Step::Run));
    (0..40).for_each(|_| world.step(Step::Finish(0)));
    let mut transactions = 0;
    while world.written[0].len() < 40 {
        world.run_all(&[Step::Cut, Step::Commit]);
        transactions += 1;
    }
    assert_eq!(world.letters, [(0, 5), (0, 22), (0, 39)].into());
    assert!(
        world.written[0].is_sorted(),
        "each in its place: {:?}",
        world.written[0]
    );
    assert!(transactions < 30, "{transactions}");
}

#[test]
fn a_dead_letter_that_is_refused_stops_its_partition() {
    let mut world = world_of(&[(0, Nature::Unwritable), (1, Nature::Good)]);
    started(&mut world);
    world.run_all(&[Step::Arrive(0), Step::Run, Step::Finish(0), Step::Cut, Step::Commit]);
    assert!(world.core.cut(world.now, true).is_some());
    world.core.settle(Settled::Refused("no".into()), world.now, 0.0);
    let mut progress = Default::default();
    world.core.show(&mut progress, world.now, 7);
    assert!(
        progress.partitions[0].reason.starts_with("DEAD_LETTER_REFUSED"),
        "{:?}",
        progress.partitions
    );
    assert_eq!(world.committed[0].0, 0, "it is still there");
}

#[test]
fn a_record_that_kills_the_process_is_given_up_and_the_others_work() {
    let natures: Vec<(u8, Nature)> = (0..20)
        .map(|at| (at, if at == 3 { Nature::Poison } else { Nature::Good }))
        .collect();
    let mut world = world_of(&natures);
    world.settle();
    assert_eq!(world.letters, [(0, 3)].into());
    assert_eq!(world.written[0].len(), 20);
    assert!(world.deaths <= 5, "{} deaths", world.deaths);
}

#[test]
fn the_position_moves_past_markers_once_everything_was_handed_over() {
    let mut world = World::good(&[(0, 0), (1, 1)]);
    started(&mut world);
    world.run_all(&ROUND);
    world.run_all(&ROUND);
    assert_eq!(world.committed[0], (2, String::new()));
    world.core.log_end(&partition(0), 5, None);
    world.step(Step::Cut);
    assert!(world.open.is_none(), "not everything was handed over");
    world.run_all(&[Step::End(0), Step::Cut, Step::Commit]);
    assert_eq!(world.committed[0], (5, String::new()));
    world.step(Step::Cut);
    assert!(world.open.is_none(), "once");
}

#[test]
fn what_finishes_after_its_partition_was_taken_away_changes_nothing() {
    let mut world = World::good(&[(0, 0)]);
    started(&mut world);
    world.run_all(&[Step::Arrive(0), Step::Run]);
    let late = world.running.pop().unwrap();
    world.run_all(&[Step::Lost(0), Step::Cut, Step::Commit]);
    let done = outputs(&late.delivery, "out");
    world.finish(late, Ok(done));
    assert!(world.core.cut(world.now, true).is_none());
}

fn core(limits: Limits) -> Core {
    let mut core = Core::new(limits, Marks::default());
    core.assign(1, partition(0), &Position::at(0));
    assert!(core.cut(Instant::now(), false).is_some());
    core.settle(Settled::Committed, Instant::now(), 0.0);
    core
}

#[test]
fn a_full_budget_pauses_and_half_of_it_resumes() {
    let mut core = core(Limits {
        window_bytes: 4096,
        ..Limits::default()
    });
    let now = Instant::now();
    let mut offset = 0;
    while core.paused(now).is_empty() {
        core.arrive(record(0, offset, offset as u8));
        offset += 1;
        assert!(offset < 100);
    }
    let works: Vec<Work> = std::iter::from_fn(|| core.next_to_run(now)).collect();
    let mut finished = 0;
    for work in works {
        core.finish(work.id, Ok(outputs(&work.delivery, "out")), now, 0, 0.0);
        assert!(core.cut(now, true).is_some());
        core.settle(Settled::Committed, now, 0.0);
        finished += 1;
        if core.paused(now).is_empty() {
            break;
        }
    }
    assert!(finished >= 3 && finished < offset, "{finished} of {offset}");
}

#[test]
fn a_record_that_waits_for_an_hour_does_not_slow_its_partition() {
    let mut core = core(Limits::default());
    let (now, many) = (Instant::now(), 100_000);
    core.arrive(record(0, 0, 0));
    let stuck = core.next_to_run(now).unwrap();
    for offset in 1..=many {
        core.arrive(record(0, offset, 1 + (offset % 250) as u8));
        let work = core.next_to_run(now).unwrap();
        core.finish(work.id, Ok(outputs(&work.delivery, "out")), now, 0, 0.0);
        assert!(
            core.cut(now, true)
                .is_some_and(|cut| cut.positions[0].1.metadata().len() < 4000)
        );
        core.settle(Settled::Committed, now, 0.0);
    }
    assert!(core.paused(now).is_empty());
    core.finish(stuck.id, Err(failure("TRANSIENT")), now, 0, 0.0);
    assert_eq!(core.processed, many as u64);
}

#[test]
fn beyond_the_span_records_wait_and_none_is_dropped() {
    let mut core = core(Limits {
        max_in_flight: 1 << 20,
        transaction_records: 1 << 20,
        ..Limits::default()
    });
    let (now, count) = (Instant::now(), crate::position::MAX_BITS + 1000);
    for offset in 0..count {
        core.arrive(record(0, offset, offset as u8));
    }
    assert!(core.paused(now).contains(&partition(0)));
    let mut done = 0;
    while let Some(work) = core.next_to_run(now) {
        core.finish(work.id, Ok(outputs(&work.delivery, "out")), now, 0, 0.0);
        if core.cut(now, true).is_some() {
            core.settle(Settled::Committed, now, 0.0);
        }
        done += 1;
    }
    assert_eq!(done, count);
    assert!(core.paused(now).is_empty());
}
