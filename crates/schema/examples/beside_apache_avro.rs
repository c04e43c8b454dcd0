//! What `apache_avro::schema_compatibility` says of our table of cases (ADR 18).
//!
//!     cargo run -p millrace-schema --example beside_apache_avro

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use serde_json::Value;

#[derive(Default)]
struct Counts {
    rows: usize,
    yes_to_broken: usize,
    /// Of those, what `can_read(…).is_ok()` alone takes for a yes.
    partial: usize,
    no_to_good: usize,
    unread: usize,
}

fn main() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema/cases");
    let mut counts = Counts::default();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let rows: Vec<Value> = serde_json::from_str(&fs::read_to_string(entry?.path())?)?;
        for row in rows {
            let (Some(reader), Some(writer), Some(finds)) = (row.get("reader"), row.get("writer"), row.get("finds"))
            else {
                continue;
            };
            counts.rows += 1;
            let good = finds.as_array().is_some_and(Vec::is_empty);
            let parsed = (
                Schema::parse_str(&reader.to_string()),
                Schema::parse_str(&writer.to_string()),
            );
            let (Ok(reader), Ok(writer)) = parsed else {
                counts.unread += 1;
                println!("cannot be parsed: {}", row["why"]);
                continue;
            };
            match (SchemaCompatibility::can_read(&writer, &reader), good) {
                (Ok(Compatibility::Full), false) => {
                    counts.yes_to_broken += 1;
                    println!("yes to a broken pair: {}", row["why"]);
                }
                (Ok(_), false) => counts.partial += 1,
                (Err(why), true) => {
                    counts.no_to_good += 1;
                    println!("no to a good pair: {} ({why})", row["why"]);
                }
                (Ok(_), true) | (Err(_), false) => {}
            }
        }
    }
    println!(
        "{} rows: yes to {} broken pairs, and `Partial`, an `Ok`, to {} more; no to {} good pairs; {} not parsed",
        counts.rows, counts.yes_to_broken, counts.partial, counts.no_to_good, counts.unread
    );
    Ok(())
}
