use std::sync::atomic::{AtomicI64, Ordering};

use millrace_events::{Model, vector_to_bytes};
use millrace_flow::Origin;
use millrace_schema::Registry;
use tempfile::TempDir;

use super::*;
use crate::index::embedded::OpenEmbedded;

fn generations() -> (Generations, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (
        Generations::open(folder.path(), OpenEmbedded::default()).unwrap(),
        folder,
    )
}

fn record(offset: i64, chunks: i32) -> ChunksEmbedded {
    let chunk = |ordinal| EmbeddedChunk {
        ordinal,
        text: format!("chunk {ordinal}"),
        vector: vector_to_bytes(&[0.6, 0.8]),
        ..EmbeddedChunk::default()
    };
    ChunksEmbedded {
        tenant: "acme".into(),
        document_id: "a.md".into(),
        revision: (1 << 48) + offset,
        accepted_at_ms: 5,
        kind: Kind::Upsert,
        part: 0,
        parts: 1,
        chunk_count: chunks,
        model: Model {
            id: "tiny".into(),
            revision: "0123456789".into(),
            dimensions: 2,
            dtype: "f32".into(),
            normalized: true,
        },
        chunks: (0..chunks).map(chunk).collect(),
        ..ChunksEmbedded::default()
    }
}

fn deletion(offset: i64) -> ChunksEmbedded {
    ChunksEmbedded {
        kind: Kind::Delete,
        ..record(offset, 0)
    }
}

fn delivery(value: Option<Bytes>) -> Delivery {
    Delivery {
        origin: Origin {
            topic: "chunks.embedded".into(),
            partition: 3,
            offset: 0,
        },
        key: None,
        value,
        headers: Headers::default(),
        timestamp_ms: 0,
        attempt: 1,
        span: Default::default(),
    }
}

#[tokio::test]
async fn each_end_of_a_revision_is_announced_as_the_table_says() {
    let (generations, _folder) = generations();
    let cases = [
        (record(4, 2), Some((IndexEvent::Live, 2)), State::Indexed),
        (record(5, 0), Some((IndexEvent::Live, 0)), State::Indexed),
        (record(4, 2), None, State::Superseded),
        (deletion(6), Some((IndexEvent::Deleted, 0)), State::Deleted),
        (deletion(3), None, State::Superseded),
    ];
    for (record, event, state) in cases {
        let made = index(&generations, record.clone(), || 9).await.unwrap();
        assert_eq!(made.event.as_ref().map(|e| (e.event, e.chunk_count)), event);
        if let Some(event) = &made.event {
            assert_eq!(
                (event.revision, event.accepted_at_ms, event.indexed_at_ms),
                (record.revision, 5, 9)
            );
            assert_eq!(
                (event.generation.as_str(), &event.model),
                ("tiny-f32-2-01234567", &record.model)
            );
        }
        let status = made.status.unwrap();
        assert_eq!(
            (status.state, status.revision, status.stage.as_str()),
            (state, record.revision, "index")
        );
        assert_eq!(
            (status.generation.as_str(), status.updated_at_ms),
            ("tiny-f32-2-01234567", 9)
        );
    }
}

#[tokio::test]
async fn parts_announce_once() {
    let (generations, _folder) = generations();
    let whole = record(1, 3);
    let part = |part: i32, chunks: std::ops::Range<usize>| ChunksEmbedded {
        part,
        parts: 2,
        chunks: whole.chunks[chunks].to_vec(),
        ..whole.clone()
    };
    let first = index(&generations, part(0, 0..2), || 9).await.unwrap();
    assert_eq!(first, Announcement::default());
    let second = index(&generations, part(1, 2..3), || 9).await.unwrap();
    assert_eq!(second.event.unwrap().chunk_count, 3);
}

#[tokio::test]
async fn what_can_never_be_indexed_is_invalid_and_another_model_stops_the_stage() {
    let (generations, _folder) = generations();
    index(&generations, record(1, 1), || 9).await.unwrap();
    let with = |change: &dyn Fn(&mut ChunksEmbedded)| {
        let mut changed = record(2, 2);
        change(&mut changed);
        changed
    };
    let invalid = [
        with(&|r| r.kind = Kind::Unknown),
        with(&|r| r.kind = Kind::Delete),
        with(&|r| r.tenant.clear()),
        with(&|r| r.revision = 7),
        with(&|r| r.chunk_count = -1),
        with(&|r| r.chunk_count = 3),
        with(&|r| r.part = 1),
        with(&|r| (r.parts, r.part) = (0, 0)),
        with(&|r| r.chunks[1].ordinal = 0),
        with(&|r| r.chunks[1].ordinal = 2),
        with(&|r| r.chunks[0].vector = vector_to_bytes(&[1.0])),
        with(&|r| r.chunks[0].vector = vector_to_bytes(&[1.0, f32::NAN])),
        ChunksEmbedded {
            parts: 2,
            ..deletion(2)
        },
    ];
    for record in invalid {
        let failure = index(&generations, record.clone(), || 9).await.unwrap_err();
        assert_eq!(failure.class(), "INVALID", "{record:?}: {failure}");
    }
    let nameless = index(
        &generations,
        ChunksEmbedded {
            model: Model::default(),
            ..record(2, 1)
        },
        || 9,
    )
    .await;
    assert_eq!(nameless.unwrap_err().reason(), "OTHER_MODEL");
    let other = with(&|r| r.model.id = "larger".into());
    let failure = index(&generations, other, || 9).await.unwrap_err();
    assert_eq!((failure.class(), failure.reason()), ("CONFIG", "OTHER_MODEL"));
    assert!(failure.message().contains("larger-f32-2-01234567"), "{failure}");
}

/// Rows of what an audit sends again: brought in, or left, but never given up and never announced.
#[tokio::test]
async fn what_is_sent_again_restores_and_is_never_given_up() {
    let (generations, _folder) = generations();
    restore(&generations, record(1, 2), 9).await.unwrap();
    let index = generations.serving().unwrap().index;
    let document = record(1, 2).document().unwrap();
    let heads = index.heads(vec![document.clone()]).await.unwrap();
    assert_eq!(heads[&document].chunk_count, 2);
    let mut other = record(2, 2);
    other.model.id = "larger".into();
    let mut contradicting = record(2, 2);
    contradicting.chunk_count = 1;
    for left in [other, contradicting] {
        restore(&generations, left, 9).await.unwrap();
    }
    assert_eq!(index.heads(vec![document]).await.unwrap(), heads);
    // Through the stage: nothing comes out.
    let registry = Registry::new("http://127.0.0.1:1").unwrap();
    let codec = Codec::built_in(registry, &[topics::EMBEDDED], &[topics::EMBEDDED]).unwrap();
    let mut value = codec.encode(&record(3, 1)).unwrap().to_vec();
    // Written under an id of its own, read under another one.
    value[4] = 101;
    let mut stage = IndexStage {
        generations,
        codec,
        epoch: Epoch::FIRST,
    };
    let mut delivery = delivery(Some(value.into()));
    delivery.headers.push(headers::RESTORE, "1");
    assert!(stage.call(delivery).await.unwrap().0.is_empty());
}

#[tokio::test]
async fn a_record_without_a_value_is_unreadable_and_asks_no_registry() {
    let (generations, _folder) = generations();
    // Nothing listens there.
    let registry = Registry::new("http://127.0.0.1:1").unwrap();
    let mut stage = IndexStage {
        generations,
        codec: Codec::built_in(registry, &[], &[]).unwrap(),
        epoch: Epoch::FIRST,
    };
    let mut delivery = delivery(None);
    let failure = stage.call(delivery.clone()).await.unwrap_err();
    assert_eq!((failure.class(), failure.reason()), ("INVALID", "UNREADABLE_RECORD"));
    delivery.value = Some(Bytes::from_static(b"\0\0\0\0\x01"));
    let failure = stage.call(delivery).await.unwrap_err();
    assert_eq!(
        (failure.class(), failure.reason()),
        ("TRANSIENT", "REGISTRY_UNAVAILABLE")
    );
}

/// A row for each error of the index.
#[test]
fn each_error_of_the_index_has_its_class() {
    let (operation, path) = ("write points", std::path::PathBuf::from("/index"));
    let message = || String::from("x");
    let unavailable = || IndexError::Unavailable {
        operation,
        message: message(),
    };
    let unreadable = IndexError::Unreadable {
        point: message(),
        message: message(),
    };
    let lost = PublishError::HeadLost {
        document: "acme/a.md".parse().unwrap(),
        revision: millrace_events::Revision::new(Epoch::FIRST, 2).unwrap(),
        found: message(),
    };
    let refused = IndexError::Refused {
        operation,
        message: message(),
    };
    let published = [
        (PublishError::Invalid(message()), "INVALID", "INVALID_PART"),
        (unavailable().into(), "TRANSIENT", "INDEX_UNAVAILABLE"),
        (refused.into(), "INVALID", "INDEX_REFUSED"),
        (unreadable.into(), "FAILED", "INDEX_INCONSISTENT"),
        (lost, "FAILED", "INDEX_INCONSISTENT"),
    ];
    for (error, class, reason) in published {
        let failure = publish_failure(error);
        assert_eq!((failure.class(), failure.reason()), (class, reason), "{failure}");
    }
    let io = GenerationError::Io {
        operation: "read",
        path: path.clone(),
        source: std::io::Error::other("no space left"),
    };
    let named = GenerationError::Unreadable {
        path: path.clone(),
        source: serde_json::from_str::<Model>("{").unwrap_err(),
    };
    let other = GenerationError::OtherModel {
        found: message(),
        served: message(),
        path: path.clone(),
    };
    let open = GenerationError::Open {
        generation: message(),
        source: unavailable(),
    };
    let generations = [
        (GenerationError::Taken { path }, "TRANSIENT", "INDEX_UNAVAILABLE"),
        (io, "TRANSIENT", "INDEX_UNAVAILABLE"),
        (named, "TRANSIENT", "INDEX_UNAVAILABLE"),
        (other, "CONFIG", "OTHER_MODEL"),
        (GenerationError::NoModel(message()), "INVALID", "NO_MODEL"),
        (open, "TRANSIENT", "INDEX_UNAVAILABLE"),
    ];
    for (error, class, reason) in generations {
        let failure = generation_failure(error);
        assert_eq!((failure.class(), failure.reason()), (class, reason), "{failure}");
    }
}

#[tokio::test]
async fn what_is_announced_has_the_time_at_which_it_could_be_seen() {
    let (generations, _folder) = generations();
    let clock = AtomicI64::new(9);
    let made = index(&generations, record(1, 1), || clock.fetch_add(1, Ordering::Relaxed))
        .await
        .unwrap();
    let (event, status) = (made.event.unwrap(), made.status.unwrap());
    assert_eq!(
        (event.indexed_at_ms, status.updated_at_ms),
        (10, 10),
        "after its head was moved at 9"
    );
}
