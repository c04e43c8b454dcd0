//! Random histories of one document against a naive model: parts in order and late, deaths between any two writes,
//! commits at any time, replays of all that was not committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use millrace_events::DocumentKey;
use millrace_indexer::publish::{Content, Part, Published, Publisher};
use proptest::prelude::*;

use crate::kit::*;

#[derive(Debug, Clone)]
enum Change {
    Upsert(Vec<usize>),
    Delete,
}

#[derive(Debug, Clone)]
enum Step {
    /// Process the next record; the process dies after so many writes, if it makes as many.
    Process {
        dies_after: i64,
    },
    Commit,
    Kill,
    Sweep,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => prop::collection::vec(1..3usize, 1..4).prop_map(Change::Upsert),
        1 => Just(Change::Upsert(vec![0])),
        1 => Just(Change::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12i64).prop_map(|dies_after| Step::Process { dies_after }),
        2 => Just(Step::Commit),
        1 => Just(Step::Kill),
        1 => Just(Step::Sweep),
    ]
}

fn history(of: &DocumentKey, changes: &[Change], late: &[(usize, usize)]) -> Vec<Part> {
    let one = |(r, change): (usize, &Change)| match change {
        Change::Upsert(sizes) => parts(of, revision(r as i64), sizes),
        Change::Delete => vec![deletion(of, revision(r as i64))],
    };
    let mut records: Vec<Part> = changes.iter().enumerate().flat_map(one).collect();
    // A redrive: a record leaves its place and comes later.
    for (from, by) in late {
        let from = from % records.len();
        let to = (from + by).min(records.len() - 1);
        let record = records.remove(from);
        records.insert(to, record);
    }
    records
}

/// Revisions in the order of their last parts, each live only if it is greater than all before.
fn expected(records: &[Part]) -> Vec<(i64, Published)> {
    let mut missing: BTreeMap<i64, i32> = BTreeMap::new();
    let (mut live, mut announced) = (-1, Vec::new());
    for record in records {
        let revision = record.revision.offset();
        let left = missing.entry(revision).or_insert(record.parts);
        *left -= 1;
        if *left == 0 && revision > live {
            live = revision;
            announced.push((
                revision,
                match &record.content {
                    Content::Delete => Published::Deleted,
                    Content::Chunks { chunk_count, .. } => Published::Live {
                        chunk_count: *chunk_count,
                    },
                },
            ));
        }
    }
    announced
}

struct Run<'a> {
    bench: &'a Bench,
    dying: &'a Dying,
    publisher: Publisher,
    records: Vec<Part>,
    committed: usize,
    next: usize,
    pending: Vec<(i64, Published)>,
    log: Vec<(i64, Published)>,
}

impl Run<'_> {
    async fn step(&mut self, step: &Step) {
        match step {
            Step::Process { dies_after } if self.next < self.records.len() => {
                self.dying.budget.store(*dies_after, Ordering::SeqCst);
                let part = self.records[self.next].clone();
                match self.publisher.publish(part.clone(), 1).await {
                    Ok(published) => {
                        self.pending.push((part.revision.offset(), published));
                        self.next += 1;
                    }
                    Err(_) => self.kill(),
                }
                self.dying.budget.store(i64::MAX, Ordering::SeqCst);
            }
            Step::Process { .. } => {}
            Step::Commit => {
                self.log.append(&mut self.pending);
                self.committed = self.next;
            }
            Step::Kill => self.kill(),
            Step::Sweep => self.bench.sweep().await,
        }
    }

    fn kill(&mut self) {
        self.pending.clear();
        self.next = self.committed;
    }

    /// A search sees one whole revision or none; which one never goes back.
    async fn check_seen(&self, of: &DocumentKey, newest: &mut i64) {
        let seen = self.bench.seen(of).await;
        let head = self.bench.head(of).await;
        let live = head.as_ref().map_or(-1, |head| head.live.offset());
        assert!(live >= *newest, "the head went back from {newest} to {live}");
        *newest = live;
        match head {
            Some(head) if head.chunk_count > 0 => assert_eq!(seen, whole(live, head.chunk_count as i32)),
            _ => assert!(seen.is_empty(), "{seen:?}"),
        }
    }
}

fn run(bench: &Bench, dying: &Arc<Dying>, changes: &[Change], late: &[(usize, usize)], steps: &[Step]) {
    static CASE: AtomicI64 = AtomicI64::new(0);
    let of = document(&format!("case {}", CASE.fetch_add(1, Ordering::SeqCst)));
    let records = history(&of, changes, late);
    let expected = expected(&records);
    let mut run = Run {
        bench,
        dying,
        publisher: Publisher::new(dying.clone()),
        records,
        committed: 0,
        next: 0,
        pending: Vec::new(),
        log: Vec::new(),
    };
    let runtime = tokio::runtime::Handle::current();
    runtime.block_on(async {
        let mut newest = -1;
        for step in steps {
            run.step(step).await;
            run.check_seen(&of, &mut newest).await;
        }
        while run.next < run.records.len() {
            run.step(&Step::Process { dies_after: i64::MAX }).await;
            run.check_seen(&of, &mut newest).await;
        }
        run.step(&Step::Commit).await;
        run.step(&Step::Sweep).await;
        run.check_seen(&of, &mut newest).await;
    });
    let announced = |(_, p): &&(i64, Published)| matches!(p, Published::Live { .. } | Published::Deleted);
    let log: Vec<_> = run.log.iter().filter(announced).copied().collect();
    // What was live for a moment between two commits may be replayed as superseded; the last one never is.
    assert_eq!(log.last(), expected.last());
    assert!(
        log.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "twice or out of order: {log:?}"
    );
    assert!(
        log.iter().all(|event| expected.contains(event)),
        "{log:?} is not among {expected:?}"
    );
    for (revision, _) in &expected {
        assert!(
            run.log.iter().any(|(r, p)| r == revision && *p != Published::Nothing),
            "{revision} never ended"
        );
    }
}

#[test]
fn every_history_ends_as_the_model_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let guard = runtime.enter();
    let bench = Bench::new();
    let dying = Dying::new(Arc::clone(&bench.index));
    let histories = (
        prop::collection::vec(change(), 1..6),
        prop::collection::vec((0..20usize, 1..6usize), 0..3),
        prop::collection::vec(step(), 0..40),
    );
    // PROPTEST_CASES asks for more.
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 48;
    }
    proptest!(config, |((changes, late, steps) in histories)| {
        run(&bench, &dying, &changes, &late, &steps);
    });
    drop(guard);
    // The engine's last threads end with the runtime.
    drop(dying);
    drop(bench);
}
