use futures::StreamExt;
use millrace_events::State as Recorded;

use super::*;
use crate::testing::{FakeEnds, Statuses, document, revision, status};

struct Set {
    documents: Documents<FakeEnds>,
    statuses: Statuses,
    just_accepted: JustAccepted,
    leaving: CancellationToken,
}

fn set() -> Set {
    let statuses = Statuses::new();
    let just_accepted = JustAccepted::default();
    let leaving = CancellationToken::new();
    let ends = FakeEnds {
        submitted: Some((10, 20)),
        status: None,
    };
    Set {
        documents: Documents::new(statuses.replica.clone(), just_accepted.clone(), ends, leaving.clone()),
        statuses,
        just_accepted,
        leaving,
    }
}

fn accept(set: &Set, offset: i64) {
    let accepted = Accepted {
        revision: revision(offset),
        accepted_at_ms: 5,
    };
    set.just_accepted.insert(&document("d"), accepted);
    set.statuses.replica.notify(&document("d"));
}

/// What is told, in short: revision, state, latest, live.
type Told = (i64, Option<Recorded>, i64, Option<i64>);

fn told(document: &Document) -> Told {
    let state = match &document.state {
        State::Accepted { .. } => None,
        State::Status(status) => Some(status.record.state),
    };
    (
        document.revision.offset(),
        state,
        document.latest.offset(),
        document.live.map(Revision::offset),
    )
}

async fn get(set: &Set, offset: Option<i64>) -> Option<Told> {
    match set.documents.get(&document("d"), offset.map(revision)).await {
        Ok(document) => Some(told(&document)),
        Err(DocumentError::Unknown) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The rows of [`Documents::get`]'s table.
#[tokio::test]
async fn what_is_told_follows_from_what_is_known() {
    let mut set = set();
    assert_eq!(get(&set, None).await, None);
    assert_eq!(get(&set, Some(12)).await, Some((12, None, 12, None)), "within the log");
    assert_eq!(get(&set, Some(20)).await, None, "at the log's end");
    assert_eq!(get(&set, Some(9)).await, None, "below the log's start");

    accept(&set, 30);
    assert_eq!(get(&set, None).await, Some((30, None, 30, None)));
    assert_eq!(
        get(&set, Some(30)).await,
        Some((30, None, 30, None)),
        "its own needs no log"
    );

    set.statuses.write(status("d", 14, Recorded::Indexed)).await;
    assert_eq!(
        get(&set, None).await,
        Some((30, None, 30, Some(14))),
        "accepted after the latest status"
    );
    assert_eq!(
        get(&set, Some(14)).await,
        Some((14, Some(Recorded::Indexed), 30, Some(14)))
    );
    assert_eq!(get(&set, Some(13)).await, None, "below the latest status");

    set.statuses.write(status("d", 30, Recorded::Parsed)).await;
    assert_eq!(get(&set, None).await, Some((30, Some(Recorded::Parsed), 30, Some(14))));
}

#[tokio::test]
async fn a_log_that_is_away_is_not_an_unknown_document() {
    let mut set = set();
    set.documents.ends.submitted = None;
    let asked = set.documents.get(&document("d"), Some(revision(12))).await;
    assert!(matches!(asked, Err(DocumentError::Log(_))));
    let other_epoch = Revision::from_i64(2 << 48).unwrap();
    let asked = set.documents.get(&document("d"), Some(other_epoch)).await;
    assert!(matches!(asked, Err(DocumentError::Unknown)));
}

#[tokio::test]
async fn a_watch_of_a_revision_ends_with_its_final_state() {
    let mut set = set();
    accept(&set, 12);
    let watch = set.documents.watch(document("d"), Some(revision(12))).await.unwrap();
    tokio::pin!(watch);
    let mut next = async || watch.next().await.map(|d| told(&d.unwrap()));
    assert_eq!(next().await, Some((12, None, 12, None)));
    set.statuses.write(status("other", 13, Recorded::Indexed)).await;
    set.statuses.write(status("d", 12, Recorded::Parsed)).await;
    assert_eq!(next().await, Some((12, Some(Recorded::Parsed), 12, None)));
    set.statuses.write(status("d", 12, Recorded::Indexed)).await;
    assert_eq!(next().await, Some((12, Some(Recorded::Indexed), 12, Some(12))));
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_watch_of_a_final_revision_says_so_and_ends() {
    let mut set = set();
    set.statuses.write(status("d", 12, Recorded::DuplicateOf)).await;
    let watch = set.documents.watch(document("d"), Some(revision(12))).await.unwrap();
    assert_eq!(watch.count().await, 1);
}

#[tokio::test]
async fn a_watch_of_a_document_follows_its_revisions_until_the_process_leaves() {
    let mut set = set();
    assert!(matches!(
        set.documents.watch(document("d"), None).await.err(),
        Some(DocumentError::Unknown)
    ));
    set.statuses.write(status("d", 12, Recorded::Indexed)).await;
    let watch = set.documents.watch(document("d"), None).await.unwrap();
    tokio::pin!(watch);
    assert_eq!(told(&watch.next().await.unwrap().unwrap()).0, 12);
    accept(&set, 15);
    assert_eq!(told(&watch.next().await.unwrap().unwrap()), (15, None, 15, Some(12)));
    set.leaving.cancel();
    assert!(matches!(watch.next().await, Some(Err(DocumentError::Leaving))));
    assert!(watch.next().await.is_none());
}
