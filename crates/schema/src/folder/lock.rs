//! `schemas.lock`: the SHA-256 of every published file.
//!
//! Written as `sha256sum` writes, so that `sha256sum -c schemas.lock` checks it with no tool of ours. Hashes are of the
//! bytes as they lie on disk: keep git from changing line ends (`*.avsc -text` in `.gitattributes`).

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::finding::{Finding, Rule};

/// Its name in the folder.
pub const FILE: &str = "schemas.lock";

const HEADER: &str = "\
# SHA-256 of every published schema and golden record. Written by `millrace schema lock`; checked by
# `millrace schema check` and by `sha256sum -c schemas.lock`. What stands here never changes.
";

/// Paths from the folder's root, and their hashes in hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock(pub BTreeMap<String, Entry>);

/// One locked file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Where it stands in the lock file; 0 for an entry that is not written yet.
    pub line: usize,
}

impl Lock {
    /// Reads a lock file; lines that are not understood are findings on `path`.
    pub fn parse(path: &str, text: &str) -> (Self, Vec<Finding>) {
        let (mut lock, mut findings) = (Self::default(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let refused = |why: &str| {
                Rule::LockInvalid
                    .at(
                        path,
                        why,
                        "restore the file from version control; only `millrace schema lock` writes it",
                    )
                    .on_line(number)
            };
            let Some((sha256, file)) = line.split_once("  ").filter(|(hash, _)| is_sha256(hash)) else {
                findings.push(refused("not a SHA-256, two spaces and a path"));
                continue;
            };
            let entry = Entry {
                sha256: sha256.to_owned(),
                line: number,
            };
            if lock.0.insert(file.to_owned(), entry).is_some() {
                findings.push(refused(&format!("{file} is locked twice")));
            }
        }
        (lock, findings)
    }

    /// Whether a file is published with other bytes than these.
    pub fn forbids(&self, path: &str, bytes: &[u8]) -> bool {
        self.0.get(path).is_some_and(|entry| entry.sha256 != sha256(bytes))
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let lines = self.0.iter().map(|(path, entry)| format!("{}  {path}\n", entry.sha256));
        HEADER.to_owned() + &lines.collect::<String>()
    }

    /// What `published`, the lock file of what is out there, has and this one has otherwise.
    pub fn differs_from(&self, published: &Self) -> Vec<Finding> {
        let remedy = "restore the line from the published lock file: a published version never changes";
        let differs = |(path, entry): (&String, &Entry)| {
            let found = self.0.get(path);
            let message = match found {
                Some(found) if found.sha256 == entry.sha256 => return None,
                Some(_) => format!("{path} is published with another hash"),
                None => format!("{path} is published, and its line is gone"),
            };
            let line = found.map_or(0, |f| f.line);
            Some(Rule::LockEdited.at(FILE, message, remedy).on_line(line))
        };
        published.0.iter().filter_map(differs).collect()
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_not_understood_is_said() {
        let entry = |line| Entry {
            sha256: sha256(b""),
            line,
        };
        let lock = Lock([("a b/v1.avsc".to_owned(), entry(0))].into());
        let (read, findings) = Lock::parse(FILE, &lock.text());
        assert_eq!((read.0["a b/v1.avsc"].clone(), findings), (entry(3), Vec::new()));
        assert!(
            lock.text()
                .contains("\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a b/v1.avsc\n")
        );

        let broken = format!("{0}  x\nabc  y\n{0} z\n\n{0}  x\n", sha256(b""));
        let (read, findings) = Lock::parse(FILE, &broken);
        let lines: Vec<_> = findings.iter().map(|f| f.line).collect();
        assert_eq!((read.0.len(), lines), (1, vec![Some(2), Some(3), Some(5)]));
    }

    #[test]
    fn a_published_line_neither_changes_nor_goes() {
        let lock = |entries: &[(&str, &[u8])]| {
            let entry = |(path, bytes): &(&str, &[u8])| {
                let entry = Entry {
                    sha256: sha256(bytes),
                    line: 3,
                };
                ((*path).to_owned(), entry)
            };
            Lock(entries.iter().map(entry).collect())
        };
        let published = lock(&[("a", b"1"), ("b", b"2")]);
        assert!(
            lock(&[("a", b"1"), ("b", b"2"), ("c", b"3")])
                .differs_from(&published)
                .is_empty()
        );
        let findings = lock(&[("a", b"other")]).differs_from(&published);
        let messages: Vec<_> = findings.iter().map(|f| f.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "a is published with another hash",
                "b is published, and its line is gone"
            ]
        );
    }
}
