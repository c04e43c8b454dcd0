use std::sync::Arc;

use millrace_events::headers::TRACEPARENT;
use millrace_events::{DocumentStatus, Epoch, Revision, State};
use millrace_flow::{Headers, Origin};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::codec::Offline;
use crate::status::{DocumentView, Statuses};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

struct Fed {
    replica: Replica<Statuses>,
    events: mpsc::Sender<Event>,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), ReplicaError>>,
    _folder: tempfile::TempDir,
}

fn fed() -> Fed {
    fed_by(Offline)
}

fn fed_by(codec: impl RecordCodec) -> Fed {
    let folder = tempfile::tempdir().unwrap();
    let (replica, feed) = replica(Store::open(folder.path()).unwrap());
    let (events, receiver) = mpsc::channel(16);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(feed.run(ReceiverStream::new(receiver), codec, shutdown.clone()));
    Fed {
        replica,
        events,
        shutdown,
        running,
        _folder: folder,
    }
}

fn status(offset: i64, state: State) -> DocumentStatus {
    DocumentStatus {
        tenant: "t".into(),
        document_id: "d".into(),
        revision: Revision::new(Epoch::FIRST, offset).unwrap().get(),
        state,
        ..DocumentStatus::default()
    }
}

fn delivery(offset: i64, key: &str, value: Option<Bytes>) -> Event {
    let mut headers = Headers::default();
    headers.push(TRACEPARENT, TRACE);
    Event::Record(Delivery {
        origin: Origin {
            topic: Arc::from("documents.status"),
            partition: 3,
            offset,
        },
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value,
        headers,
        timestamp_ms: 0,
        attempt: 1,
        span: Default::default(),
    })
}

fn record(offset: i64, status: &DocumentStatus) -> Event {
    let key = status.key().unwrap().to_string();
    delivery(offset, &key, Some(Offline.encode(status).unwrap()))
}

#[tokio::test]
async fn what_the_topic_says_can_be_read_once_it_was_reached() {
    let fed = fed();
    let document = DocumentKey::new("t", "d").unwrap();
    let mut changes = fed.replica.changes();
    fed.events.send(record(10, &status(1, State::Parsed))).await.unwrap();
    fed.events.send(record(11, &status(1, State::Indexed))).await.unwrap();
    let end = Event::CaughtUp {
        partition: 3,
        next_offset: 13,
    };
    fed.events.send(end).await.unwrap();
    fed.replica.complete(&[3].into()).await;
    fed.replica.reached(3, 13).await;
    let view = fed.replica.view(&document, None).await.unwrap();
    let found = view.status.unwrap();
    assert_eq!(
        (found.record.state, found.trace_id.as_str()),
        (State::Indexed, &TRACE[3..35])
    );
    assert_eq!(view.live.map(Revision::offset), Some(1));
    assert_eq!(changes.recv().await.unwrap(), document);

    let tombstone = delivery(13, &status(1, State::Indexed).key().unwrap().to_string(), None);
    fed.events.send(tombstone).await.unwrap();
    fed.replica.reached(3, 14).await;
    assert_eq!(
        fed.replica.view(&document, None).await.unwrap(),
        DocumentView::default()
    );

    fed.shutdown.cancel();
    fed.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_passed_over() {
    let fed = fed();
    let good = status(1, State::Parsed);
    fed.events
        .send(delivery(0, "no key", Some(Bytes::from_static(b"x"))))
        .await
        .unwrap();
    fed.events
        .send(delivery(1, "t/d#281474976710657", Some(Bytes::from_static(b"{}"))))
        .await
        .unwrap();
    fed.events
        .send(delivery(
            2,
            "t/other#281474976710657",
            Some(Offline.encode(&good).unwrap()),
        ))
        .await
        .unwrap();
    fed.events.send(record(3, &good)).await.unwrap();
    fed.replica.reached(3, 4).await;
    let known = |id| DocumentKey::new("t", id).unwrap();
    assert!(fed.replica.view(&known("d"), None).await.unwrap().latest.is_some());
    assert!(fed.replica.view(&known("other"), None).await.unwrap().latest.is_none());
}

#[tokio::test]
async fn a_reader_that_died_is_an_error() {
    let Fed { events, running, .. } = fed();
    drop(events);
    assert!(matches!(running.await.unwrap(), Err(ReplicaError::Ended { .. })));
}

#[test]
fn a_replica_that_cannot_go_on_is_read_anew() {
    let of = |next, saved, now| outdated(&[(0, next)].into(), &[(0, (10, 20))].into(), Some(saved), now);
    assert_eq!(of(10, 0, MAX_AGE_MS), None);
    assert_eq!(of(20, 0, 0), None);
    assert!(of(21, 0, 0).unwrap().contains("10 to 20"));
    assert!(of(9, 0, 0).is_some());
    assert!(of(15, 0, MAX_AGE_MS + 1).unwrap().contains("720 minutes"));
    assert!(outdated(&[(7, 1)].into(), &[(0, (0, 5))].into(), None, 0).is_some());
    assert_eq!(outdated(&BTreeMap::new(), &[(0, (0, 5))].into(), None, 0), None);
}

/// A registry that has a version which this build cannot read, until somebody deletes it.
#[derive(Clone)]
struct Unreadable(watch::Receiver<bool>);

impl RecordCodec for Unreadable {
    fn encode<R: Record>(&self, record: &R) -> Result<Bytes, Failure> {
        Offline.encode(record)
    }
    async fn decode<R: Record>(&self, value: &[u8]) -> Result<R, Failure> {
        if *self.0.borrow() {
            return Err(Failure::Config {
                reason: "SCHEMA_UNREADABLE",
                message: "version 2 of subject documents.status-value".into(),
            });
        }
        Offline.decode(value).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_this_build_cannot_read_is_waited_for_and_health_says_so() {
    let (unreadable, seen) = watch::channel(true);
    let fed = fed_by(Unreadable(seen));
    let partitions = BTreeSet::from([3]);
    let reading = fed.replica.standing(&partitions, None).await;
    assert_eq!(reading, Standing::Reading);
    fed.events.send(record(10, &status(1, State::Parsed))).await.unwrap();
    let end = Event::CaughtUp {
        partition: 3,
        next_offset: 11,
    };
    fed.events.send(end).await.unwrap();
    let waiting = fed.replica.standing(&partitions, Some(&reading)).await;
    let Standing::Waiting { why, outage: false } = &waiting else {
        panic!("it does not wait for a person: {waiting:?}");
    };
    assert!(
        why.contains("documents.status") && why.contains("version 2 of subject"),
        "{why}"
    );
    assert!(!fed.replica.is_complete(&partitions), "nothing is skipped");
    unreadable.send_replace(false);
    fed.replica.complete(&partitions).await;
    let standing = fed.replica.standing(&partitions, Some(&waiting));
    let standing = tokio::time::timeout(Duration::from_secs(60), standing).await;
    assert_eq!(standing.expect("it still says that it waits"), Standing::Complete);
}
