//! The checker against the tables in `cases/`. A row says what it shows (`why`), who says so (`source`), and what is found.
//!
//! | a row with | is checked by | expects in |
//! |---|---|---|
//! | `reader`, `writer`, `finds` | `reads` | `finds`: `RULE path`, none where it can be read |
//! | `candidate` (or `text`), maybe `references` | `Schema::strict` and `check` | `finds`, and `risks` of a valid one |
//! | `stored` | `Schema::lenient` | `readable` |
//! | `mode`, `candidate`, `previous` | `check` | `finds`: `DIRECTION version RULE path` |
//! | `reader`, `writer`, `risks` | `risks` | `risks`: `RULE path` |
// Clippy takes only `#[test]` functions for tests, not what they call.
#![allow(clippy::unwrap_used)]

use millrace_schema::Schema;
use millrace_schema::avro::{Problem, Rule};
use millrace_schema::compat::{Mode, Version, check, reads, risks};
use serde_json::Value;

const TABLES: &[(&str, &str)] = &[
    ("types", include_str!("cases/types.json")),
    ("unions", include_str!("cases/unions.json")),
    ("records", include_str!("cases/records.json")),
    ("names", include_str!("cases/names.json")),
    ("enums_and_fixed", include_str!("cases/enums_and_fixed.json")),
    ("recursion", include_str!("cases/recursion.json")),
    ("logical_types", include_str!("cases/logical_types.json")),
    ("candidates", include_str!("cases/candidates.json")),
    ("stored", include_str!("cases/stored.json")),
    ("modes", include_str!("cases/modes.json")),
    ("risks", include_str!("cases/risks.json")),
];

fn rows() -> Vec<(String, Value)> {
    let rows = TABLES.iter().flat_map(|(table, text)| {
        let rows: Vec<Value> = serde_json::from_str(text).unwrap_or_else(|e| panic!("{table}: {e}"));
        rows.into_iter().map(move |row| {
            let name = format!(
                "{table}: {} ({})",
                row["why"].as_str().unwrap(),
                row["source"].as_str().unwrap()
            );
            (name, row)
        })
    });
    rows.collect()
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn shown(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|p| format!("{} {}", p.rule, p.path)).collect()
}

fn lenient(schema: &Value) -> Schema {
    Schema::lenient(&schema.to_string()).unwrap_or_else(|problem| panic!("{schema}: {problem:?}"))
}

/// What was found, and what the row expects.
fn run(row: &Value) -> (Vec<String>, Vec<String>) {
    if row.get("reader").is_some() {
        let (reader, writer) = (lenient(&row["reader"]), lenient(&row["writer"]));
        return match row.get("risks") {
            Some(expected) => (shown(&risks(&reader, &writer)), texts(expected)),
            None => (shown(&reads(&reader, &writer)), texts(&row["finds"])),
        };
    }
    if let Some(stored) = row.get("stored") {
        let readable = Schema::lenient(&stored.to_string()).is_ok();
        return (vec![readable.to_string()], vec![row["readable"].to_string()]);
    }
    if let Some(mode) = row.get("mode") {
        return run_mode(row, mode.as_str().unwrap().parse().unwrap());
    }
    let text = row
        .get("text")
        .map_or_else(|| row["candidate"].to_string(), |t| t.as_str().unwrap().to_owned());
    let references: Vec<String> = row["references"]
        .as_array()
        .into_iter()
        .flatten()
        .map(Value::to_string)
        .collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let found = Schema::strict_with(&text, &references).err().unwrap_or_default();
    let report = check(
        Mode::None,
        Version {
            name: "candidate",
            schema: &text,
            references: &references,
        },
        &[],
    );
    assert_eq!(report.candidate_valid, found.is_empty());
    let with_risks =
        |finds: Vec<String>, risks: Vec<String>| [finds, risks.iter().map(|r| format!("risk {r}")).collect()].concat();
    let risks = report.risks.iter().map(|r| format!("{} {}", r.rule, r.path)).collect();
    (
        with_risks(shown(&found), risks),
        with_risks(texts(&row["finds"]), texts(&row["risks"])),
    )
}

fn run_mode(row: &Value, mode: Mode) -> (Vec<String>, Vec<String>) {
    let previous: Vec<(String, String)> = row["previous"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(at, schema)| (format!("v{}", at + 1), schema.to_string()))
        .collect();
    let previous: Vec<Version<'_>> = previous
        .iter()
        .map(|(name, schema)| Version::new(name, schema))
        .collect();
    let candidate = row["candidate"].to_string();
    let report = check(mode, Version::new("candidate", &candidate), &previous);
    assert_eq!(report.compatible, report.findings.is_empty());
    let direction = |finding| serde_json::to_value(finding).unwrap();
    let found = report.findings.iter().map(|f| {
        format!(
            "{} {} {} {}",
            direction(f.direction).as_str().unwrap(),
            f.against,
            f.rule,
            f.path
        )
    });
    (found.collect(), texts(&row["finds"]))
}

#[test]
fn every_row_of_the_tables_is_right() {
    let rows = rows();
    assert!(rows.len() >= 150, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for (name, row) in &rows {
        let (found, expected) = run(row);
        if found != expected {
            wrong.push(format!("{name}\n  found    {found:?}\n  expected {expected:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows are wrong:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_rule_has_a_row() {
    // Those that only a schema of an unusual size breaks are in `limits`.
    let elsewhere = [Rule::TooLarge, Rule::TooDeep];
    let all: String = TABLES.iter().map(|(_, text)| *text).collect();
    let missing: Vec<_> = Rule::ALL
        .iter()
        .filter(|rule| !elsewhere.contains(rule) && !all.contains(&format!("{rule} ")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_report_is_what_scripts_expect() {
    let report = check(
        Mode::Full,
        Version::new(
            "new.avsc",
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#,
        ),
        &[Version::new(
            "old.avsc",
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#,
        )],
    );
    let expected = serde_json::json!({
        "mode": "FULL",
        "compatible": false,
        "candidate_valid": true,
        "risks": [{
            "direction": "BACKWARD",
            "against": "old.avsc",
            "path": "/fields/a/type",
            "rule": "NUMBER_WIDENED",
            "message": "the reader expects long, the writer writes int",
            "remedy": Rule::NumberWidened.remedy(),
        }],
        "findings": [{
            "direction": "FORWARD",
            "against": "old.avsc",
            "path": "/fields/a/type",
            "rule": "TYPE_MISMATCH",
            "message": "the reader expects int, the writer writes long",
            "remedy": Rule::TypeMismatch.remedy(),
        }],
    });
    assert_eq!(serde_json::to_value(&report).unwrap(), expected);
}

#[test]
fn modes_are_spelt_as_registries_do() {
    for mode in Mode::ALL {
        assert_eq!(mode.to_string().parse(), Ok(mode));
    }
    let error = "full".parse::<Mode>().unwrap_err().to_string();
    assert!(error.contains("`full` is not a compatibility mode"), "{error}");
    assert!(error.contains("BACKWARD_TRANSITIVE"), "{error}");
}
