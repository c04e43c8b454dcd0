use millrace_events::{Record, RequestId};
use tower::ServiceExt;

use super::*;
use crate::codec::Offline;
use crate::pipeline::tokens::testing::counter;
use crate::testing::{FakeEnds, REQUEST, Statuses, TRACE, delivery, document, revision, status};

struct Stage {
    parse: Parse<Offline, FakeEnds>,
    statuses: Statuses,
}

fn stage_with(ends: FakeEnds) -> Stage {
    let statuses = Statuses::new();
    let repeats = Arc::new(Repeats::new(statuses.replica.clone(), ends));
    Stage {
        parse: Parse::new(Offline, Chunker::new(counter(), 200), repeats, LaneConfig::default()),
        statuses,
    }
}

fn stage() -> Stage {
    stage_with(FakeEnds {
        submitted: None,
        status: Some(0),
    })
}

fn submitted(body: &str) -> DocumentSubmitted {
    DocumentSubmitted {
        tenant: "t".into(),
        document_id: "d".into(),
        accepted_at_ms: 1000,
        kind: Kind::Upsert,
        media_type: "text/markdown".into(),
        body: Some(body.as_bytes().to_vec()),
        ..DocumentSubmitted::default()
    }
}

fn command(offset: i64, record: &DocumentSubmitted) -> Delivery {
    delivery(offset, document("d"), Some(Offline.encode(record).unwrap()))
}

async fn run(stage: &Stage, delivery: Delivery) -> Result<Vec<Output>, Failure> {
    stage.parse.clone().oneshot(delivery).await.map(|outputs| outputs.0)
}

async fn read<R: Record>(output: &Output) -> R {
    assert_eq!(output.topic, R::TOPIC.name);
    assert_eq!(output.headers.get_str("traceparent"), Some(TRACE));
    Offline.decode(output.value.as_ref().unwrap()).await.unwrap()
}

#[tokio::test]
async fn an_upsert_becomes_parts_and_a_status() {
    let body = "# Mill\n\n".to_owned() + &"the river and the mill and the word. ".repeat(1200);
    let outputs = run(&stage(), command(7, &submitted(&body))).await.unwrap();
    let (last, parts) = outputs.split_last().unwrap();
    assert!(parts.len() > 1);
    let mut chunks = Vec::new();
    for (i, output) in parts.iter().enumerate() {
        assert_eq!((output.key.as_ref(), output.partition), (&b"t/d"[..], None));
        let part: DocumentParsed = read(output).await;
        assert_eq!((part.part, part.parts), (i as i32, parts.len() as i32));
        assert_eq!((part.revision, part.accepted_at_ms), (revision(7).get(), 1000));
        assert_eq!((part.kind, part.offsets_in), (Kind::Upsert, OffsetsIn::Body));
        assert!((1..=32).contains(&part.chunks.len()));
        chunks.extend(part.chunks.iter().cloned().map(|c| (part.chunk_count, c)));
    }
    for (i, (count, chunk)) in chunks.iter().enumerate() {
        assert_eq!((*count as usize, chunk.ordinal as usize), (chunks.len(), i));
        assert_eq!(chunk.text, body[chunk.start_byte as usize..chunk.end_byte as usize]);
        assert_eq!(chunk.section, ["Mill"]);
        assert!((1..=200).contains(&chunk.tokens));
    }
    let status: DocumentStatus = read(last).await;
    assert_eq!(
        (last.partition, last.key.as_ref()),
        (Some(3), format!("t/d#{}", revision(7)).as_bytes())
    );
    assert_eq!(
        (status.state, status.chunk_count as usize),
        (State::Parsed, chunks.len())
    );
    assert_eq!((status.stage.as_str(), status.accepted_at_ms), ("parse", 1000));
}

#[tokio::test]
async fn an_empty_document_and_a_delete_are_one_part_without_chunks() {
    let delete = DocumentSubmitted {
        kind: Kind::Delete,
        body: None,
        ..submitted("")
    };
    for (record, kind) in [(submitted(" \n"), Kind::Upsert), (delete, Kind::Delete)] {
        let outputs = run(&stage(), command(7, &record)).await.unwrap();
        let [part, status] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        let part: DocumentParsed = read(part).await;
        assert_eq!((part.kind, part.part, part.parts, part.chunk_count), (kind, 0, 1, 0));
        assert!(part.chunks.is_empty());
        let status: DocumentStatus = read(status).await;
        assert_eq!((status.state, status.chunk_count), (State::Parsed, 0));
    }
}

#[tokio::test]
async fn a_redriven_command_keeps_its_revision_and_marks() {
    let mut redriven = command(99, &submitted("the mill"));
    redriven.headers.push("millrace-revision", revision(7).to_string());
    redriven.headers.push("millrace-redrive", "1");
    redriven.headers.push("other", "x");
    let outputs = run(&stage(), redriven).await.unwrap();
    let part: DocumentParsed = read(&outputs[0]).await;
    assert_eq!(part.revision, revision(7).get());
    assert_eq!(outputs[0].headers.get_str("millrace-redrive"), Some("1"));
    assert_eq!(outputs[0].headers.get_str("other"), None);
}

fn with_request(request_id: &str) -> DocumentSubmitted {
    DocumentSubmitted {
        request_id: request_id.into(),
        ..submitted("the mill")
    }
}

async fn duplicate_of(outputs: &[Output]) -> Option<i64> {
    let status: DocumentStatus = read(outputs.last().unwrap()).await;
    match status.state {
        State::DuplicateOf => {
            assert_eq!(outputs.len(), 1, "a repeat has no parts");
            Some(status.duplicate_of_revision)
        }
        _ => None,
    }
}

#[tokio::test]
async fn a_repeat_in_this_process_is_a_duplicate_of_the_first() {
    let stage = stage();
    let record = with_request(REQUEST);
    let first = run(&stage, command(7, &record)).await.unwrap();
    assert_eq!(duplicate_of(&first).await, None);
    for offset in [8, 9] {
        let repeat = run(&stage, command(offset, &record)).await.unwrap();
        assert_eq!(duplicate_of(&repeat).await, Some(revision(7).get()));
    }
    // Delivered again, as after a crash: still the first.
    assert_eq!(
        duplicate_of(&run(&stage, command(7, &record)).await.unwrap()).await,
        None
    );
    let later = DocumentSubmitted {
        accepted_at_ms: 1001 + 24 * 60 * 60 * 1000,
        ..record
    };
    assert_eq!(
        duplicate_of(&run(&stage, command(10, &later)).await.unwrap()).await,
        None
    );
}

#[tokio::test]
async fn a_repeat_of_what_another_process_parsed_is_a_duplicate() {
    let mut stage = stage();
    let parsed = DocumentStatus {
        request_id: REQUEST.into(),
        accepted_at_ms: 900,
        ..status("d", 5, State::Parsed)
    };
    stage.statuses.write(parsed).await;
    let repeat = run(&stage, command(7, &with_request(REQUEST))).await.unwrap();
    assert_eq!(duplicate_of(&repeat).await, Some(revision(5).get()));
}

#[tokio::test(start_paused = true)]
async fn a_new_partition_waits_for_the_replica() {
    let behind = stage_with(FakeEnds {
        submitted: None,
        status: Some(4),
    });
    let failure = run(&behind, command(7, &with_request(REQUEST))).await.unwrap_err();
    assert_eq!(
        (failure.class(), failure.reason()),
        ("TRANSIENT", "STATUS_REPLICA_BEHIND")
    );
    let away = stage_with(FakeEnds {
        submitted: None,
        status: None,
    });
    let failure = run(&away, command(7, &with_request(REQUEST))).await.unwrap_err();
    assert_eq!(failure.class(), "TRANSIENT");
    // Without a request id nothing can be a repeat.
    run(&away, command(7, &submitted("the mill"))).await.unwrap();
}

#[tokio::test]
async fn a_partition_that_was_lost_waits_again() {
    let ends = FakeEnds {
        submitted: None,
        status: Some(0),
    };
    let statuses = Statuses::new();
    let mut repeats = Repeats::new(statuses.replica.clone(), ends);
    let key = document("d");
    let request = Request {
        document: &key,
        id: REQUEST.parse::<RequestId>().unwrap(),
        revision: revision(7),
        accepted_at_ms: 0,
        partition: 3,
    };
    repeats.first(request).await.unwrap();
    repeats.ends_for_test(FakeEnds {
        submitted: None,
        status: None,
    });
    repeats.first(request).await.unwrap();
    repeats.assigned(&[4].into());
    assert!(repeats.first(request).await.is_err());
}

#[tokio::test]
async fn what_can_never_work_is_invalid() {
    let other = DocumentSubmitted {
        document_id: "other".into(),
        ..submitted("x")
    };
    let of = |change: fn(&mut DocumentSubmitted)| {
        let mut record = submitted("x");
        change(&mut record);
        command(7, &record)
    };
    let mut bad_revision = command(7, &submitted("x"));
    bad_revision.headers.push("millrace-revision", "seven");
    for (delivery, reason) in [
        (delivery(7, document("d"), None), "NO_VALUE"),
        (
            delivery(7, document("d"), Some(Bytes::from_static(b"{}"))),
            "UNREADABLE_RECORD",
        ),
        (command(7, &other), "KEY_MISMATCH"),
        (of(|r| r.tenant = "a b".into()), "IDENTITY_INVALID"),
        (of(|r| r.kind = Kind::Unknown), "KIND_UNKNOWN"),
        (of(|r| r.body = None), "BODY_MISSING"),
        (of(|r| r.body = Some(b"\xff".to_vec())), "BODY_NOT_UTF8"),
        (of(|r| r.media_type = "text/html".into()), "UNSUPPORTED_MEDIA_TYPE"),
        (bad_revision, "REVISION_INVALID"),
    ] {
        let failure = run(&stage(), delivery).await.unwrap_err();
        assert_eq!((failure.class(), failure.reason()), ("INVALID", reason));
    }
}
