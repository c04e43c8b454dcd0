//! What is wrong with a folder: the lock, the numbers, each schema, each pair by its mode, each golden record.

use serde::Serialize;

use super::finding::{Finding, Rule};
use super::lock::{self, Lock};
use super::settings::{self, Golden};
use super::{Folder, Topic, Version, pairs, records};

/// The application's own decoder of a topic: topic, schema as JSON, body. None: the topic is not one of its.
pub type Decoder<'a> = &'a dyn Fn(&str, &str, &[u8]) -> Option<Result<(), String>>;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Sorted by path.
    pub findings: Vec<Finding>,
    /// How much was checked.
    pub summary: Summary,
}

/// How much was checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Topics, and so subjects.
    pub subjects: usize,
    /// Versions of all of them.
    pub versions: usize,
    /// Readers against writers, as the modes want.
    pub pairs: usize,
    /// Golden records.
    pub golden_records: usize,
    /// Times that a golden record was read, by a version or by the application's own decoder.
    pub readings: usize,
    /// What was found.
    pub findings: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "subjects {}, versions {}, reader-writer pairs {}, golden records {} read {} times, findings {}",
            self.subjects, self.versions, self.pairs, self.golden_records, self.readings, self.findings
        )
    }
}

/// What the parts of a check write into.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) findings: Vec<Finding>,
    pub(super) summary: Summary,
    /// Exceptions of `schemas.toml` that were used, by their place.
    pub(super) used: std::collections::BTreeSet<usize>,
}

impl Folder {
    /// Checks everything. `published` is the lock file of what is out there already, for example of the base branch.
    pub fn check(&self, decoder: Decoder<'_>, published: Option<&Lock>) -> Checked {
        let mut notes = Notes {
            findings: self.findings.clone(),
            ..Notes::default()
        };
        self.check_lock(&mut notes, published);
        for topic in &self.topics {
            notes.summary.subjects += 1;
            notes.summary.versions += topic.versions.len();
            self.check_numbers(&mut notes, topic);
            let valid = pairs::check(&mut notes, &self.settings, topic);
            self.check_golden_there(&mut notes, topic);
            records::check(&mut notes, &self.settings, topic, &valid, decoder);
        }
        self.check_settings(&mut notes);
        notes.findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
        notes.findings.dedup();
        notes.summary.findings = notes.findings.len();
        Checked {
            findings: notes.findings,
            summary: notes.summary,
        }
    }

    /// | in the lock | on disk | finding |
    /// |---|---|---|
    /// | yes | the same | none |
    /// | yes | other bytes | EDITED |
    /// | yes | not there | DELETED |
    /// | yes | cannot be read | that one alone |
    /// | no | there | UNLOCKED |
    fn check_lock(&self, notes: &mut Notes, published: Option<&Lock>) {
        let Some(lock) = &self.lock else {
            let message = "there is no lock file, so an edit of a published version would not be seen";
            let remedy = "write it with `millrace schema lock` and commit it";
            notes.findings.push(Rule::Unlocked.at(lock::FILE, message, remedy));
            return;
        };
        if let Some(published) = published {
            notes.findings.extend(lock.differs_from(published));
        }
        for (path, entry) in &lock.0 {
            let remedy = "restore it from version control; a change is a new version beside it";
            match self.present.get(path) {
                Some(found) if found.sha256 == entry.sha256 => {}
                Some(found) if found.sha256_with_plain_line_ends.as_ref() == Some(&entry.sha256) => {
                    let message = "this published file differs in its line ends";
                    let remedy = "check it out as it was committed: put `schemas/** -text` into .gitattributes";
                    notes.findings.push(Rule::Edited.at(path, message, remedy));
                }
                Some(_) => notes
                    .findings
                    .push(Rule::Edited.at(path, "this published file was edited", remedy)),
                None if self.findings.iter().any(|f| f.path == *path) => {}
                None => notes
                    .findings
                    .push(Rule::Deleted.at(path, "this published file is gone", remedy)),
            }
        }
        for (path, _) in self.publishable().filter(|(path, _)| !lock.0.contains_key(*path)) {
            let message = "not in the lock file, so a later edit of it would not be seen";
            let remedy = "add it with `millrace schema lock` before it is merged";
            notes.findings.push(Rule::Unlocked.at(path, message, remedy));
        }
    }

    fn check_numbers(&self, notes: &mut Notes, topic: &Topic) {
        let Some(last) = topic.versions.last() else {
            let remedy = "add v1.avsc, or remove the folder";
            notes
                .findings
                .push(Rule::NoVersion.at(&topic.name, "no version stands here", remedy));
            return;
        };
        // Up to a bound: v4000000000.avsc is one mistake, not as many.
        let missing = |number: &u32| topic.versions.iter().all(|v| v.number != *number);
        for number in (1..last.number).filter(missing).take(10) {
            let path = format!("{}/v{number}.avsc", topic.name);
            // A published one that is gone was told already.
            if self.lock.as_ref().is_none_or(|lock| !lock.0.contains_key(&path)) {
                let message = format!("there is no version {number} before version {}", last.number);
                let remedy = "number versions from 1 without a gap, as the registry does";
                notes.findings.push(Rule::VersionHole.at(&path, message, remedy));
            }
        }
    }

    fn check_golden_there(&self, notes: &mut Notes, topic: &Topic) {
        let wanted = self.settings.golden == Golden::Required;
        let without = |v: &&Version| wanted && v.file.is_some() && v.golden.is_empty();
        for version in topic.versions.iter().filter(without) {
            let folder = format!("{}/golden/v{}", topic.name, version.number);
            let message =
                format!("no golden record in {folder}: nobody has shown that a record of this version can be read");
            let remedy = "add one as CASE.json, then run `millrace schema golden`";
            notes
                .findings
                .push(Rule::GoldenMissing.at(&version.path, message, remedy));
        }
    }

    fn check_settings(&self, notes: &mut Notes) {
        let mut refuse = |message: String| {
            let remedy = "correct it, or remove it";
            notes.findings.push(Rule::Settings.at(settings::FILE, message, remedy));
        };
        for (name, said) in &self.settings.topics {
            let Some(topic) = self.topics.iter().find(|t| t.name == *name) else {
                refuse(format!("there is no topic {name}"));
                continue;
            };
            let unknown = |n: &&u32| topic.versions.iter().all(|v| v.number != **n);
            for number in said.supported.iter().flatten().filter(unknown) {
                refuse(format!("{name} has no version {number} that could be supported"));
            }
        }
        let unused = |(place, _): &(usize, _)| !notes.used.contains(place);
        for (_, allow) in self.settings.allow.iter().enumerate().filter(unused) {
            let message = format!("the exception from {} excepts nothing", allow.rule);
            let remedy = "remove it: it would hide the next mistake";
            notes
                .findings
                .push(Rule::UnusedAllow.at(settings::FILE, message, remedy));
        }
    }
}
