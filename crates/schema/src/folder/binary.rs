//! A record written as JSON into Avro's binary form, by its schema.
//!
//! | type | JSON |
//! |---|---|
//! | bytes, fixed | a text whose characters are the bytes, as in Avro's JSON form: `"\u00ff"` is ff |
//! | float, double | a number, or `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | record | an object; a field that is left out is its default |
//! | union | `null`; `{"branch": value}` as in Avro's JSON form; or the value, for the first branch that takes it |
//! | a logical type | as the type that it stands on |

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, NamesRef, RecordSchema, ResolvedSchema, UnionSchema, UuidSchema};
use serde_json::Value;

/// Why a JSON document is no record of a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", if .at.is_empty() { String::new() } else { format!("{at}: ") })]
pub struct NotARecord {
    /// Where, as `chunks[3].text`; empty at the top.
    pub at: String,
    /// What was expected there.
    pub why: String,
}

/// Writes `record` by `schema`.
pub fn encode(schema: &Schema, record: &Value) -> Result<Vec<u8>, NotARecord> {
    let resolved = ResolvedSchema::try_from(schema).map_err(|e| refused(e.to_string()))?;
    let mut out = Vec::new();
    write(&mut out, resolved.get_names(), schema, record)?;
    Ok(out)
}

/// The schema under its logical type. An enum of our own: the crate's may grow.
enum Base<'s> {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(&'s [String]),
    Array(&'s Schema),
    Map(&'s Schema),
    Union(&'s UnionSchema),
    Record(&'s RecordSchema),
}

fn base<'s>(names: &NamesRef<'s>, schema: &'s Schema) -> Result<Base<'s>, NotARecord> {
    Ok(match schema {
        Schema::Null => Base::Null,
        Schema::Boolean => Base::Boolean,
        Schema::Int | Schema::Date | Schema::TimeMillis => Base::Int,
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Base::Long,
        Schema::Float => Base::Float,
        Schema::Double => Base::Double,
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Base::Bytes,
        Schema::String | Schema::Uuid(UuidSchema::String) => Base::String,
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            Base::Fixed(fixed.size)
        }
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Bytes => Base::Bytes,
            InnerDecimalSchema::Fixed(fixed) => Base::Fixed(fixed.size),
        },
        Schema::Enum(symbols) => Base::Enum(&symbols.symbols),
        Schema::Array(array) => Base::Array(&array.items),
        Schema::Map(map) => Base::Map(&map.types),
        Schema::Union(union) => Base::Union(union),
        Schema::Record(record) => Base::Record(record),
        Schema::Ref { name } => {
            let named = names
                .get(name)
                .ok_or_else(|| refused(format!("{name} is not defined")))?;
            return base(names, named);
        }
    })
}

fn write<'s>(out: &mut Vec<u8>, names: &NamesRef<'s>, schema: &'s Schema, value: &Value) -> Result<(), NotARecord> {
    let wanted = |what: &str| refused(format!("{what} is wanted, this is {}", kind(value)));
    match base(names, schema)? {
        Base::Null => value.is_null().then_some(()).ok_or_else(|| wanted("null"))?,
        Base::Boolean => out.push(value.as_bool().ok_or_else(|| wanted("a boolean"))?.into()),
        Base::Int => {
            let int = value.as_i64().and_then(|v| i32::try_from(v).ok());
            number(out, int.ok_or_else(|| wanted("a whole number of 32 bits"))?.into());
        }
        Base::Long => number(out, value.as_i64().ok_or_else(|| wanted("a whole number of 64 bits"))?),
        Base::Float => {
            let float = real(value).ok_or_else(|| wanted("a number"))?;
            out.extend_from_slice(&(float as f32).to_le_bytes());
        }
        Base::Double => out.extend_from_slice(&real(value).ok_or_else(|| wanted("a number"))?.to_le_bytes()),
        Base::Bytes => sized(
            out,
            &bytes(value).ok_or_else(|| wanted("a text of characters up to U+00FF"))?,
        ),
        Base::String => sized(out, value.as_str().ok_or_else(|| wanted("a text"))?.as_bytes()),
        Base::Fixed(size) => {
            let bytes = bytes(value).filter(|b| b.len() == size);
            let what = || wanted(&format!("a text of {size} characters up to U+00FF"));
            out.extend_from_slice(&bytes.ok_or_else(what)?);
        }
        Base::Enum(symbols) => {
            let symbol = value.as_str().and_then(|v| symbols.iter().position(|s| s == v));
            let what = || refused(format!("{value} is none of {}", symbols.join(", ")));
            length(out, symbol.ok_or_else(what)?);
        }
        Base::Array(items) => {
            let values = value.as_array().ok_or_else(|| wanted("an array"))?;
            if !values.is_empty() {
                length(out, values.len());
            }
            for (index, value) in values.iter().enumerate() {
                write(out, names, items, value).map_err(|e| e.within(&format!("[{index}]")))?;
            }
            out.push(0);
        }
        Base::Map(types) => {
            let entries = value.as_object().ok_or_else(|| wanted("an object"))?;
            if !entries.is_empty() {
                length(out, entries.len());
            }
            for (key, value) in entries {
                sized(out, key.as_bytes());
                write(out, names, types, value).map_err(|e| e.within(&format!("[{key:?}]")))?;
            }
            out.push(0);
        }
        Base::Union(union) => write_union(out, names, union, value)?,
        Base::Record(record) => write_record(out, names, record, value)?,
    }
    Ok(())
}

fn write_record<'s>(
    out: &mut Vec<u8>,
    names: &NamesRef<'s>,
    record: &'s RecordSchema,
    value: &Value,
) -> Result<(), NotARecord> {
    let what = || refused(format!("an object is wanted, this is {}", kind(value)));
    let object = value.as_object().ok_or_else(what)?;
    if let Some(unknown) = object.keys().find(|key| record.fields.iter().all(|f| f.name != **key)) {
        return Err(refused(format!("{} has no field {unknown}", record.name)));
    }
    for field in &record.fields {
        let value = object.get(&field.name).or(field.default.as_ref());
        let value = value.ok_or_else(|| refused(format!("the field {} is missing, and has no default", field.name)))?;
        write(out, names, &field.schema, value).map_err(|e| e.within(&field.name))?;
    }
    Ok(())
}

fn write_union<'s>(
    out: &mut Vec<u8>,
    names: &NamesRef<'s>,
    union: &'s UnionSchema,
    value: &Value,
) -> Result<(), NotARecord> {
    let start = out.len();
    let mut attempt = |branch: usize, value: &Value| {
        out.truncate(start);
        length(out, branch);
        write(out, names, &union.variants()[branch], value)
    };
    let mut labels = Vec::new();
    for schema in union.variants() {
        labels.push(label(names, schema)?);
    }
    let tagged = value.as_object().filter(|o| o.len() == 1).and_then(|o| o.iter().next());
    let tagged = tagged.and_then(|(key, value)| Some((labels.iter().position(|l| l == key)?, value)));
    let mut told = None;
    if let Some((branch, value)) = tagged {
        match attempt(branch, value) {
            Ok(()) => return Ok(()),
            Err(e) => told = Some(e.within(&labels[branch])),
        }
    }
    // Without a tag every branch may be meant; a value with one may still be a map or a record of one field.
    if (0..labels.len()).any(|branch| attempt(branch, value).is_ok()) {
        return Ok(());
    }
    let none = || {
        refused(format!(
            "{} fits none of the branches {}",
            kind(value),
            labels.join(", ")
        ))
    };
    Err(told.unwrap_or_else(none))
}

/// A branch's name in Avro's JSON form.
fn label(names: &NamesRef<'_>, schema: &Schema) -> Result<String, NotARecord> {
    // A logical type may hide a fixed, whose name is not kept everywhere; its plain value works.
    if let Some(name) = schema.name() {
        return Ok(name.fullname(None));
    }
    let label = match base(names, schema)? {
        Base::Null => "null",
        Base::Boolean => "boolean",
        Base::Int => "int",
        Base::Long => "long",
        Base::Float => "float",
        Base::Double => "double",
        Base::Bytes => "bytes",
        Base::String => "string",
        Base::Fixed(_) => "fixed",
        Base::Enum(_) => "enum",
        Base::Array(_) => "array",
        Base::Map(_) => "map",
        Base::Union(_) => "union",
        Base::Record(_) => "record",
    };
    Ok(label.to_owned())
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    value.as_str()?.chars().map(|c| u8::try_from(c).ok()).collect()
}

fn real(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => value.as_f64(),
    }
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn length(out: &mut Vec<u8>, length: usize) {
    // Nothing in memory is longer than an i64 counts.
    number(out, i64::try_from(length).unwrap_or(i64::MAX));
}

/// Avro's zig-zag varint.
fn number(out: &mut Vec<u8>, number: i64) {
    let mut bits = ((number << 1) ^ (number >> 63)) as u64;
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.chars().count() <= 40 => value.to_string(),
        Value::String(_) => "a long text".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn refused(why: String) -> NotARecord {
    NotARecord { at: String::new(), why }
}

impl NotARecord {
    fn within(self, step: &str) -> Self {
        let dot = if self.at.is_empty() || self.at.starts_with('[') {
            ""
        } else {
            "."
        };
        Self {
            at: format!("{step}{dot}{}", self.at),
            why: self.why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SCHEMA: &str = r#"{"type":"record","name":"R","namespace":"n","fields":[
        {"name":"i","type":"int","default":7},
        {"name":"b","type":"bytes","default":""},
        {"name":"u","type":["null","string",{"type":"map","values":"long"},
            {"type":"record","name":"S","fields":[{"name":"string","type":"string"}]}],"default":null},
        {"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]},"default":"B"},
        {"name":"f","type":{"type":"fixed","name":"F","size":2},"default":"\u0000\u00ff"},
        {"name":"next","type":["null","R"],"default":null},
        {"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":4,"scale":2},"default":"\u0001"},
        {"name":"x","type":{"type":"array","items":"double"},"default":[]}]}"#;

    fn body(record: Value) -> Result<Vec<u8>, String> {
        encode(&Schema::parse_str(SCHEMA).unwrap(), &record).map_err(|e| e.to_string())
    }

    #[test]
    fn each_type_is_written_as_the_specification_says() {
        let tail = [2, 0, 255, 0, 2, 1, 0];
        for (record, head) in [
            (json!({}), &[14, 0, 0][..]),
            (json!({"i": -65, "b": "\u{ff}a"}), &[129, 1, 4, 255, b'a', 0]),
            (json!({"u": "ü"}), &[14, 0, 2, 4, 0xc3, 0xbc]),
            (json!({"u": {"string": "x"}}), &[14, 0, 2, 2, b'x']),
            (json!({"u": {"map": {"a": 1}}}), &[14, 0, 4, 2, 2, b'a', 2, 0]),
            (json!({"u": {"map": 1}}), &[14, 0, 4, 2, 6, b'm', b'a', b'p', 2, 0]),
            (json!({"u": {"n.S": {"string": "x"}}}), &[14, 0, 6, 2, b'x']),
        ] {
            assert_eq!(body(record.clone()).unwrap(), [head, &tail].concat(), "{record}");
        }
        let nested = body(json!({"next": {}})).unwrap();
        assert_eq!(nested[..6], [14, 0, 0, 2, 0, 255]);
        let doubles = body(json!({"x": [1.5, "NaN"]})).unwrap();
        assert!(doubles.ends_with(&[&[4][..], &1.5f64.to_le_bytes(), &f64::NAN.to_le_bytes(), &[0]].concat()));
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        for (record, expected) in [
            (json!([]), "an object is wanted, this is an array"),
            (json!({"z": 1}), "n.R has no field z"),
            (
                json!({"i": 1_i64 << 40}),
                "i: a whole number of 32 bits is wanted, this is 1099511627776",
            ),
            (
                json!({"b": "ł"}),
                "b: a text of characters up to U+00FF is wanted, this is \"ł\"",
            ),
            (json!({"u": 3}), "u: 3 fits none of the branches null, string, map, n.S"),
            (
                json!({"next": {"n.R": {"x": [true]}}}),
                "next.n.R.x[0]: a number is wanted, this is true",
            ),
            (json!({"e": "C"}), "e: \"C\" is none of A, B"),
            (
                json!({"f": "abc"}),
                "f: a text of 2 characters up to U+00FF is wanted, this is \"abc\"",
            ),
        ] {
            assert_eq!(body(record.clone()).unwrap_err(), expected, "{record}");
        }
    }
}
