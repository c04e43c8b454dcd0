use millrace_events::IdError;

use super::*;
use crate::replica::Batch;

/// Given up by a stage for a reason, at a time.
fn put(offset: i64, stage: &str, reason: &str, failed_at_ms: i64) -> ChangeOf<Letters> {
    let record = DeadLetter {
        topic: "documents.parsed".into(),
        partition: 3,
        offset,
        state: LetterState::Open,
        stage: stage.into(),
        reason: reason.into(),
        failed_at_ms,
        ..DeadLetter::default()
    };
    with(record)
}

fn with(record: DeadLetter) -> ChangeOf<Letters> {
    let entry = Box::new(Letter {
        record,
        partition: 3,
        traceparent: None,
    });
    Change::Put { entry, partition: 3 }
}

fn key(offset: i64) -> LetterKey {
    LetterKey::new("documents.parsed", 3, offset).unwrap()
}

fn store(changes: Vec<ChangeOf<Letters>>) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    apply(&store, changes);
    (folder, store)
}

fn apply(store: &Store, changes: Vec<ChangeOf<Letters>>) {
    let offsets = BTreeMap::new();
    store.apply(&Batch { changes, offsets }, 5, true).unwrap();
}

fn offsets(store: &Store, filter: &Filter, after: Option<Mark>, size: usize) -> (Vec<i64>, Option<Mark>) {
    let page = store.page(filter, after, size).unwrap();
    let offsets = page.letters.iter().map(|letter| letter.record.offset);
    (offsets.collect(), page.next)
}

#[test]
fn pages_hold_each_letter_once_the_last_given_up_first() {
    let (_folder, store) = store((0..5).map(|n| put(n, "embed", "PANIC", 100 - n / 2)).collect());
    let all = Filter::default();
    let (first, next) = offsets(&store, &all, None, 2);
    let (second, next) = offsets(&store, &all, next, 2);
    let (third, next) = offsets(&store, &all, next, 2);
    assert_eq!([first, second, third].concat(), [1, 0, 3, 2, 4]);
    assert_eq!(next, None);
    let (exactly, next) = offsets(&store, &all, None, 5);
    assert_eq!((exactly.len(), next), (5, None));
}

#[test]
fn a_time_span_is_a_span_of_the_list() {
    let (_folder, store) = store((0..5).map(|n| put(n, "embed", "PANIC", n)).collect());
    let span = |since_ms, until_ms| {
        let filter = Filter {
            since_ms,
            until_ms,
            ..Filter::default()
        };
        offsets(&store, &filter, None, 9).0
    };
    assert_eq!(span(Some(1), Some(3)), [2, 1]);
    assert_eq!(span(Some(3), Some(3)), [0; 0]);
    assert_eq!(span(Some(4), Some(1)), [0; 0]);
    assert_eq!(span(None, Some(1)), [0]);
}

#[test]
fn the_newest_record_of_a_key_counts_and_a_tombstone_removes_it() {
    let (_folder, store) = store(vec![put(1, "embed", "PANIC", 7), put(2, "embed", "PANIC", 7)]);
    let mut again = store.letter(&key(1)).unwrap().unwrap().record;
    (again.state, again.redrives, again.failed_at_ms) = (LetterState::Redriven, 1, 8);
    apply(&store, vec![with(again.clone()), Change::Remove(key(2))]);
    assert_eq!(store.letter(&key(1)).unwrap().unwrap().record, again);
    assert_eq!(store.letter(&key(2)).unwrap(), None);
    assert_eq!(offsets(&store, &Filter::default(), None, 9).0, [1]);
    store.clear().unwrap();
    assert_eq!(offsets(&store, &Filter::default(), None, 9).0, [0; 0]);
}

#[test]
fn a_summary_counts_by_stage_reason_and_state() {
    let (_folder, store) = store(vec![
        put(1, "embed", "PANIC", 7),
        put(2, "parse", "BODY_NOT_UTF8", 3),
        put(3, "parse", "BODY_NOT_UTF8", 9),
    ]);
    let counts = store.summary(&Filter::default()).unwrap();
    let told: Vec<_> = counts
        .iter()
        .map(|c| (c.reason.as_str(), c.letters, c.first_failed_at_ms, c.last_failed_at_ms))
        .collect();
    assert_eq!(told, [("BODY_NOT_UTF8", 2, 3, 9), ("PANIC", 1, 7, 7)]);
}

#[test]
fn a_plan_tells_whom_it_takes_and_whom_it_passes_over() {
    let (_folder, store) = store((0..4).map(|n| put(n, "embed", "PANIC", n)).collect());
    let filter = Filter {
        since_ms: Some(1),
        ..Filter::default()
    };
    let plan = store.plan(&filter, |letter| (letter.offset == 2).then_some(Skip::TooOld));
    let plan = plan.unwrap();
    assert_eq!((plan.matched, plan.skipped), (3, [(Skip::TooOld, 1)].into()));
    assert_eq!(plan.open, [key(1), key(3)].into());
}

#[test]
fn a_letter_belongs_under_its_place() {
    assert_eq!(Letters::key(b"documents.parsed/3/7"), Ok(key(7)));
    assert_eq!(Letters::key(b"t/d"), Err(IdError::LetterKey));
}
