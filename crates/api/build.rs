//! Compiles the protos with protox (no protoc on the machine) and keeps the descriptors for reflection.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTOS: [&str; 6] = [
    "millrace/ingest/v1/ingest.proto",
    "millrace/ingest/v1/dead_letters.proto",
    "millrace/embedder/v1/embedder.proto",
    "millrace/indexer/v1/search.proto",
    "millrace/indexer/v1/audit.proto",
    "millrace/pipeline/v1/pipeline.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(PROTOS, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("millrace.binpb"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
