//! Schemas of unusual size and shape: an answer, in bounded time, never a panic.

use std::time::{Duration, Instant};

use millrace_schema::Schema;
use millrace_schema::avro::Rule;
use millrace_schema::compat::{Mode, Version, check, reads};

fn nested(levels: usize) -> String {
    format!(
        "{}\"int\"{}",
        r#"{"type":"array","items":"#.repeat(levels),
        "}".repeat(levels)
    )
}

fn rule_of(text: &str) -> Option<Rule> {
    Schema::strict(text).err().map(|problems| problems[0].rule)
}

/// In a debug build on two busy cores; a release build takes a tenth.
const SOON: Duration = Duration::from_secs(120);

#[test]
fn deep_json_is_refused_with_a_reason() {
    assert_eq!(rule_of(&nested(250)), None);
    assert_eq!(rule_of(&nested(257)), Some(Rule::TooDeep));
    assert_eq!(rule_of(&nested(100_000)), Some(Rule::TooDeep));
    assert_eq!(rule_of(&"[".repeat(1 << 20)), Some(Rule::TooDeep));
    let default = format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":"int","default":{}}}]}}"#,
        "[".repeat(9000)
    );
    assert_eq!(rule_of(&default), Some(Rule::TooDeep));
}

#[test]
fn large_text_is_refused_unread() {
    assert_eq!(rule_of(&" ".repeat((4 << 20) + 1)), Some(Rule::TooLarge));
}

/// `R0` uses `R1` uses `R2` and so on, each by its name before its definition, so that the JSON stays flat.
fn chain(length: usize, kind: &str) -> String {
    let field = |at: usize| {
        format!(
            r#"{{"name":"f{at}","type":{{"type":"record","name":"R{at}","fields":[{{"name":"x","type":"{}"}}]}}}}"#,
            if at + 1 < length {
                format!("R{}", at + 1)
            } else {
                kind.to_owned()
            }
        )
    };
    let fields: Vec<String> = (0..length).map(field).collect();
    format!(r#"{{"type":"record","name":"Top","fields":[{}]}}"#, fields.join(","))
}

#[test]
fn a_long_chain_of_names_comes_to_an_end() {
    let begun = Instant::now();
    let (short, long) = (chain(400, "int"), chain(20_000, "int"));
    let (short, long) = (Schema::strict(&short).unwrap(), Schema::strict(&long).unwrap());
    assert!(reads(&short, &short).is_empty());
    let found = reads(&long, &long);
    assert_eq!(found[0].rule, Rule::TooDeep, "{found:?}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

/// Each record has two unions of the next: without memory the pairs would be 2^40.
#[test]
fn pairs_are_compared_once() {
    let begun = Instant::now();
    let schema = |end: &str| {
        let mut text = format!(r#""{end}""#);
        for at in 0..40 {
            text = if at == 0 {
                format!(r#"{{"type":"record","name":"R0","fields":[{{"name":"a","type":{text}}}]}}"#)
            } else {
                format!(
                    r#"{{"type":"record","name":"R{at}","fields":[{{"name":"a","type":["null",{text}]}},{{"name":"b","type":["null","R{}"]}}]}}"#,
                    at - 1
                )
            };
        }
        text
    };
    let (int, string) = (
        Schema::strict(&schema("int")).unwrap(),
        Schema::strict(&schema("string")).unwrap(),
    );
    assert!(reads(&int, &int).is_empty());
    assert!(reads(&int, &string).iter().any(|m| m.rule == Rule::TypeMismatch));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[test]
fn wide_unions_and_records_stay_bounded() {
    let begun = Instant::now();
    let union: Vec<String> = (0..8000)
        .map(|at| format!(r#"{{"type":"record","name":"R{at}","fields":[]}}"#))
        .collect();
    let others: Vec<String> = (0..8000)
        .map(|at| format!(r#"{{"type":"record","name":"S{at}","fields":[]}}"#))
        .collect();
    let (union, others) = (format!("[{}]", union.join(",")), format!("[{}]", others.join(",")));
    let report = check(Mode::Full, Version::new("new", &union), &[Version::new("old", &others)]);
    assert_eq!(report.findings[0].rule, Rule::TooLarge);
    let fields: Vec<String> = (0..20_000)
        .map(|at| format!(r#"{{"name":"f{at}","type":"int","default":0}}"#))
        .collect();
    let record = format!(r#"{{"type":"record","name":"R","fields":[{}]}}"#, fields.join(","));
    let report = check(
        Mode::Full,
        Version::new("new", &record),
        &[Version::new("old", &record)],
    );
    assert!(report.compatible, "{:?}", report.findings.first());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

/// A record's default is looked at once for each pair of type and value, not once for each way to it.
#[test]
fn defaults_of_defaults_are_looked_at_once() {
    let begun = Instant::now();
    let mut text = r#"{"type":"record","name":"R0","fields":[]}"#.to_owned();
    for at in 1..40 {
        text = format!(
            r#"{{"type":"record","name":"R{at}","fields":[{{"name":"a","type":{text},"default":{{}}}},{{"name":"b","type":"R{}","default":{{}}}}]}}"#,
            at - 1
        );
    }
    assert_eq!(rule_of(&text), None);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}
