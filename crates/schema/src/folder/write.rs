//! What is written into a folder: new lines of the lock file, and the bytes of golden records. Nothing published changes.

use std::fs;
use std::path::Path;

use apache_avro::Schema;

use super::check::Decoder;
use super::finding::{Finding, Rule};
use super::lock::{self, Entry, Lock};
use super::{Case, Folder, FolderError, Version, binary, golden};

/// What was written, and why not more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Paths from the folder's root; for the lock file, those that it has now in addition.
    pub paths: Vec<String>,
    /// What stands in the way. Where anything does the lock file is left as it was.
    pub findings: Vec<Finding>,
}

/// Reads a lock file from anywhere, for example the base branch's.
pub fn read_lock(path: &Path) -> Result<(Lock, Vec<Finding>), FolderError> {
    let text = fs::read_to_string(path).map_err(|source| FolderError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(Lock::parse(&path.display().to_string(), &text))
}

impl Folder {
    /// Adds to the lock file what is not in it.
    ///
    /// Refuses while anything else is wrong: what is locked can never be mended.
    pub fn write_lock(&self, decoder: Decoder<'_>) -> Result<Written, FolderError> {
        let mut findings = self.check(decoder, None).findings;
        findings.retain(|f| f.rule != Rule::Unlocked.code());
        if !findings.is_empty() {
            return Ok(Written {
                paths: Vec::new(),
                findings,
            });
        }
        let mut lock = self.lock.clone().unwrap_or_default();
        let mut paths = Vec::new();
        for (path, file) in self.publishable() {
            if !lock.0.contains_key(path) {
                let sha256 = file.sha256.clone();
                lock.0.insert(path.clone(), Entry { sha256, line: 0 });
                paths.push(path.clone());
            }
        }
        if !paths.is_empty() {
            self.write(lock::FILE, lock.text().as_bytes())?;
        }
        Ok(Written { paths, findings })
    }

    /// Writes `CASE.avro` for each `CASE.json` that has none, or whose bytes are another record and not locked.
    pub fn write_golden(&self) -> Result<Written, FolderError> {
        let mut written = Written::default();
        for version in self.topics.iter().flat_map(|topic| &topic.versions) {
            let cases = version.golden.iter().filter(|case| case.json.is_some());
            let Some(schema) = version
                .text()
                .filter(|_| !version.golden.is_empty())
                .map(Schema::parse_str)
            else {
                continue;
            };
            let schema = match schema {
                Ok(schema) => schema,
                Err(e) => {
                    let message = format!("no golden record can be written with this schema: {e}");
                    let finding = Rule::GoldenUntried.at(&version.path, message, "correct the schema");
                    written.findings.push(finding);
                    continue;
                }
            };
            for case in cases {
                self.write_case(&mut written, version, &schema, case)?;
            }
        }
        Ok(written)
    }

    fn write_case(
        &self,
        written: &mut Written,
        version: &Version,
        schema: &Schema,
        case: &Case,
    ) -> Result<(), FolderError> {
        let (json_path, path) = (format!("{}.json", case.path), format!("{}.avro", case.path));
        let Some(file) = &case.json else { return Ok(()) };
        let json = match serde_json::from_slice(&file.bytes) {
            Ok(json) => json,
            Err(e) => {
                let finding = Rule::NotJson.at(&json_path, format!("not JSON: {e}"), "correct the JSON");
                written.findings.push(finding.on_line(e.line()));
                return Ok(());
            }
        };
        let kept = case
            .body
            .as_ref()
            .map(|body| golden::says_the_same(schema, &json, &body.bytes));
        match (kept, binary::encode(schema, &json)) {
            (Some(Ok(true)), _) => {}
            (_, Err(e)) => {
                let message = format!("the record does not follow version {}: {e}", version.number);
                let finding = Rule::GoldenInvalid.at(&json_path, message, "correct the record");
                written.findings.push(finding);
            }
            // A published one that is gone may come back, byte for byte.
            (_, Ok(body)) if self.lock.as_ref().is_some_and(|lock| lock.forbids(&path, &body)) => {
                let message = "this record is published, and its JSON tells another one";
                let remedy = format!("restore {json_path}, and write the other record under another name");
                written.findings.push(Rule::GoldenDiffers.at(&path, message, remedy));
            }
            (_, Ok(body)) => {
                self.write(&path, &body)?;
                written.paths.push(path);
            }
        }
        Ok(())
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), FolderError> {
        let path = self.root.join(path);
        fs::write(&path, bytes).map_err(|source| FolderError::Unwritable { path, source })
    }
}
