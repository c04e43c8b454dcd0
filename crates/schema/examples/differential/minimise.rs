//! The smallest pair on which the two still differ, found by taking parts away.

use anyhow::Result;
use serde_json::Value;

use crate::java::Java;
use crate::{Pair, ours};

const ROUNDS: usize = 60;

pub fn minimise(pair: &Pair, java: &mut Java) -> Result<Pair> {
    let mut best = pair.clone();
    for _ in 0..ROUNDS {
        let smaller = smaller(&best);
        let answers = java.ask(&smaller)?;
        let next = smaller
            .into_iter()
            .zip(answers)
            .find(|(pair, theirs)| ours(pair) != *theirs);
        match next {
            Some((pair, _)) => best = pair,
            None => break,
        }
    }
    Ok(best)
}

fn smaller(pair: &Pair) -> Vec<Pair> {
    let parts = |text: &str| serde_json::from_str(text).map(|value| less(&value)).unwrap_or_default();
    let candidates = parts(&pair.candidate).into_iter().map(|candidate| Pair {
        candidate: candidate.to_string(),
        previous: pair.previous.clone(),
    });
    let previous = parts(&pair.previous).into_iter().map(|previous| Pair {
        candidate: pair.candidate.clone(),
        previous: previous.to_string(),
    });
    candidates.chain(previous).collect()
}

/// All values with one part less, or one part in the whole's place.
fn less(value: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    match value {
        Value::Array(items) => {
            all.extend(items.iter().cloned());
            for at in 0..items.len() {
                let mut fewer = items.clone();
                fewer.remove(at);
                all.push(Value::Array(fewer));
                for inner in less(&items[at]) {
                    let mut changed = items.clone();
                    changed[at] = inner;
                    all.push(Value::Array(changed));
                }
            }
        }
        Value::Object(map) => {
            all.extend(["items", "values"].iter().filter_map(|key| map.get(*key).cloned()));
            for key in map.keys() {
                let mut fewer = map.clone();
                fewer.remove(key);
                all.push(Value::Object(fewer));
                for inner in less(&map[key]) {
                    let mut changed = map.clone();
                    changed.insert(key.clone(), inner);
                    all.push(Value::Object(changed));
                }
            }
        }
        Value::String(text) if text != "int" && text.len() > 1 => all.push("int".into()),
        _ => {}
    }
    all
}
