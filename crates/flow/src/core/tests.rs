//! The core against a naive model under random interleavings of everything that can happen, crashes included; then case
//! by case.

mod world;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use proptest::prelude::*;

use super::*;
use crate::progress::StageProgress;
use world::*;

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

/// The first of 200 records ends in `step` again and again while the others succeed, until it is given up or has run this
/// often. Returns how often it ran.
fn beside_others(step: Step, most: u32) -> (World, u32) {
    let records: Vec<(i64, u8)> = (0..200).map(|at| (at, at as u8)).collect();
    let mut world = World::good(&records);
    world.core.limits.blame_ms = 300_000;
    started(&mut world);
    world.run_all(&[Step::Arrive(0), Step::Run]);
    let mut runs = 0;
    while world.letters.is_empty() && runs < most {
        world.step(step);
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
    (world, runs)
}

#[test]
fn a_record_that_alone_finds_its_dependency_away_fails_after_a_while() {
    let (world, runs) = beside_others(Step::Transient(0), 20);
    assert_eq!(world.letters, [(0, 0)].into());
    assert!((4..10).contains(&runs), "{runs}");
}

#[test]
fn nobody_is_blamed_for_what_no_record_can_bring_down() {
    let (mut world, _) = beside_others(Step::Away(0), 20);
    assert!(world.letters.is_empty());
    let first = |work: &Work| work.delivery.origin.offset == 0 && work.delivery.attempt == 1;
    let at = world
        .running
        .iter()
        .position(first)
        .expect("it runs again, at its first attempt");
    world.run_all(&[Step::Finish(at as u8), Step::Cut, Step::Commit]);
    assert!(world.written[0].contains(&0), "{:?}", world.written);
}

#[test]
fn a_process_killed_as_soon_as_it_works_gives_nothing_up_and_one_that_lives_runs_the_suspect() {
    let mut world = World::good(&[(0, 0)]);
    // A start, and all that happens within its first moments.
    let start = |world: &mut World| {
        let committed = [Step::Run, Step::Cut, Step::Commit];
        let arrived = [Step::Arrive(0), Step::Run];
        for step in [&committed[..], &arrived, &committed, &[Step::Run]].concat() {
            world.step_at_once(step);
        }
        world.now
    };
    for _ in 0..10 {
        start(&mut world);
        world.crash();
    }
    let begun = start(&mut world);
    assert!(world.running.is_empty(), "blamed once, it waits");
    assert_eq!(world.core.next_deadline(), Some(begun + SETTLED));
    world.now = begun + SETTLED;
    for step in [
        Step::Run,
        Step::Cut,
        Step::Commit,
        Step::Run,
        Step::Finish(0),
        Step::Cut,
        Step::Commit,
    ] {
        world.step_at_once(step);
    }
    assert_eq!((&world.written[0], world.letters.len()), (&vec![0], 0));
}

#[test]
fn what_came_after_a_start_is_no_suspect_of_the_death_before() {
    let mut world = World::good(&[(0, 0), (1, 1), (2, 2), (3, 3)]);
    started(&mut world);
    // At the next start two records stand in the log.
    (0..2).for_each(|_| world.step(Step::Arrive(0)));
    world.crash();
    let two_at_once = |world: &mut World| {
        world.run_all(&[Step::Cut, Step::Commit, Step::Run, Step::Run, Step::Run]);
        world.running.len() > 1
    };
    (0..4).for_each(|_| world.step(Step::Arrive(0)));
    for suspect in 0..2 {
        assert!(
            !two_at_once(&mut world) && !two_at_once(&mut world),
            "{suspect} runs alone"
        );
        world.step(Step::Finish(0));
    }
    assert!(
        two_at_once(&mut world) || two_at_once(&mut world),
        "{:?}",
        world.committed
    );
}

#[test]
fn a_second_suspect_that_waits_for_the_first_is_no_deadline() {
    let mut world = World::new(vec![vec![(0, 0, Nature::Good)], vec![(0, 0, Nature::Good)]]);
    for number in 0..2 {
        world.committed[number].1 = "1;s=2;o=0;a=1;b=".into();
    }
    world.start(Marks::default());
    world.run_all(&[
        Step::Cut,
        Step::Commit,
        Step::Arrive(0),
        Step::Arrive(1),
        Step::Run,
        Step::Run,
    ]);
    world.run_all(&[Step::Run, Step::Run]);
    // The first one's attempt is not committed yet: nothing is due by time.
    assert!(world.core.has_solo().is_some() && world.running.is_empty());
    assert_eq!(world.core.next_deadline(), None);
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
fn lag_is_told_in_records_and_in_time() {
    let mut core = core(Limits::default());
    let now = Instant::now();
    let shown = |core: &Core| {
        let mut progress = StageProgress::default();
        core.show(&mut progress, now, 10_000);
        (progress.partitions[0].lag_records, progress.partitions[0].lag_ms)
    };
    assert_eq!(shown(&core), (None, 0), "nobody knows the end yet");
    core.log_end(&partition(0), 5, None);
    assert_eq!(
        shown(&core),
        (Some(5), 0),
        "nothing was received, so nothing has an age"
    );
    core.arrive(Delivery {
        timestamp_ms: 4000,
        ..record(0, 0, 0)
    });
    assert_eq!(shown(&core), (Some(5), 6000));
    let work = core.next_to_run(now).unwrap();
    core.finish(work.id, Ok(outputs(&work.delivery, "out")), now, 0, 0.0);
    assert!(core.cut(now, true).is_some());
    core.settle(Settled::Committed, now, 0.0);
    core.log_end(&partition(0), 5, Some(5));
    assert_eq!(shown(&core), (Some(0), 0), "markers alone are left");
}

#[test]
fn what_is_held_starts_nothing_and_lets_go_of_what_runs() {
    let mut core = core(Limits::default());
    let now = Instant::now();
    core.arrive(record(0, 0, 0));
    core.arrive(record(0, 1, 1));
    let running = core.next_to_run(now).unwrap();
    core.hold(true);
    assert!(core.next_to_run(now).is_none());
    assert_eq!(core.paused(now), [partition(0)].into());
    core.finish(running.id, Ok(outputs(&running.delivery, "out")), now, 0, 0.0);
    assert!(core.cut(now, true).is_some_and(|cut| cut.records() == 1));
    core.settle(Settled::Committed, now, 0.0);
    core.arrive(record(0, 2, 2));
    assert!(core.next_to_run(now).is_none());
    assert_eq!(core.next_deadline(), None, "nothing is due that could not start");
    core.hold(false);
    assert!(core.paused(now).is_empty());
    let offsets: Vec<i64> = std::iter::from_fn(|| core.next_to_run(now))
        .map(|work| work.id.offset)
        .collect();
    assert_eq!(offsets, [1, 2]);
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
    let mut core = Core::new(limits, Sharing::default(), Marks::default());
    core.assign(partition(0), &Position::at(0));
    assert!(core.cut(Instant::now(), false).is_some());
    core.settle(Settled::Committed, Instant::now(), 0.0);
    core
}

/// A core with so many places; keys from 100 on are the small tenant's, those below the large one's.
fn core_of_tenants(max_in_flight: usize) -> Core {
    let limits = Limits {
        max_in_flight,
        ..Limits::default()
    };
    let sharing = Sharing {
        tenant_of: Some(|delivery| match delivery.key.as_deref() {
            Some([key]) if *key >= 100 => "small".into(),
            _ => "large".into(),
        }),
        ..Sharing::default()
    };
    let mut core = Core::new(limits, sharing, Marks::default());
    core.assign(partition(0), &Position::at(0));
    assert!(core.cut(Instant::now(), false).is_some());
    core.settle(Settled::Committed, Instant::now(), 0.0);
    core
}

#[test]
fn a_place_is_kept_for_a_tenant_of_which_nothing_runs() {
    let (mut core, now) = (core_of_tenants(8), Instant::now());
    (0..100).for_each(|offset| core.arrive(record(0, offset, offset as u8)));
    let running: Vec<Work> = std::iter::from_fn(|| core.next_to_run(now)).collect();
    assert_eq!(running.len(), 7, "the large tenant's");
    (100..103).for_each(|offset| core.arrive(record(0, offset, offset as u8)));
    let small = core.next_to_run(now).unwrap();
    assert_eq!(small.id.offset, 100);
    assert!(core.next_to_run(now).is_none(), "no place is left");
    core.finish(small.id, Ok(outputs(&small.delivery, "out")), now, 0, 0.0);
    assert_eq!(
        core.next_to_run(now).unwrap().id.offset,
        101,
        "nothing of it runs again"
    );
    core.finish(running[0].id, Ok(outputs(&running[0].delivery, "out")), now, 0, 0.0);
    assert!(core.next_to_run(now).is_some(), "whoever's turn it is");
}

/// However many tenants there are of which nothing runs: they do not push those of more weight out of their places.
#[test]
fn kept_places_leave_the_weights_of_the_others_alone() {
    let limits = Limits {
        max_in_flight: 8,
        ..Limits::default()
    };
    let sharing = Sharing {
        // Keys below 50 are one tenant's, each of the others is a tenant.
        tenant_of: Some(|delivery| match delivery.key.as_deref() {
            Some([key]) if *key < 50 => "weighty".into(),
            key => Bytes::copy_from_slice(key.unwrap_or_default()),
        }),
        tenants: [("weighty".into(), 700)].into(),
        ..Sharing::default()
    };
    let mut core = Core::new(limits, sharing, Marks::default());
    core.assign(partition(0), &Position::at(0));
    let now = Instant::now();
    assert!(core.cut(now, false).is_some());
    core.settle(Settled::Committed, now, 0.0);
    let key = |offset: i64| {
        let number = (offset / 2) as u8;
        if offset % 2 == 0 {
            // Fewer keys than turns that are looked at: newcomers behind them are found.
            number % 8
        } else {
            50 + number % 100
        }
    };
    (0..1000).for_each(|offset| core.arrive(record(0, offset, key(offset))));
    let mut running: VecDeque<Work> = std::iter::from_fn(|| core.next_to_run(now)).collect();
    let mut ran = 0;
    // First each of a hundred tenants has a turn, whatever its weight.
    for turn in 0..350 {
        let work = running.pop_front().unwrap();
        core.finish(work.id, Ok(outputs(&work.delivery, "out")), now, 0, 0.0);
        ran += usize::from(turn >= 150 && key(work.id.offset) < 50);
        running.extend(std::iter::from_fn(|| core.next_to_run(now)));
    }
    assert!(ran > 120, "of 200 ran {ran} of the tenant that has 700 of 800 turns");
}

#[test]
fn a_tenant_with_little_to_do_does_not_wait_for_one_with_much() {
    let (mut core, now) = (core_of_tenants(1), Instant::now());
    (0..100).for_each(|offset| core.arrive(record(0, offset, offset as u8)));
    let mut order = Vec::new();
    for turn in 0..10 {
        let work = core.next_to_run(now).unwrap();
        order.push(work.id.offset);
        core.finish(work.id, Ok(outputs(&work.delivery, "out")), now, 0, 0.0);
        if turn == 4 {
            core.arrive(record(0, 100, 100));
        }
    }
    assert_eq!(order, [0, 1, 2, 3, 4, 100, 5, 6, 7, 8]);
}

#[test]
fn a_full_budget_pauses_and_half_of_it_resumes() {
    let mut core = core(Limits {
        window_bytes: 4096,
        ..Limits::default()
    });
    let mut now = Instant::now();
    let mut offset = 0;
    while core.has_room() {
        core.arrive(record(0, offset, offset as u8));
        offset += 1;
        assert!(offset < 100);
        assert!(core.paused(now).is_empty(), "the next commit may make room");
    }
    now = core.next_deadline().unwrap();
    assert_eq!(core.paused(now), [partition(0)].into());
    assert!(core.has_room(), "what was fetched ahead is taken");
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
    assert!(
        core.paused(now).is_empty(),
        "a pause would throw away what was fetched ahead"
    );
    assert!(
        core.partitions
            .values()
            .all(|p| p.len() == count as usize && p.window.next() <= crate::position::MAX_BITS + 1)
    );
    let mut done = 0;
    while let Some(work) = core.next_to_run(now) {
        core.finish(work.id, Ok(outputs(&work.delivery, "out")), now, 0, 0.0);
        if core.cut(now, true).is_some() {
            core.settle(Settled::Committed, now, 0.0);
        }
        done += 1;
    }
    assert_eq!(done, count);
}
