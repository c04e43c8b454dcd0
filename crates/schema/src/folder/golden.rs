//! Golden records: read by every version, and held against their JSON.
//!
//! Logical types are left out on both sides. They change no byte and no resolution in Avro; apache-avro's own take on them
//! (a decimal on bytes must have as many bytes as its precision may need) is not what other readers do. What a changed logical
//! type breaks is for the compatibility checker's rules to say.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;

use super::binary;

/// Why a body is not a record for a reader.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// It does not follow the writer's schema, or the reader's schema does not take it.
    #[error("{0}")]
    Refused(String),
    /// Bytes are left after the record.
    #[error("{0} bytes follow the record")]
    Trailing(usize),
}

/// A schema as golden records are read and written with it.
pub fn parse(text: &str) -> Result<Schema, Undecodable> {
    let mut json = serde_json::from_str(text).map_err(|e| Undecodable::Refused(e.to_string()))?;
    leave_out_logical_types(&mut json);
    Schema::parse(&json).map_err(|e| Undecodable::Refused(e.to_string()))
}

fn leave_out_logical_types(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Object(object) => {
            object.remove("logicalType");
            // A default is data, not a schema.
            let inner = object.iter_mut().filter(|(key, _)| *key != "default");
            inner.for_each(|(_, value)| leave_out_logical_types(value));
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(leave_out_logical_types),
        _ => {}
    }
}

/// Reads a body written with `writer` as a consumer built with `reader` does.
pub fn decode(mut body: &[u8], writer: &Schema, reader: Option<&Schema>) -> Result<Value, Undecodable> {
    let refused = |e: apache_avro::Error| Undecodable::Refused(e.to_string());
    let value = GenericDatumReader::builder(writer)
        .maybe_reader_schema(reader)
        .human_readable(false)
        .build()
        .and_then(|datum| datum.read_value(&mut body))
        .map_err(refused)?;
    match body.len() {
        0 => Ok(value),
        left => Err(Undecodable::Trailing(left)),
    }
}

/// Whether a body is the record that its JSON tells. Maps may stand in any order, blocks may be cut anywhere.
pub fn says_the_same(schema: &Schema, json: &serde_json::Value, body: &[u8]) -> Result<bool, binary::NotARecord> {
    let written = binary::encode(schema, json)?;
    let same = || decode(&written, schema, None).ok() == decode(body, schema, None).ok();
    Ok(written == body || same())
}
