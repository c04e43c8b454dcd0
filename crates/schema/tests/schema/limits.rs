//! Schemas of unusual size and shape: an answer, never a panic. No clocks: without their bounds most of these would not end
//! in years.

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

/// As deep as may be, on the small stack of a test's thread.
#[test]
fn the_deepest_schemas_that_are_read_fit_the_stack() {
    let records = |levels: usize| {
        let open: String = (0..levels)
            .map(|at| {
                format!(r#"{{"type":"record","name":"R{at}","fields":[{{"name":"f","default":null,"type":["null","#)
            })
            .collect();
        format!("{open}\"int\"{}", "]}]}".repeat(levels))
    };
    // Five levels of JSON each.
    let deep = records(51);
    let report = check(Mode::Full, Version::new("new", &deep), &[Version::new("old", &deep)]);
    assert!(report.compatible, "{:?}", report.findings.first());
    let unions: Vec<String> = (0..2000)
        .map(|at| {
            let next = format!(r#"["null","R{}"]"#, at + 1);
            format!(r#"{{"name":"f{at}","type":{{"type":"record","name":"R{at}","fields":[{{"name":"x","type":{next}}}]}}}}"#)
        })
        .collect();
    let last = r#"{"name":"last","type":{"type":"record","name":"R2000","fields":[]}}"#;
    let chain = format!(
        r#"{{"type":"record","name":"Top","fields":[{},{last}]}}"#,
        unions.join(",")
    );
    let report = check(Mode::Full, Version::new("new", &chain), &[Version::new("old", &chain)]);
    assert_eq!(report.findings[0].rule, Rule::TooDeep);
    let defaults: Vec<String> = (0..2000)
        .map(|at| format!(r#"{{"name":"f{at}","type":{{"type":"record","name":"R{at}","fields":[{{"name":"x","type":"R{}","default":{{}}}}]}}}}"#, at + 1))
        .collect();
    let chain = format!(
        r#"{{"type":"record","name":"Top","fields":[{},{last},{{"name":"z","type":"R0","default":{{}}}}]}}"#,
        defaults.join(",")
    );
    assert_eq!(rule_of(&chain), Some(Rule::InvalidDefault));
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
    let (short, long) = (chain(400, "int"), chain(5000, "int"));
    let (short, long) = (Schema::strict(&short).unwrap(), Schema::strict(&long).unwrap());
    assert!(reads(&short, &short).is_empty());
    let found = reads(&long, &long);
    assert_eq!(found[0].rule, Rule::TooDeep, "{found:?}");
}

/// Each record has two unions of the next: without memory the pairs would be 2^40.
#[test]
fn pairs_are_compared_once() {
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
}

#[test]
fn wide_unions_and_records_stay_bounded() {
    let union: Vec<String> = (0..1500)
        .map(|at| format!(r#"{{"type":"record","name":"R{at}","fields":[]}}"#))
        .collect();
    let others: Vec<String> = (0..1500)
        .map(|at| format!(r#"{{"type":"record","name":"S{at}","fields":[]}}"#))
        .collect();
    let (union, others) = (format!("[{}]", union.join(",")), format!("[{}]", others.join(",")));
    let report = check(
        Mode::Backward,
        Version::new("new", &union),
        &[Version::new("old", &others)],
    );
    assert_eq!(report.findings[0].rule, Rule::TooLarge);
    let fields: Vec<String> = (0..5000)
        .map(|at| format!(r#"{{"name":"f{at}","type":"int","default":0}}"#))
        .collect();
    let record = format!(r#"{{"type":"record","name":"R","fields":[{}]}}"#, fields.join(","));
    let report = check(
        Mode::Full,
        Version::new("new", &record),
        &[Version::new("old", &record)],
    );
    assert!(report.compatible, "{:?}", report.findings.first());
}

/// A record's default is looked at once for each pair of type and value, not once for each way to it.
#[test]
fn defaults_of_defaults_are_looked_at_once() {
    let mut text = r#"{"type":"record","name":"R0","fields":[]}"#.to_owned();
    for at in 1..40 {
        text = format!(
            r#"{{"type":"record","name":"R{at}","fields":[{{"name":"a","type":{text},"default":{{}}}},{{"name":"b","type":"R{}","default":{{}}}}]}}"#,
            at - 1
        );
    }
    assert_eq!(rule_of(&text), None);
}
