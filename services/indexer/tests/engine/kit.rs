//! A collection in a temporary folder, documents to put into it, and ways to make it fail.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use millrace_events::{DocumentKey, Epoch, Model, Revision, Tenant};
use millrace_indexer::index::embedded::{EmbeddedConfig, EmbeddedIndex};
use millrace_indexer::index::{
    Answer as Op, ChunkPoint, Found, Head, IndexError, Page, Query, RevisionPoints, Scope, VectorIndex,
};
use millrace_indexer::publish::{Content, Part, Published, Publisher};
use millrace_indexer::search::{self, Wanted};
use millrace_indexer::sweep::{SweepConfig, Sweeper};
use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

pub const DIMENSIONS: i32 = 4;
pub const MINUTE: Duration = Duration::from_secs(60);

pub fn model() -> Model {
    Model {
        id: "tiny".into(),
        revision: "0123456789abcdef".into(),
        dimensions: DIMENSIONS,
        dtype: "f32".into(),
        normalized: true,
    }
}

pub fn document(name: &str) -> DocumentKey {
    DocumentKey::new("acme", name).unwrap()
}

pub fn revision(offset: i64) -> Revision {
    Revision::new(Epoch::FIRST, offset).unwrap()
}

/// Chunk `ordinal` of a revision: near the query `[1, 0, 0, 0]`, the nearer the smaller the ordinal.
pub fn chunk(of: Revision, ordinal: i32) -> ChunkPoint {
    ChunkPoint {
        ordinal,
        vector: vec![1.0, 0.01 * (ordinal + 1) as f32, 0.0, 0.1],
        text: format!("r{} c{ordinal}", of.offset()),
        section: vec!["Top".into(), format!("Part {ordinal}")],
        start_byte: i64::from(ordinal) * 10,
        end_byte: i64::from(ordinal) * 10 + 9,
    }
}

/// The parts of a revision with so many chunks in each.
pub fn parts(of: &DocumentKey, revision: Revision, sizes: &[usize]) -> Vec<Part> {
    let chunk_count: usize = sizes.iter().sum();
    let mut next = 0;
    let one = |(part, size): (usize, &usize)| {
        let first = next;
        next += *size as i32;
        Part {
            document: of.clone(),
            revision,
            part: part as i32,
            parts: sizes.len() as i32,
            content: Content::Chunks {
                chunk_count: chunk_count as u32,
                points: (first..next).map(|ordinal| chunk(revision, ordinal)).collect(),
            },
        }
    };
    sizes.iter().enumerate().map(one).collect()
}

pub fn deletion(of: &DocumentKey, revision: Revision) -> Part {
    Part {
        document: of.clone(),
        revision,
        part: 0,
        parts: 1,
        content: Content::Delete,
    }
}

pub struct Bench {
    pub index: Arc<dyn VectorIndex>,
    pub publisher: Publisher,
    pub sweeper: Sweeper,
    pub folder: TempDir,
}

/// In memory where the system has such a place: a flush costs time there too, but less.
pub fn new_folder() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn open(folder: &std::path::Path) -> EmbeddedIndex {
    EmbeddedIndex::open(folder, &model(), &EmbeddedConfig::default()).unwrap()
}

pub fn sweeper(index: Arc<dyn VectorIndex>) -> Sweeper {
    let config = SweepConfig {
        grace: MINUTE,
        heads: 10_000,
        keep_deleted: 45 * 24 * 60 * MINUTE,
    };
    Sweeper::new(index, config)
}

impl Bench {
    pub fn new() -> Self {
        let folder = new_folder();
        Self::with(Arc::new(open(&folder.path().join("shard"))), folder)
    }

    pub fn with(index: Arc<dyn VectorIndex>, folder: TempDir) -> Self {
        Self {
            publisher: Publisher::new(Arc::clone(&index)),
            sweeper: sweeper(Arc::clone(&index)),
            index,
            folder,
        }
    }

    /// The same folder, closed and opened again.
    pub fn reopen(self) -> Self {
        let Self {
            index,
            publisher,
            sweeper,
            folder,
        } = self;
        drop((index, publisher, sweeper));
        let path = folder.path().join("shard");
        let index = open(&path);
        Self::with(Arc::new(index), folder)
    }

    pub async fn publish(&self, part: &Part) -> Published {
        part.check(DIMENSIONS).unwrap();
        self.publisher.publish(part.clone(), 1).await.unwrap()
    }

    pub async fn publish_all(&self, parts: &[Part]) -> Published {
        let mut last = Published::Nothing;
        for part in parts {
            last = self.publish(part).await;
        }
        last
    }

    pub async fn sweep(&self) {
        let due = self.sweeper.due().await.unwrap();
        self.sweeper.sweep(due).await.unwrap();
    }

    pub async fn search(&self, k: usize) -> search::Answer {
        search_in(&*self.index, k, &[]).await
    }

    /// What a search for everything sees of a document: revision → texts.
    pub async fn seen(&self, of: &DocumentKey) -> BTreeMap<i64, Vec<String>> {
        let answer = search_in(&*self.index, 1000, std::slice::from_ref(of)).await;
        assert!(!answer.partial);
        by_revision(&answer.hits)
    }

    pub async fn points(&self, of: &DocumentKey, revision: Revision) -> u64 {
        self.index.count(of.clone(), revision).await.unwrap()
    }

    pub async fn head(&self, of: &DocumentKey) -> Option<Head> {
        self.index.heads(vec![of.clone()]).await.unwrap().remove(of)
    }
}

pub fn wanted(k: usize, documents: &[DocumentKey]) -> Wanted {
    Wanted {
        tenant: Tenant::new("acme").unwrap(),
        vector: vec![1.0, 0.0, 0.0, 0.1],
        k,
        min_score: None,
        documents: documents.to_vec(),
    }
}

pub async fn search_in(index: &dyn VectorIndex, k: usize, documents: &[DocumentKey]) -> search::Answer {
    search::search(index, wanted(k, documents), Instant::now() + MINUTE)
        .await
        .unwrap()
}

pub fn by_revision(hits: &[Found]) -> BTreeMap<i64, Vec<String>> {
    let mut seen: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for hit in hits {
        seen.entry(hit.revision.offset()).or_default().push(hit.text.clone());
    }
    for texts in seen.values_mut() {
        texts.sort_unstable();
    }
    seen
}

/// What all of a revision looks like to [`Bench::seen`].
pub fn whole(offset: i64, chunks: i32) -> BTreeMap<i64, Vec<String>> {
    let mut texts: Vec<String> = (0..chunks).map(|c| format!("r{offset} c{c}")).collect();
    texts.sort_unstable();
    BTreeMap::from([(offset, texts)])
}

/// Something that happens between a query and the reading of heads.
pub type Meanwhile = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An engine whose writes fail once a budget is spent, as a process that dies does: what was written before stays.
/// And one in which something happens right after a query.
pub struct Dying {
    pub inner: Arc<dyn VectorIndex>,
    /// Writes and flushes left.
    pub budget: AtomicI64,
    /// One for each query to come.
    pub after_queries: Mutex<VecDeque<Meanwhile>>,
}

impl Dying {
    pub fn new(inner: Arc<dyn VectorIndex>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            budget: AtomicI64::new(i64::MAX),
            after_queries: Mutex::default(),
        })
    }
    fn spend(&self) -> Option<Op<'_, ()>> {
        if self.budget.fetch_sub(1, Ordering::SeqCst) > 0 {
            return None;
        }
        let dead = IndexError::Unavailable {
            operation: "write",
            message: "killed".into(),
        };
        Some(futures::future::ready(Err(dead)).boxed())
    }
}

impl VectorIndex for Dying {
    fn write(&self, points: RevisionPoints) -> Op<'_, ()> {
        self.spend().unwrap_or_else(|| self.inner.write(points))
    }
    fn count(&self, document: DocumentKey, revision: Revision) -> Op<'_, u64> {
        self.inner.count(document, revision)
    }
    fn unstage(&self, document: DocumentKey, revision: Revision) -> Op<'_, ()> {
        self.spend().unwrap_or_else(|| self.inner.unstage(document, revision))
    }
    fn move_head(&self, document: DocumentKey, head: Head) -> Op<'_, ()> {
        self.spend().unwrap_or_else(|| self.inner.move_head(document, head))
    }
    fn heads(&self, documents: Vec<DocumentKey>) -> Op<'_, HashMap<DocumentKey, Head>> {
        self.inner.heads(documents)
    }
    fn delete_below(&self, document: DocumentKey, revision: Revision) -> Op<'_, ()> {
        self.spend()
            .unwrap_or_else(|| self.inner.delete_below(document, revision))
    }
    fn to_sweep(&self, limit: usize) -> Op<'_, Vec<(DocumentKey, Revision)>> {
        self.inner.to_sweep(limit)
    }
    fn mark_sweep(&self, document: DocumentKey, live: Revision, sweep: bool) -> Op<'_, ()> {
        self.spend()
            .unwrap_or_else(|| self.inner.mark_sweep(document, live, sweep))
    }
    fn forget_deleted(&self, before_ms: i64) -> Op<'_, ()> {
        self.inner.forget_deleted(before_ms)
    }
    fn delete_chunks(&self, document: DocumentKey, revision: Revision, from_ordinal: i32) -> Op<'_, ()> {
        self.spend()
            .unwrap_or_else(|| self.inner.delete_chunks(document, revision, from_ordinal))
    }
    fn delete_head(&self, document: DocumentKey, live: Revision) -> Op<'_, ()> {
        self.spend().unwrap_or_else(|| self.inner.delete_head(document, live))
    }
    fn scan(&self, scope: Scope, from: Option<Uuid>, limit: usize) -> Op<'_, Page> {
        self.inner.scan(scope, from, limit)
    }
    fn search(&self, query: Query) -> Op<'_, Vec<Found>> {
        let meanwhile = self.after_queries.lock().unwrap().pop_front();
        async move {
            let found = self.inner.search(query).await;
            if let Some(meanwhile) = meanwhile {
                meanwhile.await;
            }
            found
        }
        .boxed()
    }
    fn flush(&self) -> Op<'_, ()> {
        self.spend().unwrap_or_else(|| self.inner.flush())
    }
}
