//! The golden records of our own topics, `schemas/<topic>/golden/`: what today's encoder writes, and what today's decoder
//! reads, are the bytes that were published.
//!
//! `GOLDEN=write cargo test -p millrace-events --test golden` adds the records that are not there yet; it changes none.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use millrace_events::wire::{self, SchemaId};
use millrace_events::*;

/// Holds the records of one topic's newest version against their files.
fn hold<R: Record + Debug + PartialEq>(cases: &[(&str, R)]) {
    let schema = Schema::parse_str(R::TOPIC.schema.unwrap()).unwrap();
    let folder = folder(R::TOPIC.name).join(format!("v{}", R::TOPIC.versions.len()));
    for (case, record) in cases {
        let id = SchemaId(1);
        let value = wire::encode(record, &schema, id).unwrap();
        let (_, body) = wire::split(&value).unwrap();
        let path = folder.join(format!("{case}.avro"));
        if std::env::var_os("GOLDEN").is_some_and(|v| v == "write") && !path.exists() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, body).unwrap();
            std::fs::write(path.with_extension("json"), as_json(&schema, body)).unwrap();
        }
        let golden = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(
            body,
            golden,
            "today's encoder writes other bytes than {}",
            path.display()
        );
        let read: R = wire::decode(&golden, &schema, id).unwrap();
        assert_eq!(read, *record, "{}", path.display());
        let read = reads(R::TOPIC.name, &schema, &golden).unwrap();
        assert!(read.is_ok(), "{}: {read:?}", path.display());
    }
    let mut named: Vec<String> = cases.iter().map(|(case, _)| format!("{case}.avro")).collect();
    named.sort();
    assert_eq!(
        named,
        bodies(&folder),
        "{}: records in code, records in files",
        folder.display()
    );
}

fn folder(topic: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas"))
        .join(topic)
        .join("golden")
}

fn bodies(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".avro")).collect();
    names.sort();
    names
}

/// As people read it, and as `millrace schema golden` would take it.
fn as_json(schema: &Schema, mut body: &[u8]) -> String {
    fn json(value: &Value) -> serde_json::Value {
        match value {
            Value::Null => serde_json::Value::Null,
            Value::Boolean(v) => (*v).into(),
            Value::Int(v) => (*v).into(),
            Value::Long(v) => (*v).into(),
            Value::String(v) | Value::Enum(_, v) => v.as_str().into(),
            Value::Bytes(v) => v.iter().map(|b| char::from(*b)).collect::<String>().into(),
            Value::Union(_, v) => json(v),
            Value::Array(v) => v.iter().map(json).collect(),
            Value::Record(v) => v.iter().map(|(name, v)| (name.clone(), json(v))).collect(),
            other => unreachable!("no record of ours has {other:?}"),
        }
    }
    let reader = GenericDatumReader::builder(schema).build().unwrap();
    let record = json(&reader.read_value(&mut body).unwrap());
    // Bytes look like text here; control characters among them would not be seen.
    let escaped = |c: char| match c {
        '\u{7f}'..='\u{9f}' => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    let text = serde_json::to_string_pretty(&record).unwrap();
    text.chars().map(escaped).chain(["\n".to_owned()]).collect()
}

const TENANT: &str = "acme";
const DOCUMENT: &str = "guides/intro.md";
const UNICODE: &str = "日本語/grüße – 🚀 е\u{301}.md";
const REVISION: i64 = (1 << 48) + 42;
const AT: i64 = 1_767_225_600_123;
const REQUEST: &str = "0b6f3f2a-4c38-4f0e-9a4b-3f1b8f7f2a11";

fn model() -> Model {
    Model {
        id: "all-minilm-l6-v2".into(),
        revision: "759c3cd2b7fe7e93933ad23c4c9181b7396442a2ed746ec7c1d46192c469c46e".into(),
        dimensions: 4,
        dtype: "f32".into(),
        normalized: true,
    }
}

#[test]
fn documents_submitted() {
    let full = DocumentSubmitted {
        tenant: TENANT.into(),
        document_id: DOCUMENT.into(),
        accepted_at_ms: AT,
        kind: Kind::Upsert,
        media_type: "text/markdown".into(),
        body: Some(b"# Intro\n\nHello.\n".to_vec()),
        claim: None,
        lane: "fast".into(),
        request_id: REQUEST.into(),
    };
    hold(&[
        ("full", full.clone()),
        (
            "defaults",
            DocumentSubmitted {
                tenant: "t".into(),
                document_id: "d".into(),
                ..Default::default()
            },
        ),
        (
            "claim",
            DocumentSubmitted {
                body: None,
                claim: Some(ClaimCheck {
                    uri: "s3://claims/acme/1".into(),
                    sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".into(),
                    size_bytes: 5 << 30,
                }),
                ..full.clone()
            },
        ),
        (
            "delete",
            DocumentSubmitted {
                kind: Kind::Delete,
                media_type: String::new(),
                body: None,
                lane: String::new(),
                ..full.clone()
            },
        ),
        (
            "empty-body",
            DocumentSubmitted {
                body: Some(Vec::new()),
                ..full.clone()
            },
        ),
        (
            "unicode",
            DocumentSubmitted {
                document_id: UNICODE.into(),
                body: Some("naïve 日本語 🚀".as_bytes().to_vec()),
                ..full.clone()
            },
        ),
        (
            "bytes",
            DocumentSubmitted {
                media_type: "application/pdf".into(),
                body: Some((0..=255).collect()),
                ..full
            },
        ),
    ]);
}

#[test]
fn documents_parsed() {
    let chunk = |ordinal: i32, text: &str, section: &[&str]| TextChunk {
        ordinal,
        text: text.into(),
        start_byte: i64::from(ordinal) * 100,
        end_byte: i64::from(ordinal) * 100 + text.len() as i64,
        section: section.iter().map(|s| (*s).to_owned()).collect(),
        tokens: 7,
    };
    let full = DocumentParsed {
        tenant: TENANT.into(),
        document_id: DOCUMENT.into(),
        revision: REVISION,
        accepted_at_ms: AT,
        kind: Kind::Upsert,
        part: 1,
        parts: 3,
        chunk_count: 66,
        media_type: "text/markdown".into(),
        offsets_in: OffsetsIn::Body,
        chunks: vec![chunk(32, "Hello.", &["Intro", "First steps"]), chunk(33, "Bye.", &[])],
    };
    let bare = DocumentParsed {
        part: 0,
        parts: 1,
        chunk_count: 0,
        chunks: Vec::new(),
        ..full.clone()
    };
    hold(&[
        ("full", full.clone()),
        (
            "defaults",
            DocumentParsed {
                tenant: "t".into(),
                document_id: "d".into(),
                revision: 1,
                ..Default::default()
            },
        ),
        (
            "delete",
            DocumentParsed {
                kind: Kind::Delete,
                media_type: String::new(),
                offsets_in: OffsetsIn::Unknown,
                ..bare.clone()
            },
        ),
        ("empty-document", bare),
        (
            "unicode",
            DocumentParsed {
                document_id: UNICODE.into(),
                offsets_in: OffsetsIn::Extracted,
                chunks: vec![chunk(0, "naïve 日本語 🚀 \u{0} e\u{301}", &["Überschrift"])],
                ..full
            },
        ),
    ]);
}

#[test]
fn chunks_embedded() {
    let chunk = |ordinal: i32, text: &str, vector: &[f32]| EmbeddedChunk {
        ordinal,
        text: text.into(),
        start_byte: 10,
        end_byte: 10 + text.len() as i64,
        section: vec!["Intro".into()],
        tokens: 3,
        vector: vector_to_bytes(vector),
    };
    let full = ChunksEmbedded {
        tenant: TENANT.into(),
        document_id: DOCUMENT.into(),
        revision: REVISION,
        accepted_at_ms: AT,
        kind: Kind::Upsert,
        part: 0,
        parts: 1,
        chunk_count: 2,
        offsets_in: OffsetsIn::Body,
        model: model(),
        chunks: vec![
            chunk(0, "Hello.", &[0.5, -0.5, 0.5, -0.5]),
            chunk(1, "Bye.", &[1.0, 0.0, -0.0, f32::MIN_POSITIVE]),
        ],
    };
    let bare = ChunksEmbedded {
        chunk_count: 0,
        chunks: Vec::new(),
        ..full.clone()
    };
    hold(&[
        ("full", full.clone()),
        (
            "defaults",
            ChunksEmbedded {
                tenant: "t".into(),
                document_id: "d".into(),
                revision: 1,
                ..Default::default()
            },
        ),
        (
            "delete",
            ChunksEmbedded {
                kind: Kind::Delete,
                offsets_in: OffsetsIn::Unknown,
                ..bare.clone()
            },
        ),
        ("empty-document", bare),
        (
            "unicode",
            ChunksEmbedded {
                document_id: UNICODE.into(),
                chunks: vec![chunk(0, "日本語 🚀", &[0.0, 0.0, 0.6, 0.8])],
                ..full
            },
        ),
    ]);
}

#[test]
fn vectors_indexed() {
    let full = VectorsIndexed {
        tenant: TENANT.into(),
        document_id: DOCUMENT.into(),
        revision: REVISION,
        accepted_at_ms: AT,
        event: IndexEvent::Live,
        chunk_count: 2,
        generation: model().generation(),
        model: model(),
        indexed_at_ms: AT + 900,
    };
    hold(&[
        ("full", full.clone()),
        (
            "defaults",
            VectorsIndexed {
                tenant: "t".into(),
                document_id: "d".into(),
                revision: 1,
                ..Default::default()
            },
        ),
        (
            "delete",
            VectorsIndexed {
                event: IndexEvent::Deleted,
                chunk_count: 0,
                ..full.clone()
            },
        ),
        (
            "unicode",
            VectorsIndexed {
                document_id: UNICODE.into(),
                ..full
            },
        ),
    ]);
}

#[test]
fn documents_status() {
    let indexed = DocumentStatus {
        tenant: TENANT.into(),
        document_id: DOCUMENT.into(),
        revision: REVISION,
        accepted_at_ms: AT,
        state: State::Indexed,
        chunk_count: 2,
        generation: model().generation(),
        stage: "index".into(),
        request_id: REQUEST.into(),
        updated_at_ms: AT + 900,
        ..Default::default()
    };
    let with = |state| DocumentStatus {
        state,
        chunk_count: 0,
        generation: String::new(),
        ..indexed.clone()
    };
    hold(&[
        (
            "full",
            DocumentStatus {
                reason: "R".into(),
                message: "m".into(),
                duplicate_of_revision: REVISION - 1,
                ..indexed.clone()
            },
        ),
        (
            "defaults",
            DocumentStatus {
                tenant: "t".into(),
                document_id: "d".into(),
                revision: 1,
                ..Default::default()
            },
        ),
        (
            "parsed",
            DocumentStatus {
                stage: "parse".into(),
                ..with(State::Parsed)
            },
        ),
        ("indexed", indexed.clone()),
        ("delete", with(State::Deleted)),
        ("superseded", with(State::Superseded)),
        (
            "failed",
            DocumentStatus {
                reason: "UNSUPPORTED_MEDIA_TYPE".into(),
                message: "application/x-unknown cannot be parsed".into(),
                ..with(State::Failed)
            },
        ),
        (
            "duplicate",
            DocumentStatus {
                duplicate_of_revision: REVISION - 1,
                ..with(State::DuplicateOf)
            },
        ),
        (
            "unicode",
            DocumentStatus {
                document_id: UNICODE.into(),
                message: "„kaputt“ 🚀".into(),
                ..with(State::Failed)
            },
        ),
    ]);
}

#[test]
fn documents_failed() {
    let open = DeadLetter {
        topic: "documents.parsed".into(),
        partition: 11,
        offset: 1 << 40,
        tenant: TENANT.into(),
        document_id: DOCUMENT.into(),
        revision: REVISION,
        accepted_at_ms: AT,
        state: LetterState::Open,
        redrives: 0,
        stage: "embed".into(),
        reason: "UNREADABLE_RECORD".into(),
        message: "the body does not follow its schema, id 7".into(),
        attempts: 1,
        failed_at_ms: AT + 5,
        updated_at_ms: AT + 5,
    };
    hold(&[
        ("full", open.clone()),
        (
            "defaults",
            DeadLetter {
                topic: "documents.submitted".into(),
                ..Default::default()
            },
        ),
        (
            "redriven",
            DeadLetter {
                state: LetterState::Redriven,
                redrives: 2,
                ..open.clone()
            },
        ),
        (
            "discarded",
            DeadLetter {
                state: LetterState::Discarded,
                ..open.clone()
            },
        ),
        (
            "unreadable",
            DeadLetter {
                tenant: String::new(),
                document_id: String::new(),
                revision: 0,
                accepted_at_ms: 0,
                ..open.clone()
            },
        ),
        (
            "unicode",
            DeadLetter {
                document_id: UNICODE.into(),
                message: "„kaputt“ 🚀".into(),
                ..open
            },
        ),
    ]);
}
