use std::sync::Arc;

use millrace_events::LetterState;
use millrace_events::headers::{FAILURE_STAGE, TRACEPARENT};
use millrace_events::topics::PARTITIONS;
use millrace_flow::Origin;
use millrace_kafka::partitioner::partition_for;

use super::*;
use crate::testing::{TRACE, revision};

fn state() -> DeadLetter {
    DeadLetter {
        topic: "documents.parsed".into(),
        partition: 3,
        offset: 7,
        tenant: "t".into(),
        document_id: "d".into(),
        revision: revision(5).get(),
        state: LetterState::Open,
        stage: "embed".into(),
        failed_at_ms: 1000,
        ..DeadLetter::default()
    }
}

/// As `documents.dlq` holds it.
fn buried(original: &Headers) -> Delivery {
    let mut headers = original.clone();
    headers.push(FAILURE_REASON, "PANIC");
    headers.push(FAILURE_STAGE, "embed");
    headers.push(ORIGIN, "documents.parsed/3/7");
    headers.push(FIRST_FAILED_AT_MS, "1000");
    headers.push(ORIGINAL_TIMESTAMP_MS, "900");
    Delivery {
        origin: Origin {
            topic: Arc::from("documents.dlq"),
            partition: 3,
            offset: 70,
        },
        key: Some(Bytes::from_static(b"t/d")),
        value: Some(Bytes::from_static(b"\x00\xff value")),
        headers,
        timestamp_ms: 1001,
        attempt: 1,
        span: Default::default(),
    }
}

/// What somebody wrote: names that repeat, absent values, names of ours.
fn theirs() -> Headers {
    let mut headers = Headers(vec![("absent".into(), None)]);
    headers.push(TRACEPARENT, TRACE);
    headers.push("twice", vec![0xff]);
    headers.push("twice", "2");
    headers.push(FAILURE_REASON, "theirs");
    headers.push(ORIGINAL_OMITTED, "theirs");
    headers.push(KEY_ABSENT, "theirs");
    headers
}

#[test]
fn the_original_comes_back_byte_for_byte_with_the_marks_behind_it() {
    let letter = buried(&theirs());
    assert_eq!(origin(&letter), Some("documents.parsed/3/7".parse().unwrap()));
    assert_eq!(redrives(&letter), 0);
    let output = redriven(&letter, &state(), &LaneConfig::default()).unwrap();
    assert_eq!(output.topic, "documents.parsed");
    assert_eq!(output.partition, Some(partition_for(b"t/d", PARTITIONS)));
    assert_eq!((Some(output.key), output.value), (letter.key, letter.value));
    let (before, marks) = output.headers.0.split_at(theirs().0.len());
    assert_eq!(before, theirs().0);
    let expected = [
        (REVISION, revision(5).to_string()),
        (REDRIVE, "1".into()),
        (ORIGIN, "documents.parsed/3/7".into()),
        (FIRST_FAILED_AT_MS, "1000".into()),
        (ORIGINAL_TIMESTAMP_MS, "900".into()),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), Some(Bytes::from(value))));
    assert_eq!(marks, expected);
}

#[test]
fn a_second_redrive_has_marks_of_its_own_in_place_of_the_first() {
    let first = redriven(&buried(&theirs()), &state(), &LaneConfig::default()).unwrap();
    let again = buried(&first.headers);
    assert_eq!(redrives(&again), 1);
    let once_more = DeadLetter { redrives: 1, ..state() };
    let second = redriven(&again, &once_more, &LaneConfig::default()).unwrap();
    assert_eq!(second.headers.get_str(REDRIVE), Some("2"));
    assert_eq!(second.headers.0.len(), first.headers.0.len());
    assert!(second.headers.0.starts_with(&theirs().0));
}

#[test]
fn a_tombstone_stays_one_and_a_strange_key_stays_on_its_documents_partition() {
    let mut letter = buried(&Headers::default());
    (letter.key, letter.value) = (Some(Bytes::from_static(b"\xff")), None);
    let output = redriven(&letter, &state(), &LaneConfig::default()).unwrap();
    assert_eq!((output.key.as_ref(), output.value), (&b"\xff"[..], None));
    assert_eq!(output.partition, Some(partition_for(b"t/d", PARTITIONS)));
}

#[test]
fn what_has_no_original_to_send_is_passed_over() {
    let with = |name: &str| {
        let mut letter = buried(&Headers::default());
        letter.headers.push(name, "1");
        redriven(&letter, &state(), &LaneConfig::default()).unwrap_err()
    };
    assert_eq!(with(ORIGINAL_OMITTED), Skip::OriginalOmitted);
    assert_eq!(with(KEY_ABSENT), Skip::KeyAbsent);
    let elsewhere = DeadLetter {
        stage: "enrich".into(),
        ..state()
    };
    let refused = redriven(&buried(&Headers::default()), &elsewhere, &LaneConfig::default());
    assert_eq!(refused.unwrap_err(), Skip::StageUnknown);
}

#[test]
fn what_is_no_letter_has_no_origin() {
    let mut record = buried(&Headers::default());
    record.headers = theirs();
    record.headers.0.retain(|(name, _)| name != FAILURE_REASON);
    record.headers.push(ORIGIN, "documents.parsed/3/7");
    assert_eq!(origin(&record), None);
}

#[test]
fn a_letter_of_a_lane_goes_back_into_it_if_there_still_is_one() {
    let mut original = theirs();
    original.push(LANE, "bulk");
    let bulk = LaneConfig {
        names: [Lane::new("bulk").unwrap()].into(),
        ..LaneConfig::default()
    };
    let removed = redriven(&buried(&original), &state(), &LaneConfig::default());
    assert_eq!(removed.unwrap_err(), Skip::LaneUnknown);
    let output = redriven(&buried(&original), &state(), &bulk).unwrap();
    assert_eq!(output.topic, "documents.parsed.bulk");
    assert_eq!(output.headers.get_str(LANE), Some("bulk"));
    let parse = DeadLetter {
        stage: "parse".into(),
        ..state()
    };
    let output = redriven(&buried(&original), &parse, &bulk).unwrap();
    assert_eq!(output.topic, "documents.submitted", "its lane is decided there");
}
