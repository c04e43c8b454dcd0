//! docs/guarantees.md and the code name the same crash points and the same mutants.
// Clippy takes only `#[test]` functions for tests, not what they call.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use millrace_failpoints::{mutants, points};

/// The first two cells of each row below a heading.
fn rows(heading: &str) -> BTreeSet<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guarantees.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once(heading).unwrap();
    let section = section.split("\n### ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| {
        let mut cells = row.split(" | ");
        Some((cells.next()?.strip_suffix('`')?.to_owned(), cells.next()?.to_owned()))
    })
    .collect()
}

#[test]
fn every_crash_point_is_a_row_and_every_row_a_crash_point() {
    let points = points::ALL.iter().map(|p| (p.name.to_owned(), p.between.to_owned()));
    assert_eq!(rows("\n### Scripted crashes"), points.collect());
}

#[test]
fn every_mutant_is_a_row_and_every_row_a_mutant() {
    let mutants = mutants::ALL.iter().map(|m| (m.name.to_owned(), m.does.to_owned()));
    assert_eq!(rows("\n### Rules broken on purpose"), mutants.collect());
}
