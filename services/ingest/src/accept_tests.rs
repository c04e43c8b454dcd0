use millrace_events::State;

use super::*;
use crate::codec::Offline;
use crate::testing::{FakeLog, REQUEST, Statuses, TRACE, document, lanes, revision, status};

fn acceptor(log: &FakeLog, statuses: &Statuses, known: &[(i32, i64)]) -> Acceptor<FakeLog, Offline> {
    let known = known.iter().copied().collect();
    Acceptor::new(
        (log.clone(), Offline),
        statuses.replica.clone(),
        lanes(),
        JustAccepted::default(),
        known,
    )
}

fn upsert(request_id: Option<&str>) -> Command {
    Command {
        document: document("d"),
        action: Action::Upsert {
            body: b"text".to_vec(),
            media: MediaType::Plain,
        },
        lane: Lane::BASE,
        request_id: request_id.map(|id| id.parse().unwrap()),
    }
}

fn trace() -> TraceContext {
    TRACE
        .parse::<TraceContext>()
        .unwrap()
        .with_tracestate(Some("v=1".into()))
}

#[tokio::test]
async fn a_receipt_says_where_the_command_stands() {
    let (log, statuses) = (FakeLog::default(), Statuses::new());
    log.0.lock().unwrap().answers.push_back(Ok(41));
    let receipt = acceptor(&log, &statuses, &[])
        .accept(upsert(None), trace())
        .await
        .unwrap();
    assert_eq!(
        (receipt.revision, receipt.trace_id.as_str()),
        (revision(41), &TRACE[3..35])
    );
    let sent = log.0.lock().unwrap().appended[0].clone();
    assert_eq!(
        (sent.topic.as_str(), sent.partition, sent.key.as_ref()),
        ("documents.submitted", None, &b"t/d"[..])
    );
    assert_eq!(sent.headers.get_str("traceparent"), Some(TRACE));
    assert_eq!(sent.headers.get_str("tracestate"), Some("v=1"));
    let record: DocumentSubmitted = Offline.decode(&sent.value.unwrap()).await.unwrap();
    assert_eq!(
        (record.kind, record.body.as_deref()),
        (Kind::Upsert, Some(&b"text"[..]))
    );
    assert_eq!(
        (record.media_type.as_str(), record.request_id.as_str()),
        ("text/plain", "")
    );
    assert!(record.accepted_at_ms > 0);
}

#[tokio::test]
async fn a_delete_carries_no_body() {
    let (log, statuses) = (FakeLog::default(), Statuses::new());
    let command = Command {
        action: Action::Delete,
        ..upsert(None)
    };
    acceptor(&log, &statuses, &[]).accept(command, trace()).await.unwrap();
    let value = log.0.lock().unwrap().appended[0].value.clone().unwrap();
    let record: DocumentSubmitted = Offline.decode(&value).await.unwrap();
    assert_eq!(
        (record.kind, record.body, record.media_type.as_str()),
        (Kind::Delete, None, "")
    );
}

#[tokio::test]
async fn without_an_acknowledgement_there_is_no_receipt() {
    for error in [
        AppendError::TooLarge,
        AppendError::QueueFull,
        AppendError::OutcomeUnknown("timed out".into()),
        AppendError::Refused("unknown topic".into()),
    ] {
        let (log, statuses) = (FakeLog::default(), Statuses::new());
        log.0.lock().unwrap().answers.push_back(Err(error.clone()));
        let acceptor = acceptor(&log, &statuses, &[]);
        let refused = acceptor.accept(upsert(Some(REQUEST)), trace()).await.unwrap_err();
        assert!(matches!(refused, AcceptError::Append(e) if e == error));
        // And the same request may be sent again.
        assert_eq!(
            acceptor.accept(upsert(Some(REQUEST)), trace()).await.unwrap().revision,
            revision(1)
        );
    }
}

#[tokio::test]
async fn the_same_request_has_the_first_receipt() {
    let (log, mut statuses) = (FakeLog::default(), Statuses::new());
    let acceptor = acceptor(&log, &statuses, &[]);
    let first = acceptor.accept(upsert(Some(REQUEST)), trace()).await.unwrap();
    let again = acceptor
        .accept(upsert(Some(REQUEST)), TraceContext::generate())
        .await
        .unwrap();
    assert_eq!(first, again);
    let other = Command {
        document: document("other"),
        ..upsert(Some(REQUEST))
    };
    assert_ne!(acceptor.accept(other, trace()).await.unwrap().revision, first.revision);

    // Accepted by another process, known through the replica.
    let parsed = millrace_events::DocumentStatus {
        request_id: "11111111-2222-4333-8444-555555555555".into(),
        accepted_at_ms: now_ms(),
        ..status("d", 70, State::Parsed)
    };
    let request = parsed.request_id.clone();
    statuses.write(parsed).await;
    let known = acceptor
        .accept(upsert(Some(&request)), TraceContext::generate())
        .await
        .unwrap();
    assert_eq!((known.revision, known.trace_id.as_str()), (revision(70), &TRACE[3..35]));
    assert_eq!(log.0.lock().unwrap().appended.len(), 2);
}

#[tokio::test]
async fn a_log_that_goes_backwards_is_refused_for_good() {
    let (log, statuses) = (FakeLog::default(), Statuses::new());
    let acceptor = acceptor(&log, &statuses, &[(3, 7)]);
    log.0.lock().unwrap().answers.extend([Ok(8), Ok(8), Ok(9)]);
    acceptor.accept(upsert(None), trace()).await.unwrap();
    let refused = acceptor.accept(upsert(None), trace()).await.unwrap_err();
    let recreated = |error| {
        matches!(
            error,
            AcceptError::LogRecreated {
                partition: 3,
                offset: 8,
                known: 8
            }
        )
    };
    assert!(recreated(refused));
    assert!(acceptor.recreated().borrow().is_some());
    assert!(recreated(acceptor.accept(upsert(None), trace()).await.unwrap_err()));
    assert_eq!(log.0.lock().unwrap().appended.len(), 2, "nothing is written any more");
}

#[test]
fn answers_that_overtake_each_other_are_no_recreation() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let acceptor = acceptor(&FakeLog::default(), &Statuses::new(), &[]);
        let at = |offset| Position { partition: 3, offset };
        let began = locked(&acceptor.known).clone();
        acceptor.check(at(12), &began).unwrap();
        acceptor.check(at(11), &began).unwrap();
        assert_eq!(locked(&acceptor.known).get(&3), Some(&12));
        assert!(acceptor.check(at(11), &[(3, 12)].into()).is_err());
    });
}

#[tokio::test]
async fn a_lane_is_for_life() {
    let (log, mut statuses) = (FakeLog::default(), Statuses::new());
    statuses.write_in("bulk", status("d", 1, State::Indexed)).await;
    let acceptor = acceptor(&log, &statuses, &[]);
    let accept = async |id: &str, lane: &str| {
        let command = Command {
            document: document(id),
            lane: Lane::new(lane).unwrap(),
            ..upsert(None)
        };
        let accepted = acceptor.accept(command, trace()).await;
        accepted.map(|_| ()).map_err(|error| error.to_string())
    };
    for (id, lane) in [("d", ""), ("d", "bulk"), ("new", "urgent")] {
        accept(id, lane).await.unwrap();
    }
    let changed = accept("d", "urgent").await.unwrap_err();
    assert!(changed.contains("lane bulk"), "{changed}");
    let unknown = accept("new", "slow").await.unwrap_err();
    assert!(unknown.contains("lane slow is not configured"), "{unknown}");
    assert_eq!(log.0.lock().unwrap().appended.len(), 3);
}
