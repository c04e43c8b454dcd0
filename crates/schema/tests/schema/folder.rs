//! Folders of schemas: a clean one, ten planted mistakes, and what lock and golden write.
// Clippy takes only `#[test]` functions for tests, not what they call.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use millrace_schema::folder::{Checked, Decoder, Folder, FolderError, Rule, lock, read_lock};
use tempfile::TempDir;

/// A folder that is clean, locked and ours to spoil.
struct Repo(TempDir);

const NOBODYS: Decoder<'static> = &|_, _, _| None;

const V1: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
  {"name": "id", "type": "string"},
  {"name": "note", "type": "string", "default": ""},
  {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "default": "\u0000"}
]}
"#;

impl Repo {
    /// Two topics: `orders` with versions 1 and 2, `refunds` with version 1; each with a golden record, all locked.
    fn new() -> Self {
        let repo = Self(TempDir::new().unwrap());
        for version in ["orders/v1", "refunds/v1"] {
            repo.add(version, V1);
        }
        repo.add(
            "orders/v2",
            &with_field(r#"{"name": "city", "type": ["null", "string"], "default": null}"#),
        );
        let locked = repo.lock();
        assert!(locked.findings.is_empty(), "{:#?}", locked.findings);
        repo
    }

    /// A version and a golden record of it.
    fn add(&self, version: &str, schema: &str) {
        let (topic, number) = version.split_once('/').unwrap();
        self.write(&format!("{version}.avsc"), schema);
        self.write(
            &format!("{topic}/golden/{number}/full.json"),
            r#"{"id": "é", "note": "n", "total": "\u0001\u00f4"}"#,
        );
        let written = self.read().write_golden().unwrap();
        assert!(written.findings.is_empty(), "{:?}", written.findings);
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }
    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }
    fn replace(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(path)).unwrap();
        assert!(text.contains(from), "{text}");
        self.write(path, text.replace(from, to));
    }
    fn read(&self) -> Folder {
        Folder::read(self.0.path()).unwrap()
    }
    fn check(&self) -> Checked {
        self.read().check(NOBODYS, None)
    }
    fn lock(&self) -> millrace_schema::folder::Written {
        self.read().write_lock(NOBODYS).unwrap()
    }
    /// Locked as if the check had not been asked.
    fn publish_anyway(&self) {
        let mut lock = String::new();
        for entry in walk(self.0.path()) {
            let path = entry.strip_prefix(self.0.path()).unwrap().display().to_string();
            if path.contains('/') {
                lock.push_str(&format!("{}  {path}\n", lock::sha256(&fs::read(&entry).unwrap())));
            }
        }
        self.write(lock::FILE, lock);
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .collect()
}

fn with_field(field: &str) -> String {
    V1.replace("\"\\u0000\"}", &format!("\"\\u0000\"}},\n  {field}"))
}

/// `path: RULE` of each finding.
fn rules(checked: &Checked) -> Vec<String> {
    checked
        .findings
        .iter()
        .map(|f| format!("{}: {}", f.path, f.rule))
        .collect()
}

#[test]
fn a_clean_folder_has_no_findings_and_says_what_was_checked() {
    let checked = Repo::new().check();
    assert_eq!(rules(&checked), [""; 0]);
    assert_eq!(
        checked.summary.to_string(),
        "subjects 2, versions 3, reader-writer pairs 2, golden records 3 read 5 times, findings 0"
    );
}

/// A mistake, what plants it, and the findings that it is to have: path, rule, and words of the explanation.
type Mistake = (
    &'static str,
    fn(&Repo),
    &'static [(&'static str, &'static str, &'static str)],
);

const PLANTED: [Mistake; 10] = [
    (
        "a published version edited",
        |repo| {
            repo.replace(
                "orders/v1.avsc",
                "\"namespace\"",
                "\"doc\": \"An order.\", \"namespace\"",
            )
        },
        &[("orders/v1.avsc", "EDITED", "this published file was edited; restore it")],
    ),
    (
        "a published version deleted",
        |repo| repo.remove("orders/v1.avsc"),
        &[
            ("orders/golden/v1", "UNEXPECTED_FILE", "there is no v1.avsc"),
            ("orders/v1.avsc", "DELETED", "this published file is gone; restore it"),
        ],
    ),
    (
        "a hole in the numbers",
        |repo| {
            repo.add("orders/v4", V1);
            repo.publish_anyway();
        },
        &[("orders/v3.avsc", "VERSION_HOLE", "no version 3 before version 4")],
    ),
    (
        "a default that is none",
        |repo| {
            repo.write(
                "refunds/v2.avsc",
                with_field(r#"{"name": "n", "type": "int", "default": "0"}"#),
            );
            repo.write("schemas.toml", "golden = \"optional\"");
            repo.publish_anyway();
        },
        &[("refunds/v2.avsc", "INVALID_DEFAULT", "/fields/n")],
    ),
    (
        "a name that is none",
        |repo| {
            repo.write(
                "refunds/v2.avsc",
                with_field(r#"{"name": "order-no", "type": "int", "default": 0}"#),
            );
            repo.write("schemas.toml", "golden = \"optional\"");
            repo.publish_anyway();
        },
        &[("refunds/v2.avsc", "INVALID_NAME", "order-no")],
    ),
    (
        "a field without a default removed",
        |repo| {
            repo.write(
                "refunds/v2.avsc",
                V1.replace("{\"name\": \"id\", \"type\": \"string\"},", ""),
            );
            repo.write("refunds/golden/v2/full.json", "{\"note\": \"n\"}");
            repo.read().write_golden().unwrap();
            repo.publish_anyway();
        },
        &[
            // Not promised to be read, and not read.
            (
                "refunds/golden/v2/full.avro",
                "GOLDEN_UNREADABLE",
                "a reader with version 1 cannot read this record of version 2",
            ),
            (
                "refunds/v2.avsc",
                "READER_FIELD_MISSING_DEFAULT_VALUE",
                "refunds/v1.avsc as the reader of this version: /fields/id",
            ),
        ],
    ),
    (
        "a decimal with another scale, which a registry lets through",
        |repo| {
            repo.add("refunds/v2", &V1.replace("\"scale\": 2", "\"scale\": 3"));
            repo.publish_anyway();
        },
        &[
            (
                "refunds/v2.avsc",
                "DECIMAL_CHANGED",
                "this version as the reader of refunds/v1.avsc: /fields/total",
            ),
            (
                "refunds/v2.avsc",
                "DECIMAL_CHANGED",
                "refunds/v1.avsc as the reader of this version: /fields/total",
            ),
        ],
    ),
    (
        "a golden record that cannot be decoded",
        |repo| {
            repo.write("orders/golden/v1/full.avro", b"\x02a\x02");
            repo.publish_anyway();
        },
        &[(
            "orders/golden/v1/full.avro",
            "GOLDEN_UNREADABLE",
            "does not follow its own schema, version 1",
        )],
    ),
    (
        "a version that was not locked",
        |repo| repo.add("refunds/v2", V1),
        &[
            ("refunds/golden/v2/full.avro", "UNLOCKED", "`millrace schema lock`"),
            ("refunds/golden/v2/full.json", "UNLOCKED", "`millrace schema lock`"),
            ("refunds/v2.avsc", "UNLOCKED", "not in the lock file"),
        ],
    ),
    (
        "broken JSON",
        |repo| {
            repo.write(
                "refunds/v2.avsc",
                "{\"type\": \"record\",\n \"name\": \"Refund\"\n \"fields\": []}",
            );
            repo.write("schemas.toml", "golden = \"optional\"");
            repo.publish_anyway();
        },
        &[(
            "refunds/v2.avsc",
            "NOT_JSON",
            "refunds/v2.avsc:3: NOT_JSON: not JSON: expected `,` or `}`",
        )],
    ),
];

#[test]
fn each_planted_mistake_is_found_and_explained() {
    for (mistake, plant, expected) in PLANTED {
        let repo = Repo::new();
        plant(&repo);
        let checked = repo.check();
        let wanted: Vec<_> = expected
            .iter()
            .map(|(path, rule, _)| format!("{path}: {rule}"))
            .collect();
        assert_eq!(rules(&checked), wanted, "{mistake}: {:#?}", checked.findings);
        for (finding, (_, _, words)) in checked.findings.iter().zip(expected) {
            let line = finding.to_string();
            assert!(line.contains(words) && !line.contains('\n'), "{mistake}: {line}");
            assert!(!finding.remedy.is_empty(), "{mistake}: {line}");
        }
    }
}

#[test]
fn what_lies_about_is_found_and_nothing_stops_the_check() {
    let repo = Repo::new();
    for (path, bytes) in [
        ("notes.txt", &b"x"[..]),
        ("README.md", b"allowed"),
        (".gitattributes", b"allowed"),
        ("orders/v02.avsc", b"{}"),
        ("orders/golden/v1/half.avro", b"\x00\x00\x00"),
        ("orders/golden/v1/other.json", b"{\"id\": 7}"),
        ("orders/golden/v1/other.avro", b"\x00\x00\x00"),
        ("orders/golden/v1/wrong.json", b"{\"id\": \"a\"}"),
        ("orders/golden/v1/wrong.avro", b"\x02b\x00\x00"),
        ("orders/golden/v9/a.json", b"{}"),
        ("refunds/v2.avsc", b""),
        ("refunds/v3.avsc", b"\xff\xfe"),
        ("empty topic/README.md", b""),
    ] {
        repo.write(path, bytes);
    }
    repo.write("big/v1.avsc", vec![b' '; (1 << 20) + 1]);
    repo.publish_anyway();
    let expected = [
        "big/v1.avsc: DELETED",
        "big/v1.avsc: TOO_LARGE",
        "empty topic: NO_VERSION",
        "empty topic: TOPIC_NAME",
        "notes.txt: UNEXPECTED_FILE",
        "orders/golden/v1/half.json: GOLDEN_PAIR",
        "orders/golden/v1/other.json: GOLDEN_INVALID",
        "orders/golden/v1/wrong.avro: GOLDEN_DIFFERS",
        "orders/golden/v9: UNEXPECTED_FILE",
        "orders/v02.avsc: UNEXPECTED_FILE",
        "refunds/v2.avsc: EMPTY_FILE",
        "refunds/v3.avsc: GOLDEN_MISSING",
        "refunds/v3.avsc: UNREADABLE",
    ];
    let mut found = rules(&repo.check());
    found.sort();
    found.dedup();
    found.retain(|f| {
        f != "big/v1.avsc: DELETED" && !f.ends_with("README.md: DELETED") && f != "orders/v02.avsc: DELETED"
    });
    assert_eq!(
        found,
        expected
            .into_iter()
            .filter(|e| *e != "big/v1.avsc: DELETED")
            .collect::<Vec<_>>()
    );
}

#[test]
fn the_decoder_in_use_reads_its_own_topics() {
    let repo = Repo::new();
    let decoder: Decoder<'_> = &|topic, schema, body| {
        assert!(schema.contains("Order") && body.starts_with(&[4]));
        (topic == "refunds").then(|| Err("no such field".to_owned()))
    };
    let checked = repo.read().check(decoder, None);
    assert_eq!(rules(&checked), ["refunds/golden/v1/full.avro: GOLDEN_DECODER"]);
    assert_eq!(checked.summary.readings, 6);
}

#[test]
fn the_lock_only_grows_and_only_with_what_is_clean() {
    let repo = Repo::new();
    let before = fs::read_to_string(repo.path(lock::FILE)).unwrap();
    assert_eq!(repo.lock().paths, [""; 0]);

    repo.add("refunds/v2", V1);
    let added = repo.lock();
    assert_eq!(
        added.paths,
        [
            "refunds/golden/v2/full.avro",
            "refunds/golden/v2/full.json",
            "refunds/v2.avsc"
        ]
    );
    let after = fs::read_to_string(repo.path(lock::FILE)).unwrap();
    assert!(before.lines().all(|line| after.contains(line)));

    repo.replace("orders/v1.avsc", "\"namespace\"", "\"doc\": \"\", \"namespace\"");
    repo.add("refunds/v3", V1);
    let refused = repo.lock();
    assert!(refused.paths.is_empty());
    assert!(
        refused
            .findings
            .iter()
            .any(|f| f.rule == Rule::Edited.code() && f.path == "orders/v1.avsc")
    );
    assert_eq!(fs::read_to_string(repo.path(lock::FILE)).unwrap(), after);
}

#[test]
fn an_edit_hidden_by_a_lock_written_again_is_found_against_the_published_lock() {
    let repo = Repo::new();
    let published = TempDir::new().unwrap();
    let published = published.path().join("base.lock");
    fs::copy(repo.path(lock::FILE), &published).unwrap();
    repo.replace("orders/v2.avsc", "\"city\"", "\"town\"");
    repo.remove("refunds/golden/v1/full.avro");
    repo.remove("refunds/golden/v1/full.json");
    repo.write("schemas.toml", "golden = \"optional\"");
    repo.publish_anyway();
    let (published, _) = read_lock(&published).unwrap();
    let checked = repo.read().check(NOBODYS, Some(&published));
    let messages: Vec<_> = checked
        .findings
        .iter()
        .map(|f| format!("{}: {}", f.rule, f.message))
        .collect();
    assert_eq!(
        messages,
        [
            "LOCK_EDITED: refunds/golden/v1/full.avro is published, and its line is gone",
            "LOCK_EDITED: refunds/golden/v1/full.json is published, and its line is gone",
            "LOCK_EDITED: orders/v2.avsc is published with another hash",
        ]
    );
}

#[test]
fn line_ends_changed_by_git_are_told_from_an_edit() {
    let repo = Repo::new();
    repo.replace("orders/v1.avsc", "\n", "\r\n");
    let checked = repo.check();
    assert_eq!(rules(&checked), ["orders/v1.avsc: EDITED"]);
    assert!(
        checked.findings[0].message.contains("line ends"),
        "{}",
        checked.findings[0]
    );
}

#[test]
fn modes_support_and_exceptions_are_as_the_settings_say() {
    let repo = Repo::new();
    repo.add("refunds/v2", &V1.replace("\"scale\": 2", "\"scale\": 3"));
    repo.publish_anyway();
    let allow = "[[allow]]\nrule = \"DECIMAL_CHANGED\"\ntopic = \"refunds\"\nreason = \"no reader yet\"\n";
    repo.write("schemas.toml", allow);
    assert_eq!(rules(&repo.check()), [""; 0]);
    repo.write("schemas.toml", allow.replace("refunds", "orders"));
    let found = rules(&repo.check());
    assert_eq!(found[found.len() - 1], "schemas.toml: UNUSED_ALLOW");

    // A field without a default may come in a mode in which only old readers must go on.
    let stricter = with_field(r#"{"name": "id2", "type": "string"}"#);
    repo.write("orders/v3.avsc", stricter);
    repo.write("orders/golden/v3/full.json", "{\"id\": \"a\", \"id2\": \"b\"}");
    repo.read().write_golden().unwrap();
    repo.publish_anyway();
    repo.write("schemas.toml", format!("{allow}[topics.orders]\nmode = \"FORWARD\"\n"));
    assert_eq!(rules(&repo.check()), [""; 0]);
    repo.write(
        "schemas.toml",
        format!("{allow}[topics.orders]\nsupported = [1, 9]\n[topics.gone]\nmode = \"FULL\"\n"),
    );
    let checked = repo.check();
    let settings: Vec<_> = checked
        .findings
        .iter()
        .filter(|f| f.path == "schemas.toml")
        .map(|f| f.message.as_str())
        .collect();
    assert_eq!(
        settings,
        [
            "there is no topic gone",
            "orders has no version 9 that could be supported"
        ]
    );
}

#[test]
fn golden_records_are_written_once() {
    let repo = Repo::new();
    assert_eq!(repo.read().write_golden().unwrap().paths, [""; 0]);
    repo.write("orders/golden/v2/new.json", "{\"id\": \"a\", \"city\": \"Ulm\"}");
    repo.write("orders/golden/v2/bad.json", "{\"city\": \"Ulm\"}");
    repo.write("orders/golden/v2/full.json", "{\"id\": \"changed\"}");
    // Published and gone: it comes back as it was.
    repo.remove("refunds/golden/v1/full.avro");
    let written = repo.read().write_golden().unwrap();
    assert_eq!(
        written.paths,
        ["orders/golden/v2/new.avro", "refunds/golden/v1/full.avro"]
    );
    let found: Vec<_> = written
        .findings
        .iter()
        .map(|f| format!("{}: {}", f.path, f.rule))
        .collect();
    assert_eq!(
        found,
        [
            "orders/golden/v2/bad.json: GOLDEN_INVALID",
            "orders/golden/v2/full.avro: GOLDEN_DIFFERS"
        ]
    );
    assert_eq!(
        fs::read(repo.path("orders/golden/v2/new.avro")).unwrap(),
        b"\x02a\x00\x02\x00\x02\x06Ulm"
    );
}

#[test]
fn what_is_no_folder_of_schemas_is_refused() {
    let dir = TempDir::new().unwrap();
    assert!(matches!(Folder::read(dir.path()), Err(FolderError::Empty { .. })));
    assert!(matches!(
        Folder::read(&dir.path().join("none")),
        Err(FolderError::Unreadable { .. })
    ));
}

#[test]
fn every_rule_stands_in_the_documentation() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schemas.md");
    let docs = fs::read_to_string(docs).unwrap();
    let codes = Rule::ALL.iter().map(|r| r.code());
    for code in codes.chain(millrace_schema::avro::Rule::ALL.iter().map(|r| r.code())) {
        assert!(docs.contains(&format!("`{code}`")), "{code}");
    }
}

#[test]
fn our_own_schemas_are_locked_and_clean() {
    let folder = Folder::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas"))).unwrap();
    let checked = folder.check(NOBODYS, None);
    assert_eq!(rules(&checked), [""; 0]);
    assert!(checked.summary.golden_records >= 30, "{}", checked.summary);
}
