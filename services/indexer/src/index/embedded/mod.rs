//! The engine inside the process: a Qdrant shard (same segments, HNSW, payload indexes and filters as the server).
//!
//! Exactly one process per folder. Its calls block: one thread writes, in order ([`writer`]), and a bounded number of blocking
//! threads read. Writes are in the log before they answer, which survives a killed process; [`flush`](VectorIndex::flush)
//! survives the machine, and flushes share one.
//!
//! The engine never optimises by itself: a thread of its own does, whenever enough points have changed.

mod errors;
mod filter;
mod optimize;
pub mod payload;
mod scan;
mod writer;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use millrace_events::{DocumentKey, Model, Revision};
use qdrant_edge::external::serde_json as edge_json;
use qdrant_edge::{
    BoolIndexParamsBuilder, ConditionalInsertOperation, CountRequest, CreateIndex, Distance, EdgeConfig,
    EdgeOptimizersConfig, EdgeShard, EdgeVectorParams, FieldIndexOperations, IntegerIndexParamsBuilder,
    KeywordIndexParamsBuilder, NamedQuery, OperationError, PayloadFieldSchema, PayloadOps, PayloadSchemaParams,
    PointInsertOperations, PointOperations, QueryEnum, QueryRequest, RetrieveRequest, ScoringQuery, ScrollRequest,
    SetPayloadOp, UpdateOperation, VectorInternal, WithPayloadInterface,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::errors::from_engine;
use self::optimize::Optimizer;
use self::payload::{VECTOR, field};
use self::writer::Writer;
use super::{Answer, Found, Head, IndexError, OpenIndex, Page, Query, RevisionPoints, Scope, VectorIndex};

/// Settings of the embedded engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// Optimise after this many changed points.
    pub optimize_after_points: u64,
    /// Vectors of a segment, in KiB, from which it gets a graph instead of being read through; none: the engine's own.
    pub indexing_threshold_kib: Option<usize>,
    /// Searches and reads at the same time; more wait.
    pub concurrent_reads: usize,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            optimize_after_points: 20_000,
            indexing_threshold_kib: None,
            concurrent_reads: 16,
        }
    }
}

/// Opens embedded collections.
#[derive(Debug, Clone, Default)]
pub struct OpenEmbedded(pub EmbeddedConfig);

impl OpenIndex for OpenEmbedded {
    fn open(&self, folder: &Path, model: &Model) -> Result<Arc<dyn VectorIndex>, IndexError> {
        let index = EmbeddedIndex::open(folder, model, &self.0)?;
        Ok(Arc::new(index))
    }
}

/// One collection in this process.
#[derive(Debug)]
pub struct EmbeddedIndex {
    shard: Arc<EdgeShard>,
    writer: Writer,
    readers: Arc<Semaphore>,
    optimizer: Optimizer,
}

impl EmbeddedIndex {
    /// Opens the collection, creating it if the folder has none. Blocks; replays what a killed process left.
    pub fn open(folder: &Path, model: &Model, config: &EmbeddedConfig) -> Result<Self, IndexError> {
        let failed = from_engine("open its folder");
        let dimensions = usize::try_from(model.dimensions).unwrap_or(0);
        let settings = EdgeConfig::builder()
            .vector(VECTOR, EdgeVectorParams::builder(dimensions, Distance::Cosine).build())
            .optimizers(EdgeOptimizersConfig {
                indexing_threshold: config.indexing_threshold_kib,
                ..EdgeOptimizersConfig::default()
            })
            .build();
        let shard = if folder.join("edge_config.json").exists() {
            EdgeShard::load(folder, Some(settings))
        } else {
            EdgeShard::new(folder, settings)
        };
        let shard = Arc::new(shard.map_err(&failed)?);
        create_payload_indexes(&shard).map_err(&failed)?;
        let points = shard.info().map_err(&failed)?.points_count as u64;
        Ok(Self {
            writer: Writer::start(shard.clone())?,
            readers: Arc::new(Semaphore::new(config.concurrent_reads.max(1))),
            optimizer: Optimizer::start(&shard, config.optimize_after_points, points)?,
            shard,
        })
    }

    /// Points that searches find through a graph; the others are read through. Blocks.
    pub fn indexed_points(&self) -> Result<u64, IndexError> {
        let info = self.shard.info().map_err(from_engine("count its indexed points"))?;
        Ok(info.indexed_vectors_count as u64)
    }

    /// Runs what reads on a blocking thread. A caller that goes away leaves it to its end.
    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&EdgeShard) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let stopped = |e: &dyn std::error::Error| IndexError::Unavailable {
            operation,
            message: format!("its thread stopped: {e}"),
        };
        let permit = Arc::clone(&self.readers).acquire_owned().await;
        let permit = permit.map_err(|e| stopped(&e))?;
        let shard = Arc::clone(&self.shard);
        let work = move || {
            let _permit = permit;
            call(&shard)
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| stopped(&e))?
    }

    async fn update(
        &self,
        operation: &'static str,
        changed: u64,
        update: impl FnOnce() -> Result<UpdateOperation, IndexError> + Send,
    ) -> Result<(), IndexError> {
        self.writer.update(operation, update()?).await?;
        self.optimizer.changed(changed);
        Ok(())
    }
}

/// Without them an exact count or a delete by filter reads every payload. Creating one again changes nothing.
fn create_payload_indexes(shard: &EdgeShard) -> Result<(), OperationError> {
    let keyword = |tenant| {
        let params = KeywordIndexParamsBuilder::new().is_tenant(tenant).enable_hnsw(tenant);
        PayloadSchemaParams::Keyword(params.build())
    };
    let flag = || PayloadSchemaParams::Bool(BoolIndexParamsBuilder::new().enable_hnsw(false).build());
    let integer = IntegerIndexParamsBuilder::new().lookup(true).range(true);
    let fields = [
        (field::TENANT, keyword(true)),
        (field::DOCUMENT, keyword(false)),
        (
            field::REVISION,
            PayloadSchemaParams::Integer(integer.enable_hnsw(false).build()),
        ),
        (field::STAGED, flag()),
        (field::SWEEP, flag()),
        (field::DELETED, flag()),
    ];
    let existing = shard.info()?.payload_schema;
    for (name, params) in fields {
        let field_name: qdrant_edge::JsonPath = match name.parse() {
            Ok(path) => path,
            Err(()) => return Err(OperationError::service_error(format!("{name} is not a payload path"))),
        };
        if existing.contains_key(&field_name) {
            continue;
        }
        shard.update(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(
            CreateIndex {
                field_name,
                field_schema: Some(PayloadFieldSchema::FieldParams(params)),
            },
        )))?;
    }
    Ok(())
}

fn delete(filter: qdrant_edge::Filter) -> UpdateOperation {
    UpdateOperation::PointOperation(PointOperations::DeletePointsByFilter(filter))
}

fn set_payload(payload: qdrant_edge::Payload, filter: qdrant_edge::Filter) -> UpdateOperation {
    UpdateOperation::PayloadOperation(PayloadOps::SetPayload(SetPayloadOp {
        payload,
        points: None,
        filter: Some(filter),
        key: None,
    }))
}

impl VectorIndex for EmbeddedIndex {
    fn write(&self, points: RevisionPoints) -> Answer<'_, ()> {
        const OPERATION: &str = "write points";
        let count = points.points.len() as u64;
        if count == 0 {
            return futures::future::ready(Ok(())).boxed();
        }
        let update = move || {
            let points = PointInsertOperations::PointsList(payload::chunks(points));
            Ok(UpdateOperation::PointOperation(PointOperations::UpsertPoints(points)))
        };
        self.update(OPERATION, count, update).boxed()
    }

    fn count(&self, document: DocumentKey, revision: Revision) -> Answer<'_, u64> {
        const OPERATION: &str = "count points";
        let call = move |shard: &EdgeShard| {
            let filter = Some(filter::revision(OPERATION, &document, revision)?);
            let count = shard.count(CountRequest { filter, exact: true });
            Ok(count.map_err(from_engine(OPERATION))? as u64)
        };
        self.read(OPERATION, call).boxed()
    }

    fn unstage(&self, document: DocumentKey, revision: Revision) -> Answer<'_, ()> {
        const OPERATION: &str = "clear the staged mark";
        let update = move || {
            let filter = filter::revision(OPERATION, &document, revision)?;
            Ok(set_payload(payload::one(field::STAGED, false), filter))
        };
        self.update(OPERATION, 0, update).boxed()
    }

    fn move_head(&self, document: DocumentKey, head: Head) -> Answer<'_, ()> {
        const OPERATION: &str = "move a head";
        let update = move || {
            let conditional = ConditionalInsertOperation {
                points_op: PointInsertOperations::PointsList(vec![payload::head(&document, &head)]),
                condition: filter::head_below(OPERATION, &document, head.live)?,
                update_mode: None,
            };
            let operation = PointOperations::UpsertPointsConditional(conditional);
            Ok(UpdateOperation::PointOperation(operation))
        };
        self.update(OPERATION, 1, update).boxed()
    }

    fn heads(&self, documents: Vec<DocumentKey>) -> Answer<'_, HashMap<DocumentKey, Head>> {
        const OPERATION: &str = "read heads";
        if documents.is_empty() {
            return futures::future::ready(Ok(HashMap::new())).boxed();
        }
        let call = move |shard: &EdgeShard| {
            let mut request = RetrieveRequest::new(payload::head_ids(&documents));
            request.with_payload = Some(WithPayloadInterface::Bool(true));
            let records = shard.retrieve(request).map_err(from_engine(OPERATION))?;
            let read = records.iter().map(|r| payload::read_head(&r.id, r.payload.as_ref()));
            read.collect()
        };
        self.read(OPERATION, call).boxed()
    }

    fn delete_below(&self, document: DocumentKey, revision: Revision) -> Answer<'_, ()> {
        const OPERATION: &str = "delete older revisions";
        let update = move || Ok(delete(filter::below(OPERATION, &document, revision)?));
        self.update(OPERATION, 1, update).boxed()
    }

    fn to_sweep(&self, limit: usize) -> Answer<'_, Vec<(DocumentKey, Revision)>> {
        const OPERATION: &str = "list heads to sweep";
        let call = move |shard: &EdgeShard| {
            let mut request = ScrollRequest::new();
            request.limit = Some(limit);
            request.filter = Some(filter::to_sweep(OPERATION)?);
            request.with_payload = Some(WithPayloadInterface::Bool(true));
            let (records, _) = shard.scroll(request).map_err(from_engine(OPERATION))?;
            let read = |r: &qdrant_edge::Record| {
                let (document, head) = payload::read_head(&r.id, r.payload.as_ref())?;
                Ok((document, head.live))
            };
            records.iter().map(read).collect()
        };
        self.read(OPERATION, call).boxed()
    }

    fn mark_sweep(&self, document: DocumentKey, live: Revision, sweep: bool) -> Answer<'_, ()> {
        const OPERATION: &str = "mark a head";
        let update = move || {
            let filter = filter::head_at(OPERATION, &document, live)?;
            Ok(set_payload(payload::one(field::SWEEP, sweep), filter))
        };
        self.update(OPERATION, 0, update).boxed()
    }

    fn forget_deleted(&self, before_ms: i64) -> Answer<'_, ()> {
        const OPERATION: &str = "forget deleted documents";
        let update = move || Ok(delete(filter::deleted_before(OPERATION, before_ms)?));
        self.update(OPERATION, 0, update).boxed()
    }

    fn delete_chunks(&self, document: DocumentKey, revision: Revision, from_ordinal: i32) -> Answer<'_, ()> {
        const OPERATION: &str = "delete chunks of a revision";
        let update = move || {
            let filter = filter::from_ordinal(OPERATION, &document, revision, from_ordinal)?;
            Ok(delete(filter))
        };
        self.update(OPERATION, 1, update).boxed()
    }

    fn delete_head(&self, document: DocumentKey, live: Revision) -> Answer<'_, ()> {
        const OPERATION: &str = "delete a head";
        let update = move || Ok(delete(filter::head_at(OPERATION, &document, live)?));
        self.update(OPERATION, 1, update).boxed()
    }

    fn scan(&self, scope: Scope, from: Option<Uuid>, limit: usize) -> Answer<'_, Page> {
        let call = move |shard: &EdgeShard| scan::page(shard, &scope, from, limit);
        self.read(scan::OPERATION, call).boxed()
    }

    fn search(&self, query: Query) -> Answer<'_, Vec<Found>> {
        const OPERATION: &str = "search";
        let call = move |shard: &EdgeShard| {
            let mut request = QueryRequest::new(query.limit);
            request.filter = Some(filter::search(&query.filter)?);
            request.query = Some(ScoringQuery::Vector(QueryEnum::Nearest(NamedQuery {
                query: VectorInternal::Dense(query.vector),
                using: Some(VECTOR.to_owned()),
            })));
            // The engine leaves out what equals its threshold.
            request.score_threshold = query.min_score.map(f32::next_down);
            request.with_payload = WithPayloadInterface::Bool(true);
            let points = shard.query(request).map_err(from_engine(OPERATION))?;
            let read = points
                .iter()
                .map(|p| payload::read_chunk(&p.id, p.score, p.payload.as_ref()));
            read.collect()
        };
        self.read(OPERATION, call).boxed()
    }

    fn flush(&self) -> Answer<'_, ()> {
        self.writer.flush().boxed()
    }
}

// The engine's JSON is ours: a payload is handed over without a copy.
const _: fn(serde_json::Value) -> edge_json::Value = |value| value;
