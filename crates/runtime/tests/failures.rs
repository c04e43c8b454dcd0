//! docs/failures.md and the code name the same reasons.
// Clippy takes only `#[test]` functions for tests, not what they call.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where failures of records are made. gRPC refusals are another matter, with codes of their own.
const SOURCES: [&str; 7] = [
    "crates/flow/src",
    "crates/kafka/src/positions.rs",
    "crates/runtime/src/codec.rs",
    "services/embedder/src/pipeline",
    "services/indexer/src/pipeline",
    "services/ingest/src/codec.rs",
    "services/ingest/src/pipeline",
];
/// Upper-case words that are no reasons: classes, and what they stand beside.
const OTHERS: [&str; 9] = [
    "TRANSIENT",
    "RATE_LIMITED",
    "CONFIG",
    "INVALID",
    "FAILED",
    "INVALID_ARGUMENT",
    "OUT_OF_RANGE",
    "MILLRACE_TEST_TOKENIZER",
    "CHUNK",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    entries.flat_map(|entry| files(&entry.unwrap().path())).collect()
}

/// A file without its tests.
fn code(path: &Path) -> String {
    let name = path.file_name().unwrap().to_string_lossy();
    let of_tests = name.ends_with("tests.rs") || path.parent().is_some_and(|folder| folder.ends_with("tests"));
    if !name.ends_with(".rs") || of_tests {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Words of capitals between two marks: `"` in code, a backtick in prose. Three letters at least: no names of types.
fn words(text: &str, mark: char) -> BTreeSet<String> {
    let quoted = text.split(mark).filter(|word| {
        let word_like = |c: char| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit();
        word.len() > 2 && word.chars().all(word_like) && !OTHERS.contains(word)
    });
    quoted.map(str::to_owned).collect()
}

/// Names of an enum of a contract, without their prefix.
fn names_of(contract: &str, prefix: &str) -> Vec<String> {
    let contract = fs::read_to_string(root().join("proto/millrace").join(contract)).unwrap();
    let values = contract.lines().filter_map(|line| line.trim().strip_prefix(prefix));
    let names = values.filter_map(|rest| rest.split(' ').next());
    names.filter(|name| *name != "UNSPECIFIED").map(str::to_owned).collect()
}

#[test]
fn every_reason_is_documented_and_every_documented_reason_exists() {
    let sources = SOURCES.iter().flat_map(|path| files(&root().join(path)));
    let code: String = sources.map(|path| code(&path)).collect();
    let mut made = words(&code, '"');
    // These begin a longer text.
    for start in ["DEAD_LETTER_REFUSED", "LOST_RANGE", "LOG_RECREATED", "OFFSET_METADATA"] {
        assert!(code.contains(&format!("\"{start}")), "{start}");
        made.insert(start.to_owned());
    }
    // Why a dead letter is passed over is an enum of the contract.
    made.extend(names_of("ingest/v1/dead_letters.proto", "SKIP_REASON_"));
    // What an audit finds, and what becomes of it, too.
    made.extend(names_of("indexer/v1/audit.proto", "AUDIT_FINDING_KIND_"));
    made.extend(names_of("indexer/v1/audit.proto", "AUDIT_REPAIR_"));
    let documented = words(&fs::read_to_string(root().join("docs/failures.md")).unwrap(), '`');
    let undocumented: Vec<_> = made.difference(&documented).collect();
    let invented: Vec<_> = documented.difference(&made).collect();
    assert!(undocumented.is_empty(), "not in docs/failures.md: {undocumented:?}");
    assert!(
        invented.is_empty(),
        "in docs/failures.md, but made nowhere: {invented:?}"
    );
}
