//! The parse stage: an accepted command becomes the parts of its revision and a PARSED status.
//!
//! | command | outputs |
//! |---|---|
//! | upsert | parts with chunks, PARSED |
//! | upsert of nothing but white space | one part without chunks, PARSED with count 0 |
//! | delete | one part of kind DELETE without chunks, PARSED with count 0 |
//! | request id that had its effect within 24 hours | DUPLICATE_OF, no part |
//! | of a document in another lane than it asks for ([`super::lanes`]) | `Invalid` |
//! | unreadable, of an unknown kind, under another document's key, not text | `Invalid` |

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use millrace_events::headers::{LANE, REVISION};
use millrace_events::{
    DocumentKey, DocumentParsed, DocumentStatus, DocumentSubmitted, Kind, OffsetsIn, Revision, State, TextChunk, topics,
};
use millrace_flow::{Delivery, Failure, Headers, Output, Outputs};
use millrace_runtime::clock::now_ms;
use millrace_runtime::codec::carried_headers;
use tokio::sync::Semaphore;

use super::chunk::Chunker;
use super::lanes::{Asked, LaneConfig, Lanes};
use super::media::MediaType;
use super::parts::parts;
use super::repeats::{Repeats, Request};
use crate::EPOCH;
use crate::codec::RecordCodec;
use crate::log::LogEnds;

/// Name of the stage in statuses and in GetPipeline.
pub const STAGE: &str = "parse";

/// The stage. Cheap to clone.
#[derive(Debug)]
pub struct Parse<C, E>(Arc<Inner<C, E>>);

#[derive(Debug)]
struct Inner<C, E> {
    codec: C,
    chunker: Arc<Chunker>,
    repeats: Arc<Repeats<E>>,
    lanes: Lanes<E>,
    /// As many documents are cut at once as there are processors: the others wait without a thread.
    processors: Arc<Semaphore>,
}

impl<C, E> Clone for Parse<C, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: RecordCodec, E: LogEnds> Parse<C, E> {
    /// Puts the stage together.
    pub fn new(codec: C, chunker: Chunker, repeats: Arc<Repeats<E>>, lanes: LaneConfig) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Inner {
            codec,
            chunker: Arc::new(chunker),
            lanes: Lanes::new(lanes, repeats.clone()),
            repeats,
            processors: Arc::new(Semaphore::new(processors)),
        }))
    }
}

impl<C: RecordCodec, E: LogEnds> tower::Service<Delivery> for Parse<C, E> {
    type Response = Outputs;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Outputs, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.parse(&delivery).await })
    }
}

/// A command that was read and checked.
struct Command {
    record: DocumentSubmitted,
    document: DocumentKey,
    revision: Revision,
    partition: i32,
    headers: Headers,
}

impl Command {
    fn asked(&self) -> Asked<'_> {
        Asked {
            document: &self.document,
            revision: self.revision,
            kind: self.record.kind,
            lane: &self.record.lane,
            partition: self.partition,
        }
    }

    fn request(&self) -> Option<Request<'_>> {
        Some(Request {
            document: &self.document,
            // Nothing but our own acceptance writes this field: what is no UUID is no request id.
            id: self.record.request_id.parse().ok()?,
            revision: self.revision,
            accepted_at_ms: self.record.accepted_at_ms,
            partition: self.partition,
        })
    }
}

impl<C: RecordCodec, E: LogEnds> Inner<C, E> {
    async fn parse(&self, delivery: &Delivery) -> Result<Outputs, Failure> {
        let mut command = self.read(delivery).await?;
        if let Some(request) = command.request()
            && let Some(first) = self.repeats.first(request).await?
        {
            return Ok(Outputs(vec![self.duplicate(&command, first)?]));
        }
        let lane = self.lanes.of(command.asked()).await?;
        if !lane.is_base() {
            command.headers.push(LANE, lane.as_str().to_owned());
        }
        let whole = DocumentParsed {
            tenant: command.record.tenant.clone(),
            document_id: command.record.document_id.clone(),
            revision: command.revision.get(),
            accepted_at_ms: command.record.accepted_at_ms,
            kind: command.record.kind,
            media_type: command.record.media_type.clone(),
            offsets_in: OffsetsIn::Body,
            ..DocumentParsed::default()
        };
        let chunks = match command.record.kind {
            Kind::Upsert => self.chunks(&mut command.record).await?,
            Kind::Delete => Vec::new(),
            Kind::Unknown => {
                let message = "its kind is of a later version: deploy a build that knows it".to_owned();
                return Err(invalid("KIND_UNKNOWN", message));
            }
        };
        let parts = parts(&whole, chunks);
        let mut outputs = Vec::with_capacity(parts.len() + 1);
        for part in &parts {
            outputs.push(Output {
                topic: topics::PARSED.in_lane(&lane, EPOCH),
                partition: None,
                key: key(&command.document),
                value: Some(self.codec.encode(part)?),
                headers: command.headers.clone(),
            });
        }
        let chunk_count = parts.first().map_or(0, |part| part.chunk_count);
        outputs.push(self.status(&command, State::Parsed, |status| status.chunk_count = chunk_count)?);
        self.lanes.parsed(command.asked(), &lane);
        if let Some(request) = command.request() {
            self.repeats.parsed(request);
        }
        Ok(Outputs(outputs))
    }

    async fn read(&self, delivery: &Delivery) -> Result<Command, Failure> {
        let value = delivery.value.as_deref();
        let value = value.ok_or_else(|| invalid("NO_VALUE", "a command has a value".to_owned()))?;
        let record: DocumentSubmitted = self.codec.decode(value).await?;
        let document = record
            .document()
            .map_err(|error| invalid("IDENTITY_INVALID", error.to_string()))?;
        if delivery.key.as_deref() != Some(document.to_string().as_bytes()) {
            let message = format!("the record of {document} stands under another key");
            return Err(invalid("KEY_MISMATCH", message));
        }
        let revision = match delivery.headers.get_str(REVISION) {
            Some(text) => Revision::from_str(text),
            None => Revision::new(EPOCH, delivery.origin.offset),
        };
        Ok(Command {
            record,
            document,
            revision: revision.map_err(|error| invalid("REVISION_INVALID", error.to_string()))?,
            partition: delivery.origin.partition,
            headers: carried_headers(delivery),
        })
    }

    async fn chunks(&self, record: &mut DocumentSubmitted) -> Result<Vec<TextChunk>, Failure> {
        let Some(body) = record.body.take() else {
            let message = "it has no inline body, and this build fetches no claim checks".to_owned();
            return Err(invalid("BODY_MISSING", message));
        };
        let media: MediaType = record
            .media_type
            .parse()
            .map_err(|e| unusable("UNSUPPORTED_MEDIA_TYPE", &e))?;
        let body = String::from_utf8(body).map_err(|e| unusable("BODY_NOT_UTF8", &e))?;
        let chunker = Arc::clone(&self.chunker);
        // Never closed; without a permit the work is only less bounded.
        let permit = Arc::clone(&self.processors).acquire_owned().await.ok();
        let cut = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let chunks = chunker.chunk(&body, media)?;
            Ok::<_, super::chunk::ChunkError>(
                (0..)
                    .zip(chunks)
                    .map(|(ordinal, c)| text_chunk(&body, ordinal, &c))
                    .collect(),
            )
        });
        // A panic's words may quote the text; they stand in the log.
        let cut = cut.await.map_err(|_| Failure::Failed {
            reason: "PARSE_PANICKED",
            message: "the parser panicked on it; the log of the process says where".to_owned(),
        })?;
        cut.map_err(|error| unusable("CHUNKING_FAILED", &error))
    }

    fn duplicate(&self, command: &Command, first: Revision) -> Result<Output, Failure> {
        self.status(command, State::DuplicateOf, |status| {
            status.duplicate_of_revision = first.get()
        })
    }

    fn status(
        &self,
        command: &Command,
        state: State,
        more: impl FnOnce(&mut DocumentStatus),
    ) -> Result<Output, Failure> {
        let mut status = DocumentStatus {
            tenant: command.record.tenant.clone(),
            document_id: command.record.document_id.clone(),
            revision: command.revision.get(),
            accepted_at_ms: command.record.accepted_at_ms,
            state,
            stage: STAGE.into(),
            request_id: command.record.request_id.clone(),
            updated_at_ms: now_ms(),
            ..DocumentStatus::default()
        };
        more(&mut status);
        let key = status
            .key()
            .map_err(|error| invalid("IDENTITY_INVALID", error.to_string()))?;
        Ok(Output {
            topic: topics::STATUS.in_epoch(EPOCH),
            // The document's partition, which the status key would not find.
            partition: Some(command.partition),
            key: key.to_string().into_bytes().into(),
            value: Some(self.codec.encode(&status)?),
            headers: command.headers.clone(),
        })
    }
}

fn key(document: &DocumentKey) -> Bytes {
    document.to_string().into_bytes().into()
}

fn text_chunk(body: &str, ordinal: i32, chunk: &super::chunk::Chunk) -> TextChunk {
    TextChunk {
        ordinal,
        text: body[chunk.range.clone()].to_owned(),
        start_byte: chunk.range.start as i64,
        end_byte: chunk.range.end as i64,
        section: chunk.section.to_vec(),
        tokens: chunk.tokens as i32,
    }
}

fn invalid(reason: &'static str, message: String) -> Failure {
    Failure::Invalid { reason, message }
}

fn unusable(reason: &'static str, error: &impl Display) -> Failure {
    invalid(reason, error.to_string())
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
