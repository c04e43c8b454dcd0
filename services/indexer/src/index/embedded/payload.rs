//! Points as they are stored: payload fields, and reading them back.

use std::collections::HashMap;

use millrace_events::{DocumentKey, Revision, points};
use qdrant_edge::{Payload, PointId, PointStructPersisted, VectorPersisted, VectorStructPersisted};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::index::{ChunkPoint, Found, Head, IndexError, RevisionPoints, Stored};

/// Name of the one vector. Named, so that heads may exist without it.
pub const VECTOR: &str = "text";

/// Payload fields. A contract: data on disk outlives this version.
pub mod field {
    #![allow(missing_docs)]
    pub const KIND: &str = "kind";
    pub const TENANT: &str = "tenant";
    pub const DOCUMENT: &str = "document";
    // Chunks only.
    pub const REVISION: &str = "revision";
    pub const STAGED: &str = "staged";
    pub const ORDINAL: &str = "ordinal";
    pub const TEXT: &str = "text";
    pub const SECTION: &str = "section";
    pub const START_BYTE: &str = "start_byte";
    pub const END_BYTE: &str = "end_byte";
    // Heads only.
    pub const LIVE: &str = "live";
    pub const PREVIOUS: &str = "previous";
    pub const DELETED: &str = "deleted";
    pub const SWEEP: &str = "sweep";
    pub const CHUNK_COUNT: &str = "chunk_count";
    pub const PART: &str = "part";
    pub const MOVED_AT_MS: &str = "moved_at_ms";
}

fn payload(value: Value) -> Payload {
    match value {
        Value::Object(map) => Payload(map),
        _ => Payload(Map::new()),
    }
}

/// One field, for a partial update.
pub fn one(key: &str, value: impl Into<Value>) -> Payload {
    Payload(Map::from_iter([(key.to_owned(), value.into())]))
}

/// A revision's chunks as points.
pub fn chunks(of: RevisionPoints) -> Vec<PointStructPersisted> {
    let RevisionPoints {
        document,
        revision,
        staged,
        points,
    } = of;
    let one = |point: ChunkPoint| PointStructPersisted {
        id: PointId::Uuid(points::chunk(&document, revision, point.ordinal)),
        vector: VectorStructPersisted::Named(HashMap::from([(
            VECTOR.to_owned(),
            VectorPersisted::Dense(point.vector),
        )])),
        payload: Some(payload(json!({
            (field::KIND): "chunk",
            (field::TENANT): document.tenant.as_str(),
            (field::DOCUMENT): document.to_string(),
            (field::REVISION): revision.get(),
            (field::STAGED): staged,
            (field::ORDINAL): point.ordinal,
            (field::TEXT): point.text,
            (field::SECTION): point.section,
            (field::START_BYTE): point.start_byte,
            (field::END_BYTE): point.end_byte,
        }))),
    };
    points.into_iter().map(one).collect()
}

/// A head as a point: no vector, so that no search ever hits it.
pub fn head(document: &DocumentKey, head: &Head) -> PointStructPersisted {
    PointStructPersisted {
        id: PointId::Uuid(points::head(document)),
        vector: VectorStructPersisted::Named(HashMap::new()),
        payload: Some(payload(json!({
            (field::KIND): "head",
            (field::TENANT): document.tenant.as_str(),
            (field::DOCUMENT): document.to_string(),
            (field::LIVE): head.live.get(),
            (field::PREVIOUS): head.previous.map_or(0, Revision::get),
            (field::DELETED): head.deleted,
            (field::SWEEP): head.sweep,
            (field::CHUNK_COUNT): head.chunk_count,
            (field::PART): head.part,
            (field::MOVED_AT_MS): head.moved_at_ms,
        }))),
    }
}

/// Reads fields of one stored point; every error names the point and the field.
struct Fields<'a> {
    point: &'a PointId,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn of(point: &'a PointId, payload: Option<&'a Payload>) -> Result<Self, IndexError> {
        let map = &payload.ok_or_else(|| unreadable(point, "it has no payload"))?.0;
        Ok(Self { point, map })
    }
    fn get<T>(&self, key: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<T, IndexError> {
        let value = self.map.get(key).and_then(read);
        value.ok_or_else(|| unreadable(self.point, format!("field {key} is missing or of another type")))
    }
    fn text(&self, key: &str) -> Result<String, IndexError> {
        self.get(key, |v| v.as_str().map(str::to_owned))
    }
    fn number<N: TryFrom<i64>>(&self, key: &str) -> Result<N, IndexError> {
        self.get(key, |v| v.as_i64().and_then(|n| N::try_from(n).ok()))
    }
    fn document(&self) -> Result<DocumentKey, IndexError> {
        self.get(field::DOCUMENT, |v| v.as_str().and_then(|s| s.parse().ok()))
    }
    fn revision(&self, key: &str) -> Result<Revision, IndexError> {
        self.get(key, |v| v.as_i64().and_then(|n| Revision::from_i64(n).ok()))
    }
}

fn unreadable(point: &PointId, message: impl Into<String>) -> IndexError {
    IndexError::Unreadable {
        point: match point {
            PointId::Uuid(id) => id.to_string(),
            PointId::NumId(id) => id.to_string(),
        },
        message: message.into(),
    }
}

/// A stored chunk.
pub fn read_chunk(id: &PointId, score: f32, payload: Option<&Payload>) -> Result<Found, IndexError> {
    let fields = Fields::of(id, payload)?;
    let strings = |v: &Value| -> Option<Vec<String>> {
        let items = v.as_array()?;
        items.iter().map(|s| s.as_str().map(str::to_owned)).collect()
    };
    Ok(Found {
        document: fields.document()?,
        revision: fields.revision(field::REVISION)?,
        score,
        ordinal: fields.number(field::ORDINAL)?,
        text: fields.text(field::TEXT)?,
        section: fields.get(field::SECTION, strings)?,
        start_byte: fields.number(field::START_BYTE)?,
        end_byte: fields.number(field::END_BYTE)?,
    })
}

/// A stored head.
pub fn read_head(id: &PointId, payload: Option<&Payload>) -> Result<(DocumentKey, Head), IndexError> {
    let fields = Fields::of(id, payload)?;
    let head = Head {
        live: fields.revision(field::LIVE)?,
        // 0 is none.
        previous: fields.get(field::PREVIOUS, |v| v.as_i64().map(|n| Revision::from_i64(n).ok()))?,
        deleted: fields.get(field::DELETED, Value::as_bool)?,
        sweep: fields.get(field::SWEEP, Value::as_bool)?,
        chunk_count: fields.number(field::CHUNK_COUNT)?,
        part: fields.number(field::PART)?,
        moved_at_ms: fields.number(field::MOVED_AT_MS)?,
    };
    Ok((fields.document()?, head))
}

/// Fields that [`read_stored`] needs: all but texts.
pub const STORED: [&str; 13] = [
    field::KIND,
    field::TENANT,
    field::DOCUMENT,
    field::REVISION,
    field::STAGED,
    field::ORDINAL,
    field::LIVE,
    field::PREVIOUS,
    field::DELETED,
    field::SWEEP,
    field::CHUNK_COUNT,
    field::PART,
    field::MOVED_AT_MS,
];

/// A stored point of either kind.
pub fn read_stored(id: &PointId, payload: Option<&Payload>) -> Result<Stored, IndexError> {
    let fields = Fields::of(id, payload)?;
    match fields.text(field::KIND)?.as_str() {
        "head" => {
            let (document, head) = read_head(id, payload)?;
            Ok(Stored::Head(document, head))
        }
        "chunk" => Ok(Stored::Chunk {
            document: fields.document()?,
            revision: fields.revision(field::REVISION)?,
            ordinal: fields.number(field::ORDINAL)?,
            staged: fields.get(field::STAGED, Value::as_bool)?,
        }),
        other => Err(unreadable(id, format!("its kind is {other:?}"))),
    }
}

/// Ids of the heads of documents.
pub fn head_ids(documents: &[DocumentKey]) -> Vec<PointId> {
    let id = |document| -> Uuid { points::head(document) };
    documents.iter().map(|d| PointId::Uuid(id(d))).collect()
}
