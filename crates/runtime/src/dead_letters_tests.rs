use millrace_events::{DocumentParsed, DocumentSubmitted};
use millrace_flow::Origin;
use millrace_kafka::partitioner::partition_for;
use millrace_schema::Registry;

use super::*;

const DOCUMENT: &str = "acme/guide";
const AT_MS: i64 = 1_700_000_000_000;
const REVISION_OF_PART: i64 = (1 << 48) + 77;

fn codec() -> Codec {
    let writes = [topics::FAILED, topics::STATUS, topics::SUBMITTED, topics::PARSED];
    built_in(&writes, &[topics::SUBMITTED, topics::PARSED])
}

fn built_in(writes: &[Topic], reads: &[Topic]) -> Codec {
    let registry = Registry::new("http://127.0.0.1:1").unwrap();
    Codec::built_in(registry, writes, reads).unwrap()
}

fn home() -> i32 {
    partition_for(DOCUMENT.as_bytes(), PARTITIONS)
}

fn elsewhere() -> i32 {
    (home() + 1) % PARTITIONS
}

/// Values are written with ids from 1, read with ids from 101.
fn value<R: Record>(record: &R) -> Bytes {
    let mut value = codec().encode(record).unwrap().to_vec();
    value[4] = match R::TOPIC.name {
        "documents.submitted" => 101,
        _ => 102,
    };
    value.into()
}

fn submitted(document_id: &str) -> Bytes {
    value(&DocumentSubmitted {
        tenant: "acme".into(),
        document_id: document_id.into(),
        accepted_at_ms: 5,
        body: Some(b"SECRET".to_vec()),
        request_id: "0b6f3f2a-4c38-4f0e-9a4b-3f1b8f7f2a11".into(),
        ..DocumentSubmitted::default()
    })
}

fn parsed(document_id: &str) -> Bytes {
    value(&DocumentParsed {
        tenant: "acme".into(),
        document_id: document_id.into(),
        revision: REVISION_OF_PART,
        accepted_at_ms: 6,
        chunk_count: 3,
        ..DocumentParsed::default()
    })
}

fn delivery(topic: &str, partition: i32, key: Option<&[u8]>, value: Option<Bytes>) -> Delivery {
    let mut headers = Headers::default();
    headers.push("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    headers.push("theirs", vec![0xff, 0x00]);
    Delivery {
        origin: Origin {
            topic: topic.into(),
            partition,
            offset: 9,
        },
        key: key.map(Bytes::copy_from_slice),
        value,
        headers,
        timestamp_ms: 0,
        attempt: 3,
        span: Default::default(),
    }
}

fn rejection(delivery: Delivery) -> Rejection {
    Rejection {
        delivery,
        class: "INVALID",
        reason: "UNREADABLE_RECORD".into(),
        message: "a sentence".into(),
        attempts: 1,
        at_ms: AT_MS,
    }
}

struct Buried {
    letter: Output,
    state: DeadLetter,
    state_output: Output,
    status: Option<(DocumentStatus, Output)>,
}

fn decoded<R: Record>(output: &Output) -> R {
    let (_, body) = millrace_events::wire::split(output.value.as_deref().unwrap()).unwrap();
    let schema = apache_avro::Schema::parse_str(R::TOPIC.schema.unwrap()).unwrap();
    millrace_events::wire::decode(body, &schema, millrace_events::wire::SchemaId(1)).unwrap()
}

fn bury(rejection: &Rejection) -> Buried {
    let letters = DocumentLetters::new(codec(), "parse", Epoch::FIRST);
    let mut outputs = letters.bury(rejection).0.into_iter();
    let (letter, state_output) = (outputs.next().unwrap(), outputs.next().unwrap());
    let status = outputs.next().map(|output| (decoded(&output), output));
    assert_eq!(outputs.next(), None);
    assert_eq!(
        (letter.topic.as_str(), state_output.topic.as_str()),
        ("documents.dlq", "documents.failed")
    );
    Buried {
        letter,
        state: decoded(&state_output),
        state_output,
        status,
    }
}

/// What every burial keeps, whatever the record is.
fn assert_nothing_lost(original: &Delivery, letter: &Output) {
    assert_eq!(letter.key, original.key.clone().unwrap_or_default());
    assert_eq!(letter.headers.get(KEY_ABSENT).is_some(), original.key.is_none());
    assert_eq!(letter.value, original.value);
    let theirs = original.headers.0.len();
    assert_eq!(letter.headers.0[..theirs], original.headers.0);
    assert_eq!(letter.headers.0[theirs].0, FAILURE_REASON);
}

#[test]
fn a_letter_says_why_where_and_what() {
    let original = delivery(
        "documents.submitted",
        home(),
        Some(DOCUMENT.as_bytes()),
        Some(submitted("guide")),
    );
    let buried = bury(&rejection(original.clone()));
    assert_nothing_lost(&original, &buried.letter);
    let place = format!("documents.submitted/{}/9", home());
    let partition = home().to_string();
    for (name, expected) in [
        ("failure_reason", "UNREADABLE_RECORD"),
        ("failure_stage", "parse"),
        ("failure_attempts", "1"),
        ("millrace-origin", place.as_str()),
        ("millrace-first-failed-at-ms", "1700000000000"),
        ("__connect.errors.topic", "documents.submitted"),
        ("__connect.errors.partition", partition.as_str()),
        ("__connect.errors.offset", "9"),
        ("__connect.errors.stage", "parse"),
        ("__connect.errors.exception.class.name", "INVALID"),
        ("__connect.errors.exception.message", "a sentence"),
    ] {
        assert_eq!(buried.letter.headers.get_str(name), Some(expected), "{name}");
    }
    assert_eq!(buried.letter.partition, None);

    let state = DeadLetter {
        topic: "documents.submitted".into(),
        partition: home(),
        offset: 9,
        tenant: "acme".into(),
        document_id: "guide".into(),
        revision: (1 << 48) + 9,
        accepted_at_ms: 5,
        state: LetterState::Open,
        redrives: 0,
        stage: "parse".into(),
        reason: "UNREADABLE_RECORD".into(),
        message: "a sentence".into(),
        attempts: 1,
        failed_at_ms: AT_MS,
        updated_at_ms: AT_MS,
    };
    assert_eq!(buried.state, state);
    assert_eq!(
        (buried.state_output.key.clone(), buried.state_output.partition),
        (place.into(), Some(home()))
    );
    let (status, output) = buried.status.unwrap();
    assert_eq!(
        status,
        DocumentStatus {
            tenant: "acme".into(),
            document_id: "guide".into(),
            revision: (1 << 48) + 9,
            accepted_at_ms: 5,
            state: State::Failed,
            stage: "parse".into(),
            reason: "UNREADABLE_RECORD".into(),
            message: "a sentence".into(),
            request_id: "0b6f3f2a-4c38-4f0e-9a4b-3f1b8f7f2a11".into(),
            updated_at_ms: AT_MS,
            ..DocumentStatus::default()
        }
    );
    assert_eq!(
        (output.key.as_ref(), output.partition),
        (&b"acme/guide#281474976710665"[..], Some(home()))
    );
    for output in [&output, &buried.state_output] {
        assert_eq!(output.headers.0.len(), 1, "the trace goes on");
        assert!(output.headers.get_str("traceparent").is_some());
    }
}

/// The tables of the module, a row each.
#[test]
fn whose_record_it_is() {
    let (own, offset, part) = (Some("guide"), Some((1 << 48) + 9), Some(REVISION_OF_PART));
    let key = Some(DOCUMENT.as_bytes());
    let (submit, parse) = ("documents.submitted", "documents.parsed");
    let broken = || Some(parsed("guide").slice(..5));
    type Row<'a> = (
        &'a str,
        &'a str,
        i32,
        Option<&'a [u8]>,
        Option<Bytes>,
        Option<&'a str>,
        Option<i64>,
    );
    let rows: [Row<'_>; 15] = [
        ("both agree", submit, home(), key, Some(submitted("guide")), own, offset),
        ("both agree", parse, home(), key, Some(parsed("guide")), own, part),
        (
            "the record names another",
            submit,
            home(),
            key,
            Some(submitted("x")),
            own,
            offset,
        ),
        (
            "the record names another",
            parse,
            home(),
            key,
            Some(parsed("x")),
            own,
            None,
        ),
        (
            "unreadable",
            submit,
            home(),
            key,
            Some(Bytes::from_static(b"{}")),
            own,
            offset,
        ),
        ("unreadable", parse, home(), key, broken(), own, None),
        ("a tombstone", submit, home(), key, None, own, offset),
        ("a tombstone", parse, home(), key, None, own, None),
        ("no bytes", submit, home(), key, Some(Bytes::new()), own, offset),
        (
            "elsewhere",
            submit,
            elsewhere(),
            key,
            Some(submitted("guide")),
            own,
            None,
        ),
        ("no key", submit, elsewhere(), None, Some(submitted("guide")), own, None),
        ("no key", parse, elsewhere(), None, Some(parsed("guide")), own, part),
        (
            "a key that is no text",
            parse,
            3,
            Some(b"\xff\x00"),
            Some(parsed("guide")),
            own,
            part,
        ),
        ("nothing to go by", parse, 3, Some(b"\xff\x00"), broken(), None, None),
        ("nothing at all", submit, 3, None, None, None, None),
    ];
    for (name, topic, partition, key, value, document, revision) in rows {
        let name = format!("{name}, {topic}");
        let original = delivery(topic, partition, key, value);
        let buried = bury(&rejection(original.clone()));
        assert_nothing_lost(&original, &buried.letter);
        let (tenant, id) = document.map_or(("", ""), |id| ("acme", id));
        assert_eq!(
            (buried.state.tenant.as_str(), buried.state.document_id.as_str()),
            (tenant, id),
            "{name}"
        );
        assert_eq!(buried.state.revision, revision.unwrap_or(0), "{name}");
        assert_eq!(buried.status.as_ref().map(|(s, _)| s.revision), revision, "{name}");
        let at = document.map_or(partition, |_| home());
        assert_eq!(buried.state_output.partition, Some(at), "{name}");
        assert!(
            buried.status.is_none_or(|(_, output)| output.partition == Some(at)),
            "{name}"
        );
        assert_eq!(buried.letter.partition, key.is_none().then_some(partition), "{name}");
    }
}

#[test]
fn a_redriven_record_keeps_its_letter_and_its_revision() {
    let redriven = |marks: &[(&str, &str)]| {
        let mut delivery = delivery(
            "documents.submitted",
            home(),
            Some(DOCUMENT.as_bytes()),
            Some(submitted("guide")),
        );
        for (name, value) in marks {
            delivery.headers.push(*name, (*value).to_owned());
        }
        bury(&rejection(delivery))
    };
    let revision = (1 << 48) + 2;
    let marks = [
        (REVISION, "281474976710658"),
        (REDRIVE, "2"),
        (ORIGIN, "documents.submitted/3/2"),
        (FIRST_FAILED_AT_MS, "12"),
        (ORIGINAL_TIMESTAMP_MS, "7"),
    ];
    let buried = redriven(&marks);
    assert_eq!(
        (buried.state.topic.as_str(), buried.state.partition, buried.state.offset),
        ("documents.submitted", 3, 2)
    );
    assert_eq!(buried.state_output.key, "documents.submitted/3/2");
    assert_eq!((buried.state.redrives, buried.state.revision), (2, revision));
    assert_eq!((buried.state.failed_at_ms, buried.state.updated_at_ms), (12, AT_MS));
    assert_eq!(buried.status.unwrap().0.revision, revision);
    // The letter says where the record first stood, Connect's headers where it stands now.
    assert_eq!(buried.letter.headers.get_str(ORIGIN), Some("documents.submitted/3/2"));
    assert_eq!(buried.letter.headers.get_str(connect::OFFSET), Some("9"));
    assert_eq!(buried.letter.headers.get_str(ORIGINAL_TIMESTAMP_MS), Some("7"));

    // Marks that cannot be read: the letter stays, the revision is not guessed.
    let buried = redriven(&[
        (REVISION, "seven"),
        (REDRIVE, "x"),
        (ORIGIN, "a/b"),
        (FIRST_FAILED_AT_MS, ""),
    ]);
    assert!(buried.status.is_none());
    assert_eq!(
        (buried.state.offset, buried.state.redrives, buried.state.failed_at_ms),
        (9, 0, AT_MS)
    );
}

/// The log tells its revision as live: FAILED would take that back.
#[test]
fn a_part_that_an_audit_has_sent_again_fails_no_revision() {
    for value in [Some(parsed("guide")), None] {
        let mut original = delivery("chunks.embedded", home(), Some(DOCUMENT.as_bytes()), value);
        original.headers.push(REVISION, REVISION_OF_PART.to_string());
        assert!(bury(&rejection(original.clone())).status.is_some());
        original.headers.push(RESTORE, "1");
        let buried = bury(&rejection(original.clone()));
        assert!(buried.status.is_none());
        assert_nothing_lost(&original, &buried.letter);
        assert_eq!(
            (buried.state.state, buried.state.revision),
            (LetterState::Open, REVISION_OF_PART)
        );
    }
}

#[test]
fn headers_of_our_names_are_not_overwritten() {
    let mut original = delivery("documents.submitted", home(), Some(DOCUMENT.as_bytes()), None);
    original.headers.push(FAILURE_REASON, "theirs");
    original.headers.push(connect::TOPIC, "theirs");
    let buried = bury(&rejection(original.clone()));
    assert_nothing_lost(&original, &buried.letter);
    let named = |name: &str| -> Vec<Bytes> {
        let headers = buried.letter.headers.0.iter();
        headers
            .filter(|(n, _)| n == name)
            .filter_map(|(_, v)| v.clone())
            .collect()
    };
    assert_eq!(named(FAILURE_REASON), ["theirs", "UNREADABLE_RECORD"]);
    assert_eq!(named(connect::TOPIC), ["theirs", "documents.submitted"]);
}

#[test]
fn the_largest_record_fits_whole() {
    let noise: Vec<u8> = (0..topics::MAX_RECORD_BYTES).map(|i| (i * 31) as u8).collect();
    let original = delivery(
        "documents.submitted",
        home(),
        Some(DOCUMENT.as_bytes()),
        Some(noise.into()),
    );
    let buried = bury(&rejection(original.clone()));
    assert_nothing_lost(&original, &buried.letter);
    assert!(buried.letter.size_bytes() < MAX_DEAD_LETTER_BYTES);
    assert!(buried.status.is_some());
}

#[test]
fn what_no_topic_takes_is_named_and_does_not_stop_the_stage() {
    let huge = Bytes::from(vec![b'x'; MAX_DEAD_LETTER_BYTES]);
    let original = delivery("documents.submitted", home(), Some(DOCUMENT.as_bytes()), Some(huge));
    let buried = bury(&rejection(original));
    assert!(buried.letter.size_bytes() < 4096);
    assert_eq!(buried.letter.value, None);
    let omitted: usize = buried
        .letter
        .headers
        .get_str(ORIGINAL_OMITTED)
        .unwrap()
        .parse()
        .unwrap();
    assert!(omitted >= MAX_DEAD_LETTER_BYTES);
    assert!(buried.letter.headers.get_str(ORIGIN).unwrap().ends_with("/9"));
    assert!(buried.status.is_some());
    // A header is the record's own, too: none of its size goes into the small topics.
    let mut original = delivery("documents.submitted", home(), Some(DOCUMENT.as_bytes()), None);
    original
        .headers
        .push("tracestate", vec![b'x'; topics::MAX_RECORD_BYTES]);
    let buried = bury(&rejection(original));
    assert!(buried.state_output.size_bytes() < 4096);
    assert!(buried.status.unwrap().1.size_bytes() < 4096);
}

#[test]
fn messages_are_bounded_and_a_panic_s_words_are_not_repeated() {
    let mut rejection = rejection(delivery("documents.submitted", home(), Some(DOCUMENT.as_bytes()), None));
    rejection.message = "ü".repeat(MAX_MESSAGE_CHARS);
    assert_eq!(bury(&rejection).state.message, rejection.message);
    rejection.message.push('!');
    let cut = bury(&rejection).state.message;
    assert_eq!((cut.chars().count(), cut.ends_with("ü…")), (MAX_MESSAGE_CHARS, true));
    rejection.reason = "PANIC".into();
    rejection.message = "byte index 3 is not a char boundary; it is inside 'ü' of `SECRET`".into();
    let buried = bury(&rejection);
    let header = buried.letter.headers.get_str(connect::EXCEPTION_MESSAGE).unwrap();
    for message in [&buried.state.message, header, &buried.status.unwrap().0.message] {
        assert!(!message.contains("SECRET") && message.contains("panicked"), "{message}");
    }
}

#[test]
fn a_codec_that_cannot_write_the_states_loses_no_letter() {
    let codec = built_in(&[], &[topics::SUBMITTED]);
    let letters = DocumentLetters::new(codec, "parse", Epoch::FIRST);
    let original = delivery("documents.submitted", home(), Some(DOCUMENT.as_bytes()), None);
    let outputs = letters.bury(&rejection(original.clone())).0;
    assert_eq!(outputs.len(), 1);
    assert_nothing_lost(&original, &outputs[0]);
}

#[test]
fn a_later_epoch_has_topics_of_its_own() {
    let second = Epoch::new(2).unwrap();
    let letters = DocumentLetters::new(codec(), "parse", second);
    let original = |topic| delivery(topic, home(), Some(DOCUMENT.as_bytes()), Some(submitted("guide")));
    let outputs = letters.bury(&rejection(original("documents.submitted.e2"))).0;
    let topics: Vec<_> = outputs.iter().map(|output| output.topic.as_str()).collect();
    assert_eq!(
        topics,
        ["documents.dlq.e2", "documents.failed.e2", "documents.status.e2"]
    );
    assert_eq!(decoded::<DocumentStatus>(&outputs[2]).revision, (2 << 48) + 9);
    // A record of the first epoch has no offset in the second.
    assert_eq!(letters.bury(&rejection(original("documents.submitted"))).0.len(), 2);
}
