//! Bodies that follow a schema, so that between them each branch of each union, each symbol of each enum and arrays and
//! maps with and without items occur: what a decoder must be able to read, whoever writes with that schema.
//!
//! | schema | refused, because |
//! |---|---|
//! | a type within itself | no decoder of ours bounds how deep it follows a record |
//! | types that multiply each other | a sample would not fit into memory |

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, NamesRef, ResolvedSchema, UuidSchema};

/// Most samples of one schema: an enum of more symbols than this has its last ones untried.
const MAX_SAMPLES: usize = 512;
const MAX_SAMPLE_BYTES: usize = 1 << 20;
/// Most values in one sample: records without fields multiply without a byte.
const MAX_VALUES: usize = 1 << 16;
/// Deepest records within records: each takes some of the stack, of ours and of the decoder.
const MAX_DEPTH: usize = 64;
/// Most bytes of all samples together.
const MAX_BYTES: usize = 16 << 20;

/// Why there is no sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// A type within itself.
    #[error("{name} contains itself, and nothing bounds how deep a record of it may be")]
    Recursive {
        /// The type.
        name: String,
    },
    /// Too large.
    #[error(
        "records that show all of it are larger than {MAX_SAMPLE_BYTES} bytes or {MAX_VALUES} values, or deeper than {MAX_DEPTH}"
    )]
    TooLarge,
    /// A reference that leads nowhere: the schema was parsed without its others.
    #[error("not all of its types are defined in it: {why}")]
    Undefined {
        /// Which is not, in the parser's words.
        why: String,
    },
}

/// Sample bodies of a schema.
pub fn samples(schema: &Schema) -> Result<Vec<Vec<u8>>, SampleError> {
    let resolved = ResolvedSchema::try_from(schema).map_err(|e| SampleError::Undefined { why: e.to_string() })?;
    let types = resolved.get_names();
    let widest = types.values().copied().chain([schema]).map(widest).max().unwrap_or(1);
    // The first has no items in its arrays and maps; the others take one branch after another. Squared, since a branch
    // that refers to a type leaves it only some of the turns.
    let numbers = 0..=widest.saturating_mul(widest).clamp(2, MAX_SAMPLES);
    let (mut samples, mut bytes) = (Vec::new(), 0);
    for number in numbers {
        let sample = Sample::of(schema, number, types)?;
        bytes += sample.len();
        if bytes > MAX_BYTES {
            return Err(SampleError::TooLarge);
        }
        samples.push(sample);
    }
    Ok(samples)
}

struct Sample<'s> {
    number: usize,
    types: &'s NamesRef<'s>,
    /// The named types that are being written.
    within: Vec<&'s Name>,
    body: Vec<u8>,
    values: usize,
}

impl<'s> Sample<'s> {
    fn of(schema: &'s Schema, number: usize, types: &'s NamesRef<'s>) -> Result<Vec<u8>, SampleError> {
        let mut sample = Self {
            number,
            types,
            within: Vec::new(),
            body: Vec::new(),
            values: 0,
        };
        sample.write(schema, number)?;
        Ok(sample.body)
    }

    /// Writes one value; `turn` chooses among branches and symbols.
    fn write(&mut self, schema: &'s Schema, turn: usize) -> Result<(), SampleError> {
        self.values += 1;
        if self.body.len() > MAX_SAMPLE_BYTES || self.values > MAX_VALUES {
            return Err(SampleError::TooLarge);
        }
        match schema {
            Schema::Null => {}
            Schema::Boolean => self.body.push(u8::from(turn % 2 == 1)),
            Schema::Int | Schema::Date | Schema::TimeMillis => self.number([0, i32::MAX.into(), i32::MIN.into()], turn),
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => self.number([0, i64::MAX, i64::MIN], turn),
            Schema::Float => self.body.extend([0; size_of::<f32>()]),
            Schema::Double => self.body.extend([0; size_of::<f64>()]),
            Schema::Bytes | Schema::BigDecimal => self.sized(if turn == 0 { b"" } else { b"\x00\xff" }),
            Schema::String => self.sized(if turn == 0 { b"" } else { "ß".as_bytes() }),
            Schema::Fixed(fixed) | Schema::Duration(fixed) => self.zeros(fixed.size)?,
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => self.sized(&[1]),
                InnerDecimalSchema::Fixed(fixed) => self.zeros(fixed.size)?,
            },
            Schema::Uuid(uuid) => match uuid {
                UuidSchema::Bytes => self.sized(&[0; 16]),
                UuidSchema::String => self.sized(b"00000000-0000-0000-0000-000000000000"),
                UuidSchema::Fixed(fixed) => self.zeros(fixed.size)?,
            },
            Schema::Enum(symbols) => self.long(chosen(turn, symbols.symbols.len())),
            Schema::Union(union) => {
                let branches = union.variants();
                self.long(chosen(turn, branches.len()));
                if let Some(schema) = branches.get(turn % branches.len().max(1)) {
                    self.write(schema, turn / branches.len())?;
                }
            }
            Schema::Array(array) => self.block(&array.items, turn, false)?,
            Schema::Map(map) => self.block(&map.types, turn, true)?,
            Schema::Record(record) => {
                self.enter(&record.name)?;
                for field in &record.fields {
                    self.write(&field.schema, turn)?;
                }
                self.within.pop();
            }
            Schema::Ref { name } => {
                let Some(schema) = self.types.get(name) else {
                    return Err(SampleError::Undefined { why: name.to_string() });
                };
                self.write(schema, turn)?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, name: &'s Name) -> Result<(), SampleError> {
        if self.within.contains(&name) {
            return Err(SampleError::Recursive { name: name.to_string() });
        }
        if self.within.len() >= MAX_DEPTH {
            return Err(SampleError::TooLarge);
        }
        self.within.push(name);
        Ok(())
    }

    /// Two items that differ in what they choose, or none in the first sample; then the end of the array or map.
    fn block(&mut self, items: &'s Schema, turn: usize, keys: bool) -> Result<(), SampleError> {
        if self.number > 0 {
            self.long(2);
            for item in 0..2 {
                if keys {
                    self.sized(&[b'a' + item]);
                }
                self.write(items, turn + usize::from(item))?;
            }
        } else {
            // Not written, but looked at: a type within itself is one in an array too.
            let end = self.body.len();
            self.write(items, turn)?;
            self.body.truncate(end);
        }
        self.long(0);
        Ok(())
    }

    fn number(&mut self, among: [i64; 3], turn: usize) {
        self.long(among[turn % among.len()]);
    }

    fn sized(&mut self, bytes: &[u8]) {
        self.long(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        self.body.extend_from_slice(bytes);
    }

    fn zeros(&mut self, size: usize) -> Result<(), SampleError> {
        if size > MAX_SAMPLE_BYTES {
            return Err(SampleError::TooLarge);
        }
        self.body.resize(self.body.len() + size, 0);
        Ok(())
    }

    /// Avro's zig-zag varint.
    fn long(&mut self, value: i64) {
        let mut bits = ((value << 1) ^ (value >> 63)) as u64;
        while bits > 0x7f {
            self.body.push(bits as u8 & 0x7f | 0x80);
            bits >>= 7;
        }
        self.body.push(bits as u8);
    }
}

fn chosen(turn: usize, among: usize) -> i64 {
    i64::try_from(turn % among.max(1)).unwrap_or(0)
}

/// The most branches or symbols that one place within a type has.
fn widest(schema: &Schema) -> usize {
    match schema {
        Schema::Enum(symbols) => symbols.symbols.len(),
        Schema::Array(array) => widest(&array.items),
        Schema::Map(map) => widest(&map.types),
        Schema::Union(union) => {
            let within = union.variants().iter().map(widest).max().unwrap_or(1);
            union.variants().len() * within.max(1)
        }
        Schema::Record(record) => record.fields.iter().map(|f| widest(&f.schema)).max().unwrap_or(1),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value;

    fn parsed(schema: &str) -> Schema {
        Schema::parse_str(schema).unwrap()
    }

    fn read(schema: &Schema) -> Vec<Value> {
        let read = |body: Vec<u8>| {
            let mut body = &body[..];
            let reader = GenericDatumReader::builder(schema).build().unwrap();
            let value = reader.read_value(&mut body).unwrap();
            assert!(body.is_empty(), "{} bytes are left after {value:?}", body.len());
            value
        };
        samples(schema).unwrap().into_iter().map(read).collect()
    }

    /// Each kind of type, by another implementation's decoder.
    #[test]
    fn samples_follow_their_schema() {
        let all = r#"{"type":"record","name":"All","fields":[
            {"name":"a","type":["null","boolean","int","long","float","double","bytes","string"]},
            {"name":"b","type":{"type":"array","items":{"type":"map","values":{"type":"enum","name":"E","symbols":["X","Y","Z"]}}}},
            {"name":"c","type":["null",{"type":"fixed","name":"F","size":3},"E"]},
            {"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}},
            {"name":"e","type":{"type":"fixed","name":"G","size":2,"logicalType":"decimal","precision":4,"scale":2}},
            {"name":"f","type":{"type":"string","logicalType":"uuid"}},
            {"name":"g","type":{"type":"int","logicalType":"date"}},
            {"name":"h","type":{"type":"long","logicalType":"timestamp-millis"}},
            {"name":"i","type":{"type":"fixed","name":"D","size":12,"logicalType":"duration"}},
            {"name":"j","type":{"type":"record","name":"Empty","fields":[]}},
            {"name":"k","type":"Empty"}]}"#;
        let shown = format!("{:?}", read(&parsed(all)));
        for seen in [
            "Union(0, Null)",
            "Union(1, Boolean",
            "Union(2, Int",
            "Union(3, Long",
            "Union(4, Float",
            "Union(5, Double",
            "Union(6, Bytes",
            "Union(7, String",
            "Enum(0",
            "Enum(1",
            "Enum(2",
            "Union(1, Fixed",
            "Union(2, Enum",
        ] {
            assert!(shown.contains(seen), "{seen} is not among {shown}");
        }
    }

    #[test]
    fn every_symbol_behind_a_reference_occurs() {
        let schema = parsed(
            r#"{"type":"record","name":"R","fields":[
                {"name":"a","type":{"type":"enum","name":"E","symbols":["A","B","C","D","E","F","G"]}},
                {"name":"b","type":["null","E"]}]}"#,
        );
        let shown = format!("{:?}", read(&schema));
        for symbol in 0..7 {
            assert!(shown.contains(&format!("Union(1, Enum({symbol},")), "{symbol}: {shown}");
        }
    }

    #[test]
    fn what_has_no_bound_has_no_sample() {
        let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
        let tree = r#"{"type":"record","name":"T","fields":[{"name":"of","type":{"type":"array","items":"T"}}]}"#;
        for (schema, name) in [(list, "L"), (tree, "T")] {
            let name = name.to_owned();
            assert_eq!(samples(&parsed(schema)), Err(SampleError::Recursive { name }));
        }
        // Each type holds ten of the one before: records without a byte, more than can be counted.
        let mut fields = r#"{"name":"f","type":{"type":"record","name":"R0","fields":[]}}"#.to_owned();
        for level in 1..20 {
            let of = format!(r#""type":"R{}""#, level - 1);
            let ten: Vec<String> = (0..10).map(|n| format!(r#"{{"name":"f{n}",{of}}}"#)).collect();
            fields += &format!(
                r#",{{"name":"g{level}","type":{{"type":"record","name":"R{level}","fields":[{}]}}}}"#,
                ten.join(",")
            );
        }
        let schema = parsed(&format!(r#"{{"type":"record","name":"Many","fields":[{fields}]}}"#));
        assert_eq!(samples(&schema), Err(SampleError::TooLarge));
        // Not within themselves, and deep all the same.
        let link = |n: usize| {
            let of = format!(r#"{{"name":"of","type":"C{}"}}"#, n - 1);
            format!(r#"{{"name":"c{n}","type":{{"type":"record","name":"C{n}","fields":[{of}]}}}}"#)
        };
        let chain: Vec<String> = (1..200).map(link).collect();
        let schema = parsed(&format!(
            r#"{{"type":"record","name":"Chain","fields":[{{"name":"c0","type":{{"type":"record","name":"C0","fields":[]}}}},{}]}}"#,
            chain.join(",")
        ));
        assert_eq!(samples(&schema), Err(SampleError::TooLarge));
        let fixed = parsed(r#"{"type":"fixed","name":"F","size":2000000000}"#);
        assert_eq!(samples(&fixed), Err(SampleError::TooLarge));
    }
}
