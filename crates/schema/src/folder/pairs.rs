//! Each schema by itself, and each version against those before it, as the registry will see them.

use std::collections::BTreeSet;

use super::Topic;
use super::check::Notes;
use super::finding::{Finding, Rule};
use super::settings::Settings;
use crate::avro;
use crate::compat::{self, Direction, Mode};

/// Checks a topic's schemas. Returns the numbers of the versions that are valid by themselves.
pub(super) fn check(notes: &mut Notes, settings: &Settings, topic: &Topic) -> BTreeSet<u32> {
    let mode = settings.mode_of(&topic.name);
    let (mut previous, mut valid) = (Vec::new(), BTreeSet::new());
    for version in &topic.versions {
        let Some(text) = version.text() else {
            if version.file.is_some() {
                let remedy = "make it a UTF-8 file";
                notes
                    .findings
                    .push(Rule::Unreadable.at(&version.path, "it is no UTF-8", remedy));
            }
            continue;
        };
        notes.summary.pairs += pairs_of(mode, previous.len());
        let report = compat::check(mode, compat::Version::new(&version.path, text), &previous);
        if report.candidate_valid {
            valid.insert(version.number);
        } else if let Err(e) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
            // Told here and not by the checker, because this error knows its line.
            let finding = Rule::NotJson.at(&version.path, format!("not JSON: {e}"), "correct the JSON");
            notes.findings.push(finding.on_line(e.line()));
            continue;
        }
        // What the registry refuses has no exception; what is wrong with a version alone may be published long ago.
        let told = report.findings.iter().map(|f| (f, f.direction == Direction::Candidate));
        for (found, may_be_excepted) in told.chain(report.risks.iter().map(|f| (f, true))) {
            // A version that cannot be read has a finding of its own.
            if found.rule == avro::Rule::InvalidStoredVersion {
                continue;
            }
            if !(may_be_excepted && excepted(notes, settings, &topic.name, found.rule.code())) {
                notes.findings.push(finding(&version.path, text, found));
            }
        }
        previous.push(compat::Version::new(&version.path, text));
    }
    valid
}

/// Readers against writers that a candidate brings, with so many versions before it.
fn pairs_of(mode: Mode, previous: usize) -> usize {
    let compared = if mode.is_transitive() {
        previous
    } else {
        previous.min(1)
    };
    mode.directions().len() * compared
}

fn excepted(notes: &mut Notes, settings: &Settings, topic: &str, rule: &str) -> bool {
    let places = settings.allow.iter().enumerate();
    let found: Vec<usize> = places
        .filter(|(_, a)| a.excepts(topic, rule))
        .map(|(place, _)| place)
        .collect();
    notes.used.extend(&found);
    !found.is_empty()
}

fn finding(path: &str, text: &str, found: &compat::Finding) -> Finding {
    let pair = match found.direction {
        Direction::Backward => format!("this version as the reader of {}: ", found.against),
        Direction::Forward => format!("{} as the reader of this version: ", found.against),
        Direction::Candidate => String::new(),
    };
    let place = if found.path.is_empty() {
        String::new()
    } else {
        format!("{}: ", found.path)
    };
    Finding {
        path: path.to_owned(),
        line: line_of(text, &found.path),
        rule: found.rule.code().to_owned(),
        message: format!("{pair}{place}{}", found.message),
        remedy: continued(found.remedy),
    }
}

/// A sentence as the end of another: `Keep the name.` is `keep the name`.
fn continued(sentence: &str) -> String {
    let mut chars = sentence.trim_end_matches('.').chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

/// The line of a place in a schema: of the last of its fields that can be found, each after the one before.
fn line_of(text: &str, place: &str) -> Option<usize> {
    let (mut steps, mut at) = (place.split('/'), None);
    while let Some(step) = steps.next() {
        if step != "fields" {
            continue;
        }
        let Some(field) = steps.next() else { break };
        let from = at.unwrap_or(0);
        match text[from..]
            .match_indices(&format!("\"{field}\""))
            .find(|(i, _)| is_name(&text[..from + i]))
        {
            Some((found, _)) => at = Some(from + found),
            None => break,
        }
    }
    at.map(|at| text[..at].matches('\n').count() + 1)
}

/// Whether a value follows `"name":`.
fn is_name(before: &str) -> bool {
    let key = before.trim_end().strip_suffix(':');
    key.is_some_and(|key| key.trim_end().ends_with("\"name\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_line() {
        let text = "{\"fields\": [\n{\"name\": \"a\",\n \"doc\": \"b\"},\n{ \"name\" : \"b\", \"type\": {\"fields\": [\n{\"name\":\"a\"}]}}]}";
        for (place, line) in [
            ("", None),
            ("/fields/a", Some(2)),
            ("/fields/b/type", Some(4)),
            ("/fields/b/type/fields/a/type", Some(5)),
            ("/fields/b/fields/gone", Some(4)),
            ("/fields/gone", None),
            ("/fields", None),
        ] {
            assert_eq!(line_of(text, place), line, "{place}");
        }
    }

    #[test]
    fn pairs_are_counted_by_mode() {
        let count = |mode| [0, 1, 3].map(|previous| pairs_of(mode, previous));
        assert_eq!(count(Mode::None), [0, 0, 0]);
        assert_eq!(count(Mode::Backward), [0, 1, 1]);
        assert_eq!(count(Mode::Full), [0, 2, 2]);
        assert_eq!(count(Mode::ForwardTransitive), [0, 1, 3]);
        assert_eq!(count(Mode::FullTransitive), [0, 2, 6]);
    }
}
