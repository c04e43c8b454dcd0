//! An audit's bench: the real engine, topics in memory, the stage's own code for what is sent again, and ways to damage the
//! index.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use millrace_events::topics::{self, PARTITIONS, Topic};
use millrace_events::{
    ChunksEmbedded, DocumentKey, DocumentStatus, EmbeddedChunk, Epoch, Kind as RecordKind, Model, Revision, State,
    vector_to_bytes,
};
use millrace_flow::{Delivery, Headers, Origin, Output};
use millrace_kafka::TailEvent;
use millrace_kafka::partitioner::partition_for;
use millrace_runtime::clock::now_ms;
use millrace_runtime::codec::Codec;
use millrace_schema::Registry;
use tempfile::TempDir;
use tokio::sync::{Notify, Semaphore, SetOnce};
use tokio_util::sync::CancellationToken;

use super::job::{Event, Summary};
use super::judge::Kind;
use super::log::{AuditLog, LogError, PartWriter, Ranges};
use super::repair::Outcome;
use super::{Auditor, Order};
use crate::index::embedded::OpenEmbedded;
use crate::index::generation::Generations;
use crate::index::{ChunkPoint, Head, RevisionPoints, Scope, VectorIndex};
use crate::pipeline::index::{index, restore};

/// How old what the log tells is.
const MINUTE_MS: i64 = 60_000;

#[derive(Clone)]
pub(crate) struct Topics(pub(crate) Arc<Held>);

pub(crate) struct Held {
    codec: Codec,
    generations: Generations,
    pub(crate) records: Mutex<Vec<(Topic, Delivery)>>,
    /// Below these offsets retention has taken the parts.
    pub(crate) gone_below: Mutex<i64>,
    written: Notify,
    pub(crate) sent: Mutex<Vec<Output>>,
    /// The stage is away: what is sent again waits.
    pub(crate) away: Mutex<bool>,
    pub(crate) taken_over: Mutex<bool>,
    /// What goes through the pipeline right after ends were asked for: behind the reading that asked.
    late: Mutex<Vec<ChunksEmbedded>>,
}

impl Topics {
    fn append(&self, topic: Topic, key: &str, value: Option<Bytes>, headers: Headers) {
        let document = key.rsplit_once('#').map_or(key, |(document, _)| document);
        let partition = partition_for(document.as_bytes(), PARTITIONS);
        let mut records = self.0.records.lock().unwrap();
        let before = records
            .iter()
            .filter(|(of, d)| *of == topic && d.origin.partition == partition);
        let offset = before.count() as i64;
        let origin = Origin {
            topic: topic.name.into(),
            partition,
            offset,
        };
        let delivery = Delivery {
            origin,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value,
            headers,
            timestamp_ms: 0,
            attempt: 1,
            span: Default::default(),
        };
        records.push((topic, delivery));
        self.0.written.notify_waiters();
    }

    fn status(&self, of: &ChunksEmbedded, state: State) {
        let status = DocumentStatus {
            tenant: of.tenant.clone(),
            document_id: of.document_id.clone(),
            revision: of.revision,
            state,
            chunk_count: of.chunk_count,
            updated_at_ms: now_ms() - MINUTE_MS,
            ..DocumentStatus::default()
        };
        let value = Self::readable(&self.0.codec.encode(&status).unwrap());
        let key = status.key().unwrap().to_string();
        self.append(topics::STATUS, &key, Some(value), Headers::default());
    }

    /// The record at this place of all topics, once it is written.
    async fn record(&self, at: usize) -> (Topic, Delivery) {
        loop {
            let written = self.0.written.notified();
            let record = self.0.records.lock().unwrap().get(at).cloned();
            match record {
                Some(record) => return record,
                None => written.await,
            }
        }
    }

    /// The codec writes with ids of its own, from 1, and reads them from 101.
    fn readable(value: &Bytes) -> Bytes {
        let mut value = value.to_vec();
        value[4] += 100;
        value.into()
    }
}

impl AuditLog for Topics {
    type Writer = Self;

    async fn ranges(&self, topic: Topic) -> Result<Ranges, LogError> {
        let gone = *self.0.gone_below.lock().unwrap();
        let first = if topic == topics::EMBEDDED { gone } else { 0 };
        let mut ranges: Ranges = (0..PARTITIONS).map(|p| (p, (0, 0))).collect();
        for (_, delivery) in self.0.records.lock().unwrap().iter().filter(|(of, _)| *of == topic) {
            let end = delivery.origin.offset + 1;
            ranges.insert(delivery.origin.partition, (first.min(end), end));
        }
        let late = std::mem::take(&mut *self.0.late.lock().unwrap());
        for part in late {
            self.status(&part, State::Parsed);
            index(&self.0.generations, part.clone(), || 1).await.unwrap();
            self.status(&part, State::Indexed);
        }
        Ok(ranges)
    }

    fn read(&self, topic: Topic, starts: BTreeMap<i32, i64>) -> Result<BoxStream<'static, TailEvent>, LogError> {
        let gone = match topic == topics::EMBEDDED {
            true => *self.0.gone_below.lock().unwrap(),
            false => 0,
        };
        let stream = futures::stream::unfold((self.clone(), 0), move |(log, mut at)| {
            let starts = starts.clone();
            async move {
                loop {
                    let (of, delivery) = log.record(at).await;
                    at += 1;
                    let start = starts.get(&delivery.origin.partition).copied().unwrap_or(0).max(gone);
                    if of == topic && delivery.origin.offset >= start {
                        return Some((TailEvent::Record(delivery), (log, at)));
                    }
                }
            }
        });
        Ok(stream.boxed())
    }

    async fn take_over(&self) -> Result<Self, LogError> {
        Ok(self.clone())
    }
}

impl PartWriter for Topics {
    async fn write(&self, outputs: Vec<Output>) -> Result<(), LogError> {
        if *self.0.taken_over.lock().unwrap() {
            return Err(LogError::TakenOver("x".into()));
        }
        for output in outputs {
            let key = String::from_utf8(output.key.to_vec()).unwrap();
            self.append(topics::EMBEDDED, &key, output.value.clone(), output.headers.clone());
            self.0.sent.lock().unwrap().push(output.clone());
            if !*self.0.away.lock().unwrap() {
                let record: ChunksEmbedded = self.0.codec.decode(&output.value.unwrap()).await.unwrap();
                restore(&self.0.generations, record, 9).await.unwrap();
            }
        }
        Ok(())
    }
}

pub(crate) struct Bench {
    pub(crate) topics: Topics,
    pub(crate) auditor: Auditor<Topics>,
    _folder: TempDir,
}

pub(crate) fn model(id: &str) -> Model {
    Model {
        id: id.into(),
        revision: "0123456789".into(),
        dimensions: 2,
        dtype: "f32".into(),
        normalized: true,
    }
}

pub(crate) fn document(name: &str) -> DocumentKey {
    DocumentKey::new("acme", name).unwrap()
}

pub(crate) fn r(offset: i64) -> Revision {
    Revision::new(Epoch::FIRST, offset).unwrap()
}

/// Parts of a revision with so many chunks in each; none is a deletion.
pub(crate) fn parts(name: &str, offset: i64, sizes: &[usize], model: Model) -> Vec<ChunksEmbedded> {
    let all: usize = sizes.iter().sum();
    let chunk = |ordinal: usize| EmbeddedChunk {
        ordinal: ordinal as i32,
        text: format!("chunk {ordinal}"),
        vector: vector_to_bytes(&[0.6, 0.8]),
        ..EmbeddedChunk::default()
    };
    let part = |part: usize| {
        let first: usize = sizes[..part].iter().sum();
        ChunksEmbedded {
            tenant: "acme".into(),
            document_id: name.into(),
            revision: r(offset).get(),
            kind: RecordKind::Upsert,
            part: part as i32,
            parts: sizes.len() as i32,
            chunk_count: all as i32,
            model: model.clone(),
            chunks: (first..first + sizes[part]).map(chunk).collect(),
            ..ChunksEmbedded::default()
        }
    };
    if sizes.is_empty() {
        let deletion = ChunksEmbedded {
            kind: RecordKind::Delete,
            ..parts(name, offset, &[0], model).remove(0)
        };
        return vec![deletion];
    }
    (0..sizes.len()).map(part).collect()
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let generations = Generations::open(folder.path(), OpenEmbedded::default()).unwrap();
        let registry = Registry::new("http://127.0.0.1:1").unwrap();
        let both = [topics::EMBEDDED, topics::STATUS];
        let codec = Codec::built_in(registry, &both, &both).unwrap();
        let topics = Topics(Arc::new(Held {
            codec: codec.clone(),
            generations: generations.clone(),
            records: Mutex::default(),
            gone_below: Mutex::default(),
            written: Notify::new(),
            sent: Mutex::default(),
            away: Mutex::default(),
            taken_over: Mutex::default(),
            late: Mutex::default(),
        }));
        let auditor = Auditor {
            log: topics.clone(),
            codec: Arc::new(SetOnce::new_with(Some(codec))),
            generations,
            epoch: Epoch::FIRST,
            patience: Duration::from_secs(60),
            keep_deleted: Duration::ZERO,
            leaving: CancellationToken::new(),
            turn: Arc::new(Semaphore::new(1)),
        };
        Self {
            topics,
            auditor,
            _folder: folder,
        }
    }

    pub(crate) fn status(&self, name: &str, offset: i64, state: State, chunk_count: i32) {
        let of = ChunksEmbedded {
            tenant: "acme".into(),
            document_id: name.into(),
            revision: r(offset).get(),
            chunk_count,
            ..ChunksEmbedded::default()
        };
        self.topics.status(&of, state);
    }

    pub(crate) fn embedded(&self, part: &ChunksEmbedded) {
        let value = Topics::readable(&self.auditor.codec.get().unwrap().encode(part).unwrap());
        let mut headers = Headers::default();
        headers.push("theirs", "x");
        let key = part.document().unwrap().to_string();
        self.topics.append(topics::EMBEDDED, &key, Some(value), headers);
    }

    /// As the pipeline does it: PARSED, the parts, the index, and at last what it announced.
    pub(crate) async fn submit(&self, name: &str, offset: i64, sizes: &[usize]) {
        self.status(name, offset, State::Parsed, 0);
        for part in parts(name, offset, sizes, model("tiny")) {
            self.embedded(&part);
            let made = index(&self.auditor.generations, part, || 1).await.unwrap();
            if let Some(status) = made.status {
                self.status(name, offset, status.state, status.chunk_count);
            }
        }
    }

    /// A record of `documents.status` that nobody can read.
    pub(crate) fn unreadable_status(&self, key: &str) {
        let value = Some(Bytes::from_static(b"{}"));
        self.topics.append(topics::STATUS, key, value, Headers::default());
    }

    /// Goes through the whole pipeline while the audit is at its first reading.
    pub(crate) fn submit_meanwhile(&self, name: &str, offset: i64) {
        let part = parts(name, offset, &[1], model("tiny"));
        self.topics.0.late.lock().unwrap().extend(part);
    }

    pub(crate) fn index(&self) -> Arc<dyn VectorIndex> {
        self.auditor.generations.serving().unwrap().index
    }

    pub(crate) async fn swept(&self, name: &str, live: i64) {
        let index = self.index();
        index.mark_sweep(document(name), r(live), false).await.unwrap();
    }

    pub(crate) async fn plant(&self, name: &str, offset: i64, ordinals: std::ops::Range<i32>, staged: bool) {
        let point = |ordinal| ChunkPoint {
            ordinal,
            vector: vec![1.0, 0.0],
            text: "planted".into(),
            section: Vec::new(),
            start_byte: 0,
            end_byte: 1,
        };
        let points = RevisionPoints {
            document: document(name),
            revision: r(offset),
            staged,
            points: ordinals.map(point).collect(),
        };
        self.index().write(points).await.unwrap();
    }

    pub(crate) async fn plant_head(&self, name: &str, offset: i64) {
        let head = Head {
            live: r(offset),
            previous: None,
            deleted: false,
            sweep: false,
            chunk_count: 1,
            part: 0,
            moved_at_ms: 1,
        };
        self.index().move_head(document(name), head).await.unwrap();
    }

    /// Head and points lost, but for the first one.
    pub(crate) async fn lose(&self, name: &str, offset: i64) {
        self.index().delete_head(document(name), r(offset)).await.unwrap();
        self.index().delete_chunks(document(name), r(offset), 1).await.unwrap();
    }

    /// The head back at an older revision.
    pub(crate) async fn head_back(&self, name: &str, from: i64, to: i64) {
        self.index().delete_head(document(name), r(from)).await.unwrap();
        self.plant_head(name, to).await;
    }

    pub(crate) async fn audit(&self, repair: bool) -> (Vec<(String, Kind, Outcome)>, Summary) {
        let scope = Scope::default();
        let events: Vec<_> = self.auditor.order(Order { scope, repair }).unwrap().collect().await;
        let (mut findings, mut summary) = (Vec::new(), None);
        for event in events {
            match event.unwrap() {
                Event::Progress(_) => {}
                Event::Finding(of, finding, outcome) => {
                    findings.push((of.document_id.as_str().to_owned(), finding.kind, outcome));
                }
                Event::Summary(told) => summary = Some(told),
            }
        }
        (findings, summary.unwrap())
    }

    pub(crate) async fn found(&self) -> Vec<(String, Kind)> {
        let (findings, summary) = self.audit(false).await;
        assert_eq!((summary.found, summary.repaired), (findings.len(), 0));
        assert!(findings.iter().all(|(.., outcome)| *outcome == Outcome::Found));
        findings.into_iter().map(|(of, kind, _)| (of, kind)).collect()
    }

    /// Finds just this, heals it, and finds nothing after it.
    pub(crate) async fn found_and_healed(&self, expected: &[(&str, Kind)]) {
        let expected: Vec<_> = expected.iter().map(|(of, kind)| ((*of).to_owned(), *kind)).collect();
        assert_eq!(self.found().await, expected);
        let (findings, summary) = self.audit(true).await;
        let repaired = |(of, kind): &(String, Kind)| (of.clone(), *kind, Outcome::Repaired);
        for one in &expected {
            assert!(findings.contains(&repaired(one)), "{findings:?}");
        }
        assert_eq!(
            (summary.found, summary.repaired),
            (findings.len(), findings.len()),
            "{findings:?}"
        );
        assert_eq!(self.found().await, []);
    }

    pub(crate) async fn shown(&self, name: &str) -> (Option<Revision>, u64) {
        let mut heads = self.index().heads(vec![document(name)]).await.unwrap();
        let live = heads
            .remove(&document(name))
            .filter(|head| !head.deleted)
            .map(|head| head.live);
        match live {
            Some(live) => (Some(live), self.index().count(document(name), live).await.unwrap()),
            None => (None, 0),
        }
    }
}
