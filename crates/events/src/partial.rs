//! What a record says of itself, read without reading it whole: for records that are given up.
//!
//! A record that cannot be decoded still belongs to a document, and whoever buries it wants to know to which. The fields
//! that say so stand first in every schema. They are read one after another, without a copy of what is passed over, up to
//! the first that does not fit:
//!
//! | the body | what is read |
//! |---|---|
//! | follows its schema | all that is wanted and stands before the first array or map |
//! | breaks off, or breaks its schema, at some field | what stands before that field |
//! | is not of this schema at all | nothing, or nonsense: check it against the record's key |
//!
//! A record whose decoding kills the process is read here all the same: no length is trusted, nothing as large as the
//! body is allocated, nothing loops.

use apache_avro::Schema;

/// Fields of a record that say whose it is; none where the body does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Partial {
    pub tenant: Option<String>,
    pub document_id: Option<String>,
    pub revision: Option<i64>,
    pub accepted_at_ms: Option<i64>,
    pub chunk_count: Option<i32>,
    pub request_id: Option<String>,
}

/// Longest text that is kept, in bytes: a document id's bound, and more than a tenant's and a UUID's.
const MAX_TEXT_BYTES: usize = 512;

/// Reads a body written with `schema`.
pub fn read(mut body: &[u8], schema: &Schema) -> Partial {
    let mut read = Partial::default();
    let Schema::Record(record) = schema else {
        return read;
    };
    for field in &record.fields {
        let Some(value) = take(&mut body, &field.schema) else {
            break;
        };
        match (field.name.as_str(), value) {
            ("tenant", Value::Text(text)) => read.tenant = kept(text),
            ("document_id", Value::Text(text)) => read.document_id = kept(text),
            ("request_id", Value::Text(text)) => read.request_id = kept(text),
            ("revision", Value::Number(number)) => read.revision = Some(number),
            ("accepted_at_ms", Value::Number(number)) => read.accepted_at_ms = Some(number),
            ("chunk_count", Value::Number(number)) => read.chunk_count = i32::try_from(number).ok(),
            _ => {}
        }
    }
    read
}

fn kept(text: &[u8]) -> Option<String> {
    let short = text.len() <= MAX_TEXT_BYTES;
    short.then(|| String::from_utf8(text.to_vec()).ok()).flatten()
}

enum Value<'a> {
    Number(i64),
    Text(&'a [u8]),
    Other,
}

/// Takes one value off the front. None where the bytes do not fit, and where passing over would mean a loop.
fn take<'a>(body: &mut &'a [u8], schema: &Schema) -> Option<Value<'a>> {
    let skip = |body: &mut &'a [u8], bytes: usize| body.split_off(..bytes).map(|_| Value::Other);
    match schema {
        Schema::Null => Some(Value::Other),
        Schema::Boolean => skip(body, 1),
        Schema::Float => skip(body, 4),
        Schema::Double => skip(body, 8),
        Schema::Fixed(fixed) => skip(body, fixed.size),
        Schema::Int | Schema::Long | Schema::Enum(_) => number(body).map(Value::Number),
        Schema::String => sized(body).map(Value::Text),
        Schema::Bytes => sized(body).map(|_| Value::Other),
        Schema::Union(union) => {
            let variant = usize::try_from(number(body)?).ok()?;
            take(body, union.variants().get(variant)?)
        }
        Schema::Record(record) => {
            for field in &record.fields {
                take(body, &field.schema)?;
            }
            Some(Value::Other)
        }
        // Arrays and maps loop; references could too; logical types are not ours.
        _ => None,
    }
}

fn sized<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(body)?).ok()?;
    body.split_off(..length)
}

/// Avro's zig-zag varint.
fn number(body: &mut &[u8]) -> Option<i64> {
    const LAST_SHIFT: u32 = 63;
    let mut bits = 0u64;
    for shift in (0..=LAST_SHIFT).step_by(7) {
        let byte = *body.split_off_first()?;
        bits |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((bits >> 1) as i64 ^ -((bits & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{SchemaId, encode, split};
    use crate::*;

    fn schema<R: Record>() -> Schema {
        Schema::parse_str(R::TOPIC.schema.unwrap()).unwrap()
    }

    fn body<R: Record>(record: &R) -> Vec<u8> {
        let value = encode(record, &schema::<R>(), SchemaId(1)).unwrap();
        split(&value).unwrap().1.to_vec()
    }

    fn submitted() -> DocumentSubmitted {
        DocumentSubmitted {
            tenant: "acme".into(),
            document_id: "grüße/1".into(),
            accepted_at_ms: -5,
            kind: Kind::Delete,
            media_type: "text/plain".into(),
            body: Some(vec![0xff; 100_000]),
            claim: Some(ClaimCheck {
                uri: "file:x".into(),
                ..ClaimCheck::default()
            }),
            lane: "fast".into(),
            request_id: "0b6f3f2a-4c38-4f0e-9a4b-3f1b8f7f2a11".into(),
        }
    }

    #[test]
    fn a_whole_command_tells_all_up_to_the_request_id_behind_its_body() {
        let told = read(&body(&submitted()), &schema::<DocumentSubmitted>());
        let expected = Partial {
            tenant: Some("acme".into()),
            document_id: Some("grüße/1".into()),
            revision: None,
            accepted_at_ms: Some(-5),
            chunk_count: None,
            request_id: Some("0b6f3f2a-4c38-4f0e-9a4b-3f1b8f7f2a11".into()),
        };
        assert_eq!(told, expected);
        let bare = DocumentSubmitted {
            body: None,
            claim: None,
            ..submitted()
        };
        assert_eq!(read(&body(&bare), &schema::<DocumentSubmitted>()), expected);
    }

    #[test]
    fn parts_tell_their_revision_before_their_chunks() {
        let parsed = DocumentParsed {
            tenant: "t".into(),
            document_id: "d".into(),
            revision: (1 << 48) + 7,
            accepted_at_ms: 9,
            chunk_count: 33,
            chunks: vec![TextChunk::default()],
            ..DocumentParsed::default()
        };
        let told = read(&body(&parsed), &schema::<DocumentParsed>());
        assert_eq!((told.revision, told.chunk_count), (Some((1 << 48) + 7), Some(33)));
        let embedded = ChunksEmbedded {
            revision: (1 << 48) + 8,
            chunk_count: 34,
            ..ChunksEmbedded::default()
        };
        let told = read(&body(&embedded), &schema::<ChunksEmbedded>());
        assert_eq!((told.revision, told.chunk_count), (Some((1 << 48) + 8), Some(34)));
    }

    #[test]
    fn a_body_that_breaks_off_tells_what_stands_before() {
        let (whole, schema) = (body(&submitted()), schema::<DocumentSubmitted>());
        for length in 0..200 {
            let told = read(&whole[..length], &schema);
            // "acme" is 5 bytes with its length, "grüße/1" is 10.
            assert_eq!(told.tenant.is_some(), length >= 5, "{length}");
            assert_eq!(told.document_id.is_some(), length >= 15, "{length}");
            assert_eq!(told.accepted_at_ms.is_some(), length >= 16, "{length}");
            assert_eq!(told.request_id, None);
        }
    }

    #[test]
    fn lengths_that_lie_are_not_followed() {
        let schema = schema::<DocumentSubmitted>();
        for lie in [
            &[0xff; 11][..],
            &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x01],
            &[0x80],
            b"{\"json\": true}",
        ] {
            assert_eq!(read(lie, &schema), Partial::default(), "{lie:?}");
        }
        // What is no UTF-8, or too long to be a name, is passed over.
        assert_eq!(read(&[2, 0xff, 2, b'd'], &schema).document_id.as_deref(), Some("d"));
        let long = [&[0x82, 0x08][..], &[b'x'; 513], &[2, b'd']].concat();
        let told = read(&long, &schema);
        assert_eq!((told.tenant, told.document_id.as_deref()), (None, Some("d")));
    }
}
