//! The records, one type per topic. Field meanings stand in the schemas (`schemas/<topic>/v1.avsc`).
//!
//! Readers fill what an older writer did not know with defaults and skip what a newer one added. Times are
//! milliseconds since 1970 UTC, revisions are [`crate::Revision`] as numbers, vectors little-endian f32.
//!
//! With the feature `next` these are the records of the version after this one: in each topic one field dropped, and in its
//! schema (`next/`) another one added. Only the test of independent deployment is built so.

use apache_avro::Schema;
use serde::{Deserialize, Serialize};

use crate::topics::{self, Topic};
use crate::wire::{self, SchemaId, WireError};
use crate::{DocumentKey, IdError, LetterKey, Revision, StatusKey};

/// A record type and the topic whose schema it follows.
pub trait Record: Serialize + serde::de::DeserializeOwned + Send + 'static {
    /// The topic; its schema is the one this type is written with.
    const TOPIC: Topic;
}

/// What a command does to its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum Kind {
    Upsert,
    Delete,
    // Last, because serde wants it so; the encoder writes symbols by name.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Which text the byte offsets of chunks count in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum OffsetsIn {
    Body,
    Extracted,
    // Last, because serde wants it so; the encoder writes symbols by name.
    #[default]
    #[serde(other)]
    Unknown,
}

/// State of a revision. ACCEPTED is not written: a revision in the log without a status is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum State {
    Parsed,
    Indexed,
    Deleted,
    Failed,
    Superseded,
    DuplicateOf,
    // Last, because serde wants it so; the encoder writes symbols by name.
    #[default]
    #[serde(other)]
    Unknown,
}

/// What happened in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum IndexEvent {
    Live,
    Deleted,
    // Last, because serde wants it so; the encoder writes symbols by name.
    #[default]
    #[serde(other)]
    Unknown,
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum LetterState {
    Open,
    Redriven,
    Discarded,
    // Last, because serde wants it so; the encoder writes symbols by name.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The model that computed a vector.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Model {
    pub id: String,
    pub revision: String,
    pub dimensions: i32,
    pub dtype: String,
    pub normalized: bool,
}

impl Model {
    /// Name of the model's index: `<id>-<dtype>-<dimensions>-<first 8 of the sha256>`.
    pub fn generation(&self) -> String {
        let short = self.revision.get(..8).unwrap_or(&self.revision);
        format!("{}-{}-{}-{short}", self.id, self.dtype, self.dimensions)
    }
}

/// Where a body too large for the log is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ClaimCheck {
    pub uri: String,
    pub sha256: String,
    pub size_bytes: i64,
}

/// `documents.submitted`: an accepted command. Its own offset is the revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct DocumentSubmitted {
    pub tenant: String,
    pub document_id: String,
    pub accepted_at_ms: i64,
    pub kind: Kind,
    pub media_type: String,
    #[serde(with = "serde_bytes")]
    pub body: Option<Vec<u8>>,
    pub claim: Option<ClaimCheck>,
    #[cfg_attr(feature = "next", serde(skip))]
    pub lane: String,
    pub request_id: String,
}

/// A chunk of text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct TextChunk {
    pub ordinal: i32,
    pub text: String,
    pub start_byte: i64,
    pub end_byte: i64,
    pub section: Vec<String>,
    pub tokens: i32,
}

/// `documents.parsed`: one part of a parsed revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct DocumentParsed {
    pub tenant: String,
    pub document_id: String,
    pub revision: i64,
    pub accepted_at_ms: i64,
    pub kind: Kind,
    pub part: i32,
    pub parts: i32,
    pub chunk_count: i32,
    #[cfg_attr(feature = "next", serde(skip))]
    pub media_type: String,
    pub offsets_in: OffsetsIn,
    pub chunks: Vec<TextChunk>,
}

/// A chunk with its vector.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct EmbeddedChunk {
    pub ordinal: i32,
    pub text: String,
    pub start_byte: i64,
    pub end_byte: i64,
    pub section: Vec<String>,
    #[cfg_attr(feature = "next", serde(skip))]
    pub tokens: i32,
    /// Little-endian f32, 4 × dimensions bytes: [`vector_to_bytes`], [`vector_from_bytes`].
    #[serde(with = "serde_bytes")]
    pub vector: Vec<u8>,
}

/// `chunks.embedded`: one part of a revision, embedded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ChunksEmbedded {
    pub tenant: String,
    pub document_id: String,
    pub revision: i64,
    pub accepted_at_ms: i64,
    pub kind: Kind,
    pub part: i32,
    pub parts: i32,
    pub chunk_count: i32,
    pub offsets_in: OffsetsIn,
    pub model: Model,
    pub chunks: Vec<EmbeddedChunk>,
}

/// `vectors.indexed`: a revision became live, or a document was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct VectorsIndexed {
    pub tenant: String,
    pub document_id: String,
    pub revision: i64,
    pub accepted_at_ms: i64,
    pub event: IndexEvent,
    pub chunk_count: i32,
    pub generation: String,
    pub model: Model,
    #[cfg_attr(feature = "next", serde(skip))]
    pub indexed_at_ms: i64,
}

/// `documents.status`: the state of one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct DocumentStatus {
    pub tenant: String,
    pub document_id: String,
    pub revision: i64,
    pub accepted_at_ms: i64,
    pub state: State,
    pub chunk_count: i32,
    pub generation: String,
    pub stage: String,
    pub reason: String,
    pub message: String,
    pub duplicate_of_revision: i64,
    pub request_id: String,
    #[cfg_attr(feature = "next", serde(skip))]
    pub updated_at_ms: i64,
}

/// `documents.failed`: the state of one dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct DeadLetter {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub tenant: String,
    pub document_id: String,
    pub revision: i64,
    pub accepted_at_ms: i64,
    pub state: LetterState,
    pub redrives: i32,
    pub stage: String,
    pub reason: String,
    pub message: String,
    pub attempts: i32,
    pub failed_at_ms: i64,
    #[cfg_attr(feature = "next", serde(skip))]
    pub updated_at_ms: i64,
}

impl Record for DocumentSubmitted {
    const TOPIC: Topic = topics::SUBMITTED;
}
impl Record for DocumentParsed {
    const TOPIC: Topic = topics::PARSED;
}
impl Record for ChunksEmbedded {
    const TOPIC: Topic = topics::EMBEDDED;
}
impl Record for VectorsIndexed {
    const TOPIC: Topic = topics::INDEXED;
}
impl Record for DocumentStatus {
    const TOPIC: Topic = topics::STATUS;
}
impl Record for DeadLetter {
    const TOPIC: Topic = topics::FAILED;
}

/// Reads a body as the record type of its topic does, and says only whether that works. None: no record type of ours.
pub fn reads(topic: &str, schema: &Schema, body: &[u8]) -> Option<Result<(), WireError>> {
    fn read<R: Record>(schema: &Schema, body: &[u8]) -> Result<(), WireError> {
        wire::decode::<R>(body, schema, SchemaId(0)).map(|_| ())
    }
    type Read = fn(&Schema, &[u8]) -> Result<(), WireError>;
    let readers: [(Topic, Read); 6] = [
        (topics::SUBMITTED, read::<DocumentSubmitted>),
        (topics::PARSED, read::<DocumentParsed>),
        (topics::EMBEDDED, read::<ChunksEmbedded>),
        (topics::INDEXED, read::<VectorsIndexed>),
        (topics::STATUS, read::<DocumentStatus>),
        (topics::FAILED, read::<DeadLetter>),
    ];
    let (_, read) = readers.into_iter().find(|(of, _)| of.name == topic)?;
    Some(read(schema, body))
}

macro_rules! identified {
    ($($record:ty),*) => {$(
        impl $record {
            /// The document, checked.
            pub fn document(&self) -> Result<DocumentKey, IdError> {
                DocumentKey::new(self.tenant.as_str(), self.document_id.as_str())
            }
            /// The revision, checked.
            pub fn checked_revision(&self) -> Result<Revision, IdError> {
                Revision::from_i64(self.revision)
            }
        }
    )*};
}
identified!(DocumentParsed, ChunksEmbedded, VectorsIndexed, DocumentStatus);

impl DocumentSubmitted {
    /// The document, checked.
    pub fn document(&self) -> Result<DocumentKey, IdError> {
        DocumentKey::new(self.tenant.as_str(), self.document_id.as_str())
    }
}

impl DocumentStatus {
    /// Key of this record in `documents.status`.
    pub fn key(&self) -> Result<StatusKey, IdError> {
        Ok(StatusKey {
            document: self.document()?,
            revision: self.checked_revision()?,
        })
    }
}

impl DeadLetter {
    /// Key of this record in `documents.failed`.
    pub fn key(&self) -> Result<LetterKey, IdError> {
        LetterKey::new(self.topic.as_str(), self.partition, self.offset)
    }
}

/// A vector as it travels: little-endian f32.
pub fn vector_to_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A vector's length is not 4 bytes for each of its model's dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a vector of {dimensions} dimensions is {} bytes, this one has {len}", 4 * i64::from(*.dimensions))]
pub struct VectorLength {
    /// Bytes found.
    pub len: usize,
    /// Dimensions of the model.
    pub dimensions: i32,
}

/// Reads a vector, checking its length against the model's dimensions.
pub fn vector_from_bytes(bytes: &[u8], dimensions: i32) -> Result<Vec<f32>, VectorLength> {
    let expected = usize::try_from(dimensions).ok().and_then(|d| d.checked_mul(4));
    if expected != Some(bytes.len()) {
        return Err(VectorLength {
            len: bytes.len(),
            dimensions,
        });
    }
    let (words, _) = bytes.as_chunks::<4>();
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}
