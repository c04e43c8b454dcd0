//! The rows of our own table, asked of Java: an expectation that Java does not share is wrong.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Pair;
use crate::java::Java;

/// Rows whose expectation Java answers, and those that it contradicts.
pub struct Table {
    pub asked: usize,
    pub wrong: Vec<String>,
}

pub fn ask(java: &mut Java) -> Result<Table> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema/cases");
    let mut names = Vec::new();
    let mut pairs = Vec::new();
    let mut expected = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let rows: Vec<Value> = serde_json::from_str(&fs::read_to_string(&path)?)?;
        for row in &rows {
            let Some((pair, letter, answer)) = question(row) else {
                continue;
            };
            names.push(format!("{}: {}", path.display(), row["why"]));
            pairs.push(pair);
            expected.push((letter, answer));
        }
    }
    let mut wrong = Vec::new();
    for ((name, answer), (letter, expected)) in names.into_iter().zip(java.ask(&pairs)?).zip(expected) {
        if answer.as_bytes().get(letter) != Some(&expected) {
            wrong.push(format!("{name}: Java says {answer}"));
        }
    }
    Ok(Table {
        asked: pairs.len(),
        wrong,
    })
}

/// What to ask, which letter of the answer counts, and what it should be. None for what Java alone does not decide.
fn question(row: &Value) -> Option<(Pair, usize, u8)> {
    let pair = |candidate: String, previous: &Value| Pair {
        candidate,
        previous: previous.to_string(),
    };
    let letter = |yes: bool| if yes { b'y' } else { b'n' };
    let finds_nothing = row["finds"].as_array().is_some_and(Vec::is_empty);
    if row.get("risks").is_some() && row.get("finds").is_none() || row.get("references").is_some() {
        return None;
    }
    if let (Some(reader), Some(writer)) = (row.get("reader"), row.get("writer")) {
        return Some((pair(reader.to_string(), writer), 3, letter(finds_nothing)));
    }
    if let Some(stored) = row.get("stored") {
        let newest = row["source"].as_str()?.contains("1.12.2") || row["source"].as_str()?.contains("fact");
        let readable = row["readable"].as_bool()?;
        return newest.then(|| (pair("\"int\"".to_owned(), stored), 2, letter(readable)));
    }
    if row.get("mode").is_some() {
        return None;
    }
    let text = match row.get("text") {
        Some(text) => text.as_str()?.to_owned(),
        None => row["candidate"].to_string(),
    };
    Some((pair(text, &Value::from("int")), 0, letter(finds_nothing)))
}
