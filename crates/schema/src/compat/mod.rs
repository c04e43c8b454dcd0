//! Whether a candidate fits the versions before it: the registry's verdict, and beside it our own stricter one.
//!
//! The first equals that of Java Avro 1.12, which Confluent's and Apicurio's registries ask. The second lists what they let
//! through although consumers break or data is lost ([`risks`]).

mod finding;
mod known;
mod mode;
mod path;
mod reads;
mod reasons;
mod risks;

use crate::avro::{Problem, Rule, Schema};

pub use finding::{Direction, Finding, Mismatch, Report};
pub use mode::{Mode, UnknownMode};
pub use reads::reads;
pub use risks::risks;

/// A schema by its name, for example `v2` or a file's path.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// How findings call it.
    pub name: &'a str,
    /// The schema, as JSON.
    pub schema: &'a str,
    /// Other schemas that it refers to by name, in the order of their dependence.
    pub references: &'a [&'a str],
}

impl<'a> Version<'a> {
    /// A schema that refers to no other.
    pub fn new(name: &'a str, schema: &'a str) -> Self {
        Self {
            name,
            schema,
            references: &[],
        }
    }
}

/// Checks a candidate against the versions before it, oldest first.
///
/// | the candidate | compared with the versions | compatible |
/// |---|---|---|
/// | is a schema | those that the mode asks for | if nothing is found |
/// | is not, but can be read without its names and defaults | the same | no |
/// | cannot be read | none | no |
pub fn check(mode: Mode, candidate: Version<'_>, previous: &[Version<'_>]) -> Report {
    let mut report = Report {
        mode,
        compatible: true,
        candidate_valid: true,
        risks: Vec::new(),
        findings: Vec::new(),
    };
    let itself = |problem| Finding::new(Direction::Candidate, candidate.name, problem);
    let schema = match Schema::strict_with(candidate.schema, candidate.references) {
        Ok(schema) => {
            report.risks.extend(schema.notes().iter().cloned().map(itself));
            Some(schema)
        }
        Err(problems) => {
            report.candidate_valid = false;
            report.findings.extend(problems.into_iter().map(itself));
            Schema::lenient_with(candidate.schema, candidate.references).ok()
        }
    };
    if let Some(schema) = schema {
        let latest = previous.len().saturating_sub(1);
        let compared = if mode.is_transitive() {
            previous
        } else {
            &previous[latest..]
        };
        let compared = if mode.directions().is_empty() { &[] } else { compared };
        for version in compared {
            compare(&mut report, &schema, version);
        }
    }
    report.compatible = report.findings.is_empty();
    report
}

fn compare(report: &mut Report, candidate: &Schema, version: &Version<'_>) {
    let stored = match Schema::lenient_with(version.schema, version.references) {
        Ok(stored) => stored,
        Err(problem) => {
            let message = format!("the stored version cannot be read: {}", problem.message);
            let problem = Problem::new(Rule::InvalidStoredVersion, problem.path, message);
            let direction = report.mode.directions().first().copied().unwrap_or(Direction::Backward);
            report.findings.push(Finding::new(direction, version.name, problem));
            return;
        }
    };
    for direction in report.mode.directions() {
        let (reader, writer) = match direction {
            Direction::Backward => (candidate, &stored),
            Direction::Forward => (&stored, candidate),
            Direction::Candidate => continue,
        };
        let named = |mismatch| Finding::new(*direction, version.name, mismatch);
        let (mismatches, risks) = reads::verdicts(reader, writer);
        report.findings.extend(mismatches.into_iter().map(named));
        report.risks.extend(risks.into_iter().map(named));
    }
}
