//! The golden records of a topic: each by its own schema, by every version that must read it, by the decoder in use.

use std::collections::{BTreeMap, BTreeSet};

use apache_avro::Schema;

use super::check::{Decoder, Notes};
use super::finding::Rule;
use super::settings::Settings;
use super::{Case, Topic, Version, golden};
use crate::compat::Mode;

/// A version with its schema as apache-avro has it: that is what reads records here and in Millrace's services.
struct Parsed<'a> {
    version: &'a Version,
    text: &'a str,
    schema: Schema,
}

/// Checks a topic's golden records. Versions that are not `valid` have their own findings.
pub(super) fn check(
    notes: &mut Notes,
    settings: &Settings,
    topic: &Topic,
    valid: &BTreeSet<u32>,
    decoder: Decoder<'_>,
) {
    let mode = settings.mode_of(&topic.name);
    let mut parsed = BTreeMap::new();
    for version in topic.versions.iter().filter(|v| valid.contains(&v.number)) {
        let Some(text) = version.text() else { continue };
        match golden::parse(text) {
            Ok(schema) => {
                parsed.insert(version.number, Parsed { version, text, schema });
            }
            Err(e) => {
                let message = format!("the golden records cannot be read with this schema: apache-avro says: {e}");
                let remedy = "write the schema so that Rust's decoder takes it: define types before they are used";
                notes
                    .findings
                    .push(Rule::GoldenUntried.at(&version.path, message, remedy));
            }
        }
    }
    for writer in parsed.values() {
        let readers = parsed.values().filter(|reader| {
            let number = reader.version.number;
            settings.supports(&topic.name, number) && promised(mode, number, writer.version.number)
        });
        let readers: Vec<&Parsed<'_>> = readers.collect();
        for case in &writer.version.golden {
            notes.summary.golden_records += 1;
            let Some(body) = own(notes, writer, case) else { continue };
            for reader in &readers {
                notes.summary.readings += 1;
                if let Err(e) = golden::decode(body, &writer.schema, Some(&reader.schema)) {
                    let (reader, writer) = (reader.version.number, writer.version.number);
                    let message =
                        format!("a reader with version {reader} cannot read this record of version {writer}: {e}");
                    let remedy = "change the newer version so that both can be read; if no reader uses that version any more, \
                                  leave it out of `supported` in schemas.toml";
                    notes
                        .findings
                        .push(Rule::GoldenUnreadable.at(&body_path(case), message, remedy));
                }
            }
            if let Some(read) = decoder(&topic.name, writer.text, body) {
                notes.summary.readings += 1;
                if let Err(why) = read {
                    let message = format!("the decoder in use cannot read this record: {why}");
                    let remedy = "mend the decoder's record type, or the version if it is not published";
                    notes
                        .findings
                        .push(Rule::GoldenDecoder.at(&body_path(case), message, remedy));
                }
            }
        }
    }
}

/// A case by itself: both files, telling the same. Its body, if it can be read by its own schema.
fn own<'a>(notes: &mut Notes, writer: &Parsed<'_>, case: &'a Case) -> Option<&'a [u8]> {
    let json_path = format!("{}.json", case.path);
    let json = match &case.json {
        None => {
            let remedy = "add it: it tells people what the record says";
            notes
                .findings
                .push(Rule::GoldenPair.at(&json_path, "this golden record has no .json", remedy));
            None
        }
        Some(file) => serde_json::from_slice(&file.bytes)
            .inspect_err(|e| {
                let finding = Rule::NotJson.at(&json_path, format!("not JSON: {e}"), "correct the JSON");
                notes.findings.push(finding.on_line(e.line()));
            })
            .ok(),
    };
    let Some(body) = &case.body else {
        let remedy = "write it with `millrace schema golden`";
        notes
            .findings
            .push(Rule::GoldenPair.at(&body_path(case), "this golden record has no .avro", remedy));
        return None;
    };
    if let Err(e) = golden::decode(&body.bytes, &writer.schema, None) {
        let message = format!(
            "the record does not follow its own schema, version {}: {e}",
            writer.version.number
        );
        let remedy = "write it again with `millrace schema golden`, or restore it if it is published";
        notes
            .findings
            .push(Rule::GoldenUnreadable.at(&body_path(case), message, remedy));
        return None;
    }
    match json.map(|json| golden::says_the_same(&writer.schema, &json, &body.bytes)) {
        None | Some(Ok(true)) => {}
        Some(Ok(false)) => {
            let message = format!("its bytes are another record than {json_path}");
            let remedy = "write it again with `millrace schema golden`, or restore the one that is published";
            notes
                .findings
                .push(Rule::GoldenDiffers.at(&body_path(case), message, remedy));
        }
        Some(Err(e)) => {
            let message = format!("the record does not follow version {}: {e}", writer.version.number);
            notes
                .findings
                .push(Rule::GoldenInvalid.at(&json_path, message, "correct the record"));
        }
    }
    Some(&body.bytes)
}

fn body_path(case: &Case) -> String {
    format!("{}.avro", case.path)
}

/// Whether a mode promises that a reader of one version reads what a writer of another wrote.
///
/// | mode | reader |
/// |---|---|
/// | NONE | the same version |
/// | BACKWARD | the same or the next |
/// | FORWARD | the same or the one before |
/// | FULL | the same, the next, the one before |
/// | …_TRANSITIVE | all in that direction |
fn promised(mode: Mode, reader: u32, writer: u32) -> bool {
    let (next, before) = (reader == writer + 1, reader + 1 == writer);
    reader == writer
        || match mode {
            Mode::None => false,
            Mode::Backward => next,
            Mode::BackwardTransitive => reader > writer,
            Mode::Forward => before,
            Mode::ForwardTransitive => reader < writer,
            Mode::Full => next || before,
            Mode::FullTransitive => true,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_those_that_the_mode_promises() {
        let readers = |mode| (1..=4).filter(|reader| promised(mode, *reader, 2)).collect::<Vec<_>>();
        assert_eq!(readers(Mode::None), [2]);
        assert_eq!(readers(Mode::Backward), [2, 3]);
        assert_eq!(readers(Mode::BackwardTransitive), [2, 3, 4]);
        assert_eq!(readers(Mode::Forward), [1, 2]);
        assert_eq!(readers(Mode::ForwardTransitive), [1, 2]);
        assert_eq!(readers(Mode::Full), [1, 2, 3]);
        assert_eq!(readers(Mode::FullTransitive), [1, 2, 3, 4]);
    }
}
