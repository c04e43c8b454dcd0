//! Writes the seeds of the target `wire`: a whole record of each topic, all its fields at their defaults.
//!
//!     cargo run --manifest-path fuzz/Cargo.toml --example seeds

use std::path::Path;

use apache_avro::Schema;
use millrace_events::wire::{SchemaId, encode};
use millrace_events::{
    ChunksEmbedded, DeadLetter, DocumentParsed, DocumentStatus, DocumentSubmitted, Record, VectorsIndexed,
};

fn seed<R: Record + Default>(choice: u8) -> Result<(), Box<dyn std::error::Error>> {
    let schema = Schema::parse_str(R::TOPIC.schema.ok_or("the topic has no schema")?)?;
    let mut bytes = vec![choice];
    bytes.extend(encode(&R::default(), &schema, SchemaId(1))?);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/wire");
    std::fs::write(folder.join(R::TOPIC.name), bytes)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    seed::<DocumentSubmitted>(0)?;
    seed::<DocumentParsed>(1)?;
    seed::<ChunksEmbedded>(2)?;
    seed::<VectorsIndexed>(3)?;
    seed::<DocumentStatus>(4)?;
    seed::<DeadLetter>(5)
}
