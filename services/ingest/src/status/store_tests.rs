use millrace_events::Epoch;

use super::*;
use crate::replica::Batch;

const REQUEST: &str = "0b6f3f2a-4c38-4f0e-9a4b-3f1b8f7f2a11";

fn document(id: &str) -> DocumentKey {
    DocumentKey::new("t", id).unwrap()
}

fn revision(offset: i64) -> Revision {
    Revision::new(Epoch::FIRST, offset).unwrap()
}

fn put(id: &str, offset: i64, state: State) -> ChangeOf<Statuses> {
    put_with(id, offset, state, "", 0)
}

fn put_with(id: &str, offset: i64, state: State, request_id: &str, accepted_at_ms: i64) -> ChangeOf<Statuses> {
    let record = DocumentStatus {
        tenant: "t".into(),
        document_id: id.into(),
        revision: revision(offset).get(),
        state,
        request_id: request_id.into(),
        accepted_at_ms,
        ..DocumentStatus::default()
    };
    let status = RevisionStatus {
        record,
        trace_id: "trace".into(),
        lane: Lane::BASE,
    };
    Change::Put {
        entry: Box::new(status),
        partition: 3,
    }
}

fn store(changes: Vec<ChangeOf<Statuses>>) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let offsets = [(3, changes.len() as i64)].into();
    store.apply(&Batch { changes, offsets }, 5, true).unwrap();
    (folder, store)
}

/// The rows of [`DocumentView`]'s table.
#[test]
fn latest_and_live_follow_from_the_statuses() {
    use State::*;
    type Row = (&'static [(i64, State)], Option<i64>, Option<i64>);
    let rows: [Row; 7] = [
        (&[], None, None),
        (&[(1, Parsed)], Some(1), None),
        (&[(1, Indexed), (2, Parsed)], Some(2), Some(1)),
        (&[(1, Indexed), (2, Deleted)], Some(2), None),
        (&[(1, Indexed), (2, Deleted), (3, Parsed)], Some(3), None),
        (&[(1, Superseded), (2, Indexed), (3, Failed)], Some(3), Some(2)),
        (&[(2, Indexed), (1, Parsed)], Some(2), Some(2)),
    ];
    for (statuses, latest, live) in rows {
        let (_folder, store) = store(statuses.iter().map(|(r, s)| put("d", *r, *s)).collect());
        let view = store.view(&document("d"), None).unwrap();
        assert_eq!(view.latest, latest.map(revision), "{statuses:?}");
        assert_eq!(view.live, live.map(revision), "{statuses:?}");
        assert_eq!(
            view.status.map(|s| s.record.revision),
            latest.map(|r| revision(r).get())
        );
    }
}

#[test]
fn a_revision_asked_for_is_told_beside_latest_and_live() {
    let (_folder, store) = store(vec![put("d", 1, State::Indexed), put("d", 2, State::Parsed)]);
    let view = store.view(&document("d"), Some(revision(1))).unwrap();
    assert_eq!(view.status.unwrap().record.state, State::Indexed);
    assert_eq!((view.latest, view.live), (Some(revision(2)), Some(revision(1))));
    let view = store.view(&document("d"), Some(revision(9))).unwrap();
    assert_eq!((view.status, view.latest), (None, Some(revision(2))));
}

#[test]
fn documents_whose_names_begin_alike_are_apart() {
    let (_folder, store) = store(vec![
        put("a", 1, State::Indexed),
        put("a/b", 2, State::Parsed),
        put("ab", 3, State::Parsed),
        put("a#1", 4, State::Parsed),
    ]);
    assert_eq!(store.view(&document("a"), None).unwrap().latest, Some(revision(1)));
    assert_eq!(store.view(&document("a/b"), None).unwrap().latest, Some(revision(2)));
}

#[test]
fn a_tombstone_removes_the_revision_and_its_request() {
    let (_folder, store) = store(vec![
        put_with("d", 1, State::Indexed, REQUEST, 0),
        put("d", 2, State::Indexed),
    ]);
    assert!(
        store
            .request(&document("d"), REQUEST.parse().unwrap(), 0)
            .unwrap()
            .is_some()
    );
    let key = StatusKey {
        document: document("d"),
        revision: revision(1),
    };
    let batch = Batch {
        changes: vec![Change::Remove(key.clone()), Change::Remove(key)],
        offsets: BTreeMap::new(),
    };
    store.apply(&batch, 6, false).unwrap();
    assert_eq!(store.view(&document("d"), Some(revision(1))).unwrap().status, None);
    assert_eq!(
        store.request(&document("d"), REQUEST.parse().unwrap(), 0).unwrap(),
        None
    );
    assert_eq!(store.view(&document("d"), None).unwrap().live, Some(revision(2)));
}

#[test]
fn the_first_revision_of_a_request_keeps_it_for_a_day() {
    let day = REQUEST_ID_TTL_MS;
    let (_folder, store) = store(vec![
        put_with("d", 1, State::Parsed, REQUEST, 1000),
        put_with("d", 2, State::DuplicateOf, REQUEST, 2000),
        put_with("d", 3, State::Parsed, REQUEST, 3000),
        put_with("d", 1, State::Indexed, REQUEST, 1000),
    ]);
    let request = REQUEST.parse().unwrap();
    let first = |now| {
        let found = store.request(&document("d"), request, now).unwrap();
        found.map(|s| (s.record.revision, s.record.state))
    };
    assert_eq!(first(1000 + day), Some((revision(1).get(), State::Indexed)));
    assert_eq!(first(1001 + day), None);
    assert_eq!(store.request(&document("other"), request, 1000).unwrap(), None);
    let batch = Batch {
        changes: vec![put_with("d", 4, State::Parsed, REQUEST, 1001 + day)],
        offsets: BTreeMap::new(),
    };
    store.apply(&batch, 6, true).unwrap();
    assert_eq!(first(1001 + day), Some((revision(4).get(), State::Parsed)));
}

#[test]
fn what_was_applied_is_there_after_a_restart_with_its_offsets() {
    let (folder, store) = store(vec![put("d", 7, State::Indexed)]);
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.offsets().unwrap(), [(3, 1)].into());
    assert_eq!(store.submitted().unwrap(), [(3, 7)].into());
    assert_eq!(store.saved_at_ms().unwrap(), Some(5));
    assert_eq!(store.view(&document("d"), None).unwrap().live, Some(revision(7)));
    store.clear().unwrap();
    assert_eq!(store.offsets().unwrap(), BTreeMap::new());
    assert_eq!(store.saved_at_ms().unwrap(), None);
    assert_eq!(store.view(&document("d"), None).unwrap(), DocumentView::default());
}

#[test]
fn a_folder_in_use_is_named() {
    let (folder, _store) = store(vec![]);
    let error = Store::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("status.redb"), "{error}");
}
