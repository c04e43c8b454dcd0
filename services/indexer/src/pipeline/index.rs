//! The index stage: parts of embedded revisions into the index; events and status out.
//!
//! | published as | `vectors.indexed` | `documents.status` |
//! |---|---|---|
//! | live | LIVE | INDEXED |
//! | deleted | DELETED | DELETED |
//! | superseded | | SUPERSEDED |
//! | nothing | | |
//!
//! | of a record that an audit has sent again | |
//! |---|---|
//! | any part | the index is restored from it, nothing is announced: the log has it already |
//! | one that cannot be brought into the index | left, and the log says why: the audit finds that nothing was healed; to give it up would turn a live revision into a failed one |
//! | one that is given up all the same: unreadable, a panic | a dead letter, and no status |
//!
//! A part whose model is not the one served stops the stage ([`Failure::Config`]): every other record of that embedder
//! would meet the same, and waiting loses nothing.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_events::{
    ChunksEmbedded, DocumentStatus, EmbeddedChunk, Epoch, IndexEvent, Kind, State, VectorsIndexed, headers, topics,
    vector_from_bytes,
};
use millrace_flow::{Delivery, Failure, Headers, Output, Outputs};
use millrace_runtime::clock::now_ms;
use millrace_runtime::codec::{self, Codec};
use millrace_telemetry::metrics;
use tower::Service;

use crate::index::generation::{GenerationError, Generations, Serving};
use crate::index::{ChunkPoint, IndexError};
use crate::publish::{Content, Part, PublishError, Published, Publisher};

/// Name of the stage in status records and in GetPipeline.
pub const STAGE: &str = "index";

/// What a part becomes in the log.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Announcement {
    /// For `vectors.indexed`.
    pub event: Option<VectorsIndexed>,
    /// For `documents.status`.
    pub status: Option<DocumentStatus>,
}

/// Publishes one record. All of the stage but reading and writing bytes. What it announces has the time at which a search could
/// first see it.
pub async fn index(
    generations: &Generations,
    record: ChunksEmbedded,
    now_ms: impl Fn() -> i64,
) -> Result<Announcement, Failure> {
    let serving = generations.for_model(&record.model).await.map_err(generation_failure)?;
    let part = part(&record)?;
    part.check(serving.model.dimensions).map_err(publish_failure)?;
    let publisher = Publisher::new(serving.index.clone());
    let published = publisher.publish(part, now_ms()).await.map_err(publish_failure)?;
    Ok(announce(&record, &serving, published, now_ms()))
}

/// Restores the index from one record that an audit has sent again.
pub async fn restore(generations: &Generations, record: ChunksEmbedded, now_ms: i64) -> Result<(), Failure> {
    let restoring = async {
        let serving = generations.for_model(&record.model).await.map_err(generation_failure)?;
        let part = part(&record)?;
        part.check(serving.model.dimensions).map_err(publish_failure)?;
        let publisher = Publisher::new(serving.index.clone());
        publisher.restore(part, now_ms).await.map_err(publish_failure)
    };
    match restoring.await {
        Err(failure @ (Failure::Invalid { .. } | Failure::Failed { .. } | Failure::Config { .. })) => {
            tracing::warn!(
                error = %failure, part = record.part, revision = record.revision,
                "a part that was sent again cannot restore the index"
            );
            Ok(())
        }
        restored => restored,
    }
}

fn part(record: &ChunksEmbedded) -> Result<Part, Failure> {
    let invalid = |message: String| Failure::Invalid {
        reason: "INVALID_PART",
        message,
    };
    let content = match record.kind {
        Kind::Delete if record.chunks.is_empty() && record.chunk_count == 0 => Content::Delete,
        Kind::Delete => return Err(invalid("a delete carries no chunks, this one does".into())),
        Kind::Upsert => Content::Chunks {
            chunk_count: u32::try_from(record.chunk_count)
                .map_err(|_| invalid(format!("chunk_count is {}", record.chunk_count)))?,
            points: record
                .chunks
                .iter()
                .map(|chunk| point(chunk, record.model.dimensions))
                .collect::<Result<_, _>>()?,
        },
        Kind::Unknown => {
            return Err(invalid(
                "kind is not one that this version knows: upgrade the indexer first".into(),
            ));
        }
    };
    Ok(Part {
        document: record.document().map_err(|e| invalid(e.to_string()))?,
        revision: record.checked_revision().map_err(|e| invalid(e.to_string()))?,
        part: record.part,
        parts: record.parts,
        content,
    })
}

fn point(chunk: &EmbeddedChunk, dimensions: i32) -> Result<ChunkPoint, Failure> {
    let vector = vector_from_bytes(&chunk.vector, dimensions).map_err(|e| Failure::Invalid {
        reason: "INVALID_VECTOR",
        message: format!("chunk {}: {e}", chunk.ordinal),
    })?;
    Ok(ChunkPoint {
        ordinal: chunk.ordinal,
        vector,
        text: chunk.text.clone(),
        section: chunk.section.clone(),
        start_byte: chunk.start_byte,
        end_byte: chunk.end_byte,
    })
}

fn announce(record: &ChunksEmbedded, serving: &Serving, published: Published, now_ms: i64) -> Announcement {
    let status = |state, chunk_count| DocumentStatus {
        tenant: record.tenant.clone(),
        document_id: record.document_id.clone(),
        revision: record.revision,
        accepted_at_ms: record.accepted_at_ms,
        state,
        chunk_count,
        generation: serving.generation.clone(),
        stage: STAGE.to_owned(),
        updated_at_ms: now_ms,
        ..DocumentStatus::default()
    };
    let event = |event, chunk_count| VectorsIndexed {
        tenant: record.tenant.clone(),
        document_id: record.document_id.clone(),
        revision: record.revision,
        accepted_at_ms: record.accepted_at_ms,
        event,
        chunk_count,
        generation: serving.generation.clone(),
        model: serving.model.clone(),
        indexed_at_ms: now_ms,
    };
    match published {
        Published::Live { .. } => Announcement {
            event: Some(event(IndexEvent::Live, record.chunk_count)),
            status: Some(status(State::Indexed, record.chunk_count)),
        },
        Published::Deleted => Announcement {
            event: Some(event(IndexEvent::Deleted, 0)),
            status: Some(status(State::Deleted, 0)),
        },
        Published::Superseded { .. } => Announcement {
            event: None,
            status: Some(status(State::Superseded, record.chunk_count)),
        },
        Published::Nothing => Announcement::default(),
    }
}

fn generation_failure(error: GenerationError) -> Failure {
    let message = millrace_rpc::error::chain(&error);
    match error {
        GenerationError::OtherModel { .. } => Failure::Config {
            reason: "OTHER_MODEL",
            message,
        },
        GenerationError::NoModel(_) => Failure::Invalid {
            reason: "NO_MODEL",
            message,
        },
        GenerationError::Taken { .. }
        | GenerationError::Io { .. }
        | GenerationError::Unreadable { .. }
        | GenerationError::Open { .. } => Failure::Transient {
            reason: "INDEX_UNAVAILABLE",
            message,
        },
    }
}

fn publish_failure(error: PublishError) -> Failure {
    let message = millrace_rpc::error::chain(&error);
    match error {
        PublishError::Invalid(_) => Failure::Invalid {
            reason: "INVALID_PART",
            message,
        },
        PublishError::Index(IndexError::Unavailable { .. }) => Failure::Transient {
            reason: "INDEX_UNAVAILABLE",
            message,
        },
        PublishError::Index(IndexError::Refused { .. }) => Failure::Invalid {
            reason: "INDEX_REFUSED",
            message,
        },
        PublishError::Index(IndexError::Unreadable { .. }) | PublishError::HeadLost { .. } => Failure::Failed {
            reason: "INDEX_INCONSISTENT",
            message,
        },
    }
}

/// The stage as the runtime drives it: [`index`] between two codecs.
#[derive(Debug, Clone)]
pub struct IndexStage {
    /// Where the collections are.
    pub generations: Generations,
    /// Reads `chunks.embedded`; writes `vectors.indexed` and `documents.status`.
    pub codec: Codec,
    /// Epoch of the topics.
    pub epoch: Epoch,
}

impl Service<Delivery> for IndexStage {
    type Response = Outputs;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Outputs, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let stage = self.clone();
        async move { stage.process(delivery).await }.boxed()
    }
}

impl IndexStage {
    async fn process(&self, delivery: Delivery) -> Result<Outputs, Failure> {
        let value = delivery.value.as_deref().ok_or_else(|| Failure::Invalid {
            reason: "UNREADABLE_RECORD",
            message: "a record of chunks.embedded has no value".into(),
        })?;
        let record: ChunksEmbedded = self.codec.decode(value).await?;
        if delivery.headers.get_str(headers::RESTORE).is_some() {
            restore(&self.generations, record, now_ms()).await?;
            return Ok(Outputs::default());
        }
        let announcement = index(&self.generations, record, now_ms).await?;
        if let Some(status) = &announcement.status
            && matches!(status.state, State::Indexed | State::Deleted)
        {
            let seconds = (now_ms() - status.accepted_at_ms) as f64 / 1000.0;
            metrics::SEARCHABLE.record(seconds, || []);
        }
        self.outputs(announcement, &delivery)
    }

    fn outputs(&self, announcement: Announcement, delivery: &Delivery) -> Result<Outputs, Failure> {
        let headers = codec::carried_headers(delivery);
        let mut outputs = Vec::with_capacity(2);
        if let Some(event) = announcement.event {
            let document = event.document().map_err(|e| unkeyed(&e))?;
            outputs.push(Output {
                topic: topics::INDEXED.in_epoch(self.epoch),
                partition: None,
                key: Bytes::from(document.to_string()),
                value: Some(self.codec.encode(&event)?),
                headers: headers.clone(),
            });
        }
        if let Some(status) = announcement.status {
            outputs.push(self.status(&status, headers, delivery)?);
        }
        Ok(Outputs(outputs))
    }

    /// On the document's partition, although the key has the revision in it too.
    fn status(&self, status: &DocumentStatus, headers: Headers, delivery: &Delivery) -> Result<Output, Failure> {
        let key = status.key().map_err(|e| unkeyed(&e))?;
        Ok(Output {
            topic: topics::STATUS.in_epoch(self.epoch),
            partition: Some(delivery.origin.partition),
            key: Bytes::from(key.to_string()),
            value: Some(self.codec.encode(status)?),
            headers,
        })
    }
}

fn unkeyed(error: &dyn std::error::Error) -> Failure {
    Failure::Invalid {
        reason: "INVALID_PART",
        message: error.to_string(),
    }
}

#[cfg(feature = "embedded")]
#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
