//! The Confluent wire format: a zero byte, the registry's schema id (4 bytes, big-endian), the Avro body.

use std::sync::Once;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::Schema;
use apache_avro::util::max_allocation_bytes;
use apache_avro::writer::datum::GenericDatumWriter;

use crate::records::Record;
use crate::topics::MAX_DEAD_LETTER_BYTES;

/// A schema's number in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaId(pub u32);

/// Why bytes are not a record, or a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Shorter than the header, or the first byte is not 0.
    #[error("not the Confluent wire format: {0}")]
    NotFramed(&'static str),
    /// The body does not follow the schema it names.
    #[error("the body does not follow its schema, id {}", id.0)]
    Body {
        /// The schema it was read with.
        id: SchemaId,
        /// What the decoder said.
        source: Box<apache_avro::Error>,
    },
    /// Bytes are left after the record.
    #[error("{left} bytes follow the record, schema id {}", id.0)]
    Trailing {
        /// The schema it was read with.
        id: SchemaId,
        /// How many.
        left: usize,
    },
    /// The record does not follow the schema it is to be written with.
    #[error("the record does not follow the schema of {topic}")]
    Encode {
        /// The topic it was for.
        topic: &'static str,
        /// What the encoder said.
        source: Box<apache_avro::Error>,
    },
}

/// A length in a body is believed up to here. No value of a record is longer, whatever it says.
const MAX_VALUE_BYTES: usize = MAX_DEAD_LETTER_BYTES;
static BOUNDED: Once = Once::new();

const MAGIC: u8 = 0;
const HEADER_BYTES: usize = 5;

/// Splits a value into the id of its schema and its body.
pub fn split(value: &[u8]) -> Result<(SchemaId, &[u8]), WireError> {
    match value {
        [MAGIC, a, b, c, d, body @ ..] => Ok((SchemaId(u32::from_be_bytes([*a, *b, *c, *d])), body)),
        [MAGIC, ..] => Err(WireError::NotFramed("shorter than its header of 5 bytes")),
        [] => Err(WireError::NotFramed("no bytes")),
        _ => Err(WireError::NotFramed("the first byte is not 0")),
    }
}

/// Writes a record with its type's schema under the registry's id for it.
pub fn encode<R: Record>(record: &R, schema: &Schema, id: SchemaId) -> Result<Vec<u8>, WireError> {
    let encode_error = |source| WireError::Encode {
        topic: R::TOPIC.name,
        source: Box::new(source),
    };
    let mut value = Vec::with_capacity(256);
    value.push(MAGIC);
    value.extend_from_slice(&id.0.to_be_bytes());
    debug_assert_eq!(value.len(), HEADER_BYTES);
    GenericDatumWriter::builder(schema)
        .human_readable(false)
        .build()
        .map_err(encode_error)?
        .write_ser(&mut value, record)
        .map_err(encode_error)?;
    Ok(value)
}

/// Reads a body written with `schema`.
pub fn decode<R: Record>(mut body: &[u8], schema: &Schema, id: SchemaId) -> Result<R, WireError> {
    // The decoder's own bound, one of the process, is 512 MiB: nine bytes of a record would ask for them.
    BOUNDED.call_once(|| _ = max_allocation_bytes(MAX_VALUE_BYTES));
    let body_error = |source| WireError::Body {
        id,
        source: Box::new(source),
    };
    let record = GenericDatumReader::builder(schema)
        .human_readable(false)
        .build()
        .map_err(body_error)?
        .read_deser(&mut body)
        .map_err(body_error)?;
    match body.len() {
        0 => Ok(record),
        left => Err(WireError::Trailing { id, left }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::*;

    fn schema<R: Record>() -> Schema {
        Schema::parse_str(R::TOPIC.schema.unwrap()).unwrap()
    }

    fn round_trip<R: Record + PartialEq + std::fmt::Debug + Default>(record: R) {
        let schema = schema::<R>();
        for record in [record, R::default()] {
            let value = encode(&record, &schema, SchemaId(0x0102_0304)).unwrap();
            assert_eq!(&value[..5], &[0, 1, 2, 3, 4]);
            let (id, body) = split(&value).unwrap();
            assert_eq!(decode::<R>(body, &schema, id).unwrap(), record);
            assert!(decode::<R>(&body[..body.len() - 1], &schema, id).is_err());
            let long = [body, &[0]].concat();
            assert!(matches!(
                decode::<R>(&long, &schema, id),
                Err(WireError::Trailing { left: 1, .. })
            ));
        }
    }

    #[cfg(not(feature = "next"))]
    #[test]
    fn every_record_follows_its_published_schema() {
        let model = Model {
            id: "all-minilm-l6-v2".into(),
            revision: "759c3cd2".into(),
            dimensions: 2,
            dtype: "f32".into(),
            normalized: true,
        };
        round_trip(DocumentSubmitted {
            tenant: "t".into(),
            document_id: "d".into(),
            accepted_at_ms: 1,
            kind: Kind::Upsert,
            media_type: "text/plain".into(),
            body: Some(b"\xff\x00body".to_vec()),
            claim: Some(ClaimCheck {
                uri: "file:x".into(),
                sha256: "00".into(),
                size_bytes: 3,
            }),
            lane: "fast".into(),
            request_id: "r".into(),
        });
        round_trip(DocumentParsed {
            tenant: "t".into(),
            revision: 1 << 48,
            kind: Kind::Delete,
            offsets_in: OffsetsIn::Body,
            chunks: vec![TextChunk {
                ordinal: 1,
                text: "grüße".into(),
                section: vec!["A".into(), "B".into()],
                ..TextChunk::default()
            }],
            ..DocumentParsed::default()
        });
        round_trip(ChunksEmbedded {
            model: model.clone(),
            chunks: vec![EmbeddedChunk {
                vector: vector_to_bytes(&[0.6, 0.8]),
                ..EmbeddedChunk::default()
            }],
            ..ChunksEmbedded::default()
        });
        round_trip(VectorsIndexed {
            event: IndexEvent::Live,
            generation: model.generation(),
            model,
            ..VectorsIndexed::default()
        });
        round_trip(DocumentStatus {
            state: State::DuplicateOf,
            duplicate_of_revision: 7,
            ..DocumentStatus::default()
        });
        round_trip(DeadLetter {
            topic: "documents.parsed".into(),
            offset: 9,
            state: LetterState::Redriven,
            ..DeadLetter::default()
        });
    }

    #[test]
    fn a_symbol_of_a_later_version_reads_as_unknown() {
        let later = r#"{"type":"record","name":"DocumentStatus","namespace":"millrace.events","fields":[
            {"name":"tenant","type":"string"},{"name":"document_id","type":"string"},{"name":"revision","type":"long"},
            {"name":"state","type":{"type":"enum","name":"State","symbols":["UNKNOWN","ARCHIVED"],"default":"UNKNOWN"}},
            {"name":"added","type":["null",{"type":"map","values":"string"}],"default":null}]}"#;
        let later = Schema::parse_str(later).unwrap();
        // tenant "t", document_id "d", revision 3, ARCHIVED, added null
        let body = [2, b't', 2, b'd', 6, 2, 0];
        let read: DocumentStatus = decode(&body, &later, SchemaId(9)).unwrap();
        assert_eq!((read.state, read.revision, read.chunk_count), (State::Unknown, 3, 0));
    }

    #[test]
    fn a_length_that_no_record_has_is_refused_before_it_is_allocated() {
        let schema = schema::<DocumentStatus>();
        // tenant: a string of 64 MiB, of which nothing is there.
        let error = decode::<DocumentStatus>(&[0x80, 0x80, 0x80, 0x40], &schema, SchemaId(1)).unwrap_err();
        let WireError::Body { source, .. } = error else {
            panic!("{error}")
        };
        assert!(source.to_string().contains("allocate 67108864 bytes"), "{source}");
    }

    #[test]
    fn what_is_not_framed_is_refused() {
        assert!(matches!(split(b""), Err(WireError::NotFramed("no bytes"))));
        assert!(matches!(split(b"\0\0\0"), Err(WireError::NotFramed(_))));
        assert!(matches!(split(b"{\"a\":1}"), Err(WireError::NotFramed(_))));
    }

    #[test]
    fn a_vector_of_the_wrong_length_is_refused() {
        assert_eq!(
            vector_from_bytes(&vector_to_bytes(&[1.0, -2.5]), 2).unwrap(),
            [1.0, -2.5]
        );
        assert!(vector_from_bytes(&[0; 7], 2).is_err());
        assert!(vector_from_bytes(&[], -1).is_err());
    }
}
