//! A folder read from disk. What does not belong there is a finding; only a folder that is none is an error.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::finding::{Finding, Rule};
use super::lock::{self, Lock};
use super::settings::{self, Settings};
use super::{Case, File, Folder, FolderError, Present, Topic, Version};

/// Largest schema, in bytes; a registry refuses larger ones too.
pub const MAX_SCHEMA_BYTES: u64 = 1 << 20;
/// Largest file of a golden record, in bytes.
pub const MAX_GOLDEN_BYTES: u64 = 8 << 20;

const REMOVE: &str = "remove it, or name it as docs/schemas.md says; *.md and hidden files may stand anywhere";

struct Reader {
    root: PathBuf,
    findings: Vec<Finding>,
    present: BTreeMap<String, Present>,
}

enum Kind {
    File,
    Folder,
    Other,
}

impl Folder {
    /// Reads a folder.
    pub fn read(root: &Path) -> Result<Self, FolderError> {
        let mut reader = Reader {
            root: root.to_owned(),
            findings: Vec::new(),
            present: BTreeMap::new(),
        };
        // Not a finding: most often a wrong argument.
        fs::read_dir(root).map_err(|source| FolderError::Unreadable {
            path: root.to_owned(),
            source,
        })?;
        let (mut topics, mut settings, mut lock) = (Vec::new(), Settings::default(), None);
        for (name, kind) in reader.entries("") {
            match (name.as_str(), kind) {
                (settings::FILE, Kind::File) => match reader.text(&name, MAX_SCHEMA_BYTES).map(|t| Settings::parse(&t))
                {
                    Some(Ok(read)) => settings = read,
                    Some(Err(finding)) => reader.findings.push(finding),
                    None => {}
                },
                (lock::FILE, Kind::File) => {
                    if let Some(text) = reader.text(&name, MAX_GOLDEN_BYTES) {
                        let (read, findings) = Lock::parse(lock::FILE, &text);
                        reader.findings.extend(findings);
                        lock = Some(read);
                    }
                }
                (_, Kind::Folder) => topics.push(reader.topic(name)),
                (_, Kind::File | Kind::Other) => reader.unexpected(&name, "no schema stands here"),
            }
        }
        if topics.is_empty() {
            return Err(FolderError::Empty { path: root.to_owned() });
        }
        Ok(Self {
            root: root.to_owned(),
            topics,
            settings,
            lock,
            present: reader.present,
            findings: reader.findings,
        })
    }
}

impl Reader {
    fn topic(&mut self, name: String) -> Topic {
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.len() > 249 || !name.bytes().all(valid) {
            let remedy = "name the folder as its topic: letters, digits, `.`, `_` and `-`, at most 249";
            self.findings
                .push(Rule::TopicName.at(&name, "no topic can have this name", remedy));
        }
        let (mut versions, mut golden): (Vec<Version>, BTreeMap<u32, Vec<Case>>) = (Vec::new(), BTreeMap::new());
        for (entry, kind) in self.entries(&name) {
            let path = format!("{name}/{entry}");
            match (kind, entry.strip_suffix(".avsc").and_then(number)) {
                (Kind::File, Some(number)) => versions.push(Version {
                    number,
                    file: self.file(&path, MAX_SCHEMA_BYTES),
                    path,
                    golden: Vec::new(),
                }),
                (Kind::Folder, _) if entry == "golden" => golden = self.golden(&path),
                (Kind::File | Kind::Folder | Kind::Other, _) => self.unexpected(&path, "not vN.avsc and not golden/"),
            }
        }
        versions.sort_by_key(|v| v.number);
        for version in &mut versions {
            version.golden = golden.remove(&version.number).unwrap_or_default();
        }
        for (number, _) in golden {
            let path = format!("{name}/golden/v{number}");
            self.unexpected(&path, &format!("there is no v{number}.avsc that these records are of"));
        }
        Topic { name, versions }
    }

    fn golden(&mut self, folder: &str) -> BTreeMap<u32, Vec<Case>> {
        let mut golden = BTreeMap::new();
        for (entry, kind) in self.entries(folder) {
            let path = format!("{folder}/{entry}");
            match (kind, number(&entry)) {
                (Kind::Folder, Some(number)) => {
                    golden.insert(number, self.cases(&path));
                }
                (Kind::File | Kind::Folder | Kind::Other, _) => {
                    self.unexpected(&path, "not a folder vN of golden records")
                }
            }
        }
        golden
    }

    fn cases(&mut self, folder: &str) -> Vec<Case> {
        let mut cases: BTreeMap<String, Case> = BTreeMap::new();
        for (entry, kind) in self.entries(folder) {
            let path = format!("{folder}/{entry}");
            let (stem, is_json) = match (entry.strip_suffix(".json"), entry.strip_suffix(".avro")) {
                (Some(stem), _) => (stem, true),
                (None, Some(stem)) => (stem, false),
                (None, None) => ("", false),
            };
            if stem.is_empty() || !matches!(kind, Kind::File) {
                self.unexpected(&path, "not CASE.json and not CASE.avro");
                continue;
            }
            let case = cases.entry(stem.to_owned()).or_insert_with(|| Case {
                path: format!("{folder}/{stem}"),
                json: None,
                body: None,
            });
            // A record without fields has no bytes: an empty body is one.
            let file = self.bytes(&path, MAX_GOLDEN_BYTES).map(|bytes| File { bytes });
            *(if is_json { &mut case.json } else { &mut case.body }) = file;
        }
        cases.into_values().collect()
    }

    /// Names in a folder, sorted, without what may stand anywhere.
    fn entries(&mut self, folder: &str) -> Vec<(String, Kind)> {
        let mut entries = Vec::new();
        let listed = fs::read_dir(self.root.join(folder)).and_then(|list| {
            for entry in list {
                let entry = entry?;
                let kind = match entry.file_type()? {
                    kind if kind.is_dir() => Kind::Folder,
                    kind if kind.is_file() => Kind::File,
                    _ => Kind::Other,
                };
                entries.push((entry.file_name(), kind));
            }
            Ok(())
        });
        if let Err(e) = listed {
            self.unreadable(folder, &e.to_string());
        }
        let mut named = Vec::new();
        for (name, kind) in entries {
            match name.into_string() {
                Ok(name) if name.starts_with('.') || name.ends_with(".md") => {}
                Ok(name) => named.push((name, kind)),
                Err(name) => self.unexpected(&format!("{folder}/{}", name.to_string_lossy()), "the name is no text"),
            }
        }
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        named
    }

    /// A published file: neither empty nor too large.
    fn file(&mut self, path: &str, limit: u64) -> Option<File> {
        let bytes = self.bytes(path, limit)?;
        if bytes.is_empty() {
            let remedy = "restore it from version control, or remove it if it was never published";
            self.findings
                .push(Rule::EmptyFile.at(path, "the file has no bytes", remedy));
            return None;
        }
        Some(File { bytes })
    }

    fn text(&mut self, path: &str, limit: u64) -> Option<String> {
        let text = String::from_utf8(self.bytes(path, limit)?);
        text.inspect_err(|_| self.unreadable(path, "it is no UTF-8")).ok()
    }

    fn bytes(&mut self, path: &str, limit: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = fs::File::open(self.root.join(path)).and_then(|f| f.take(limit + 1).read_to_end(&mut bytes));
        if let Err(e) = read {
            self.unreadable(path, &e.to_string());
            return None;
        }
        if bytes.len() as u64 > limit {
            let message = format!("the file is larger than {limit} bytes");
            let remedy = "a schema or a golden record of this size is a mistake: make it smaller";
            self.findings.push(Rule::TooLarge.at(path, message, remedy));
            return None;
        }
        self.present.insert(path.to_owned(), Present::of(&bytes));
        Some(bytes)
    }

    fn unexpected(&mut self, path: &str, why: &str) {
        self.findings.push(Rule::UnexpectedFile.at(path, why, REMOVE));
    }

    fn unreadable(&mut self, path: &str, why: &str) {
        let remedy = "make it a UTF-8 file that can be read";
        self.findings
            .push(Rule::Unreadable.at(path, format!("cannot be read: {why}"), remedy));
    }
}

impl Present {
    fn of(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.contains("\r\n"));
        Self {
            sha256: lock::sha256(bytes),
            sha256_with_plain_line_ends: text.map(|text| lock::sha256(text.replace("\r\n", "\n").as_bytes())),
        }
    }
}

/// `v12` is 12; `v0`, `v01` and `v+1` are nothing.
fn number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix('v')?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    plain.then(|| digits.parse().ok()).flatten()
}
