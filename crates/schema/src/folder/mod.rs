//! A repository's folder of schemas, and what is wrong with it.
//!
//! ```text
//! schemas/
//!   schemas.toml                             optional: modes, versions still supported, exceptions
//!   schemas.lock                             SHA-256 of all that is published
//!   orders.created/v1.avsc                   version 1 of subject orders.created-value
//!   orders.created/v2.avsc
//!   orders.created/golden/v1/full.json       a record of version 1, to be read
//!   orders.created/golden/v1/full.avro       the same record, as it was written to Kafka
//! ```
//!
//! Promises:
//! - Works on any repository laid out so, without a network and without a registry.
//! - Whatever lies in the folder becomes a finding: one line with path, rule, what is wrong and what to do.
//! - What is in the lock file never changes there: [`Folder::write_lock`] only adds.
//!
//! [`finding`] is what people see; `read` reads; [`lock`] and [`settings`] are the two files beside the schemas;
//! [`check`] finds, with `pairs` for the schemas and `records` for golden records, which [`golden`] and [`binary`] read and
//! write; `write` writes what `millrace schema lock` and `golden` write.
//!
//! Rejected: asking version control what was published. A folder is checked as it lies on disk, in a build that may have no
//! history; `check`'s `published` lock file brings the base branch in where there is one.

pub mod binary;
pub mod check;
pub mod finding;
pub mod golden;
pub mod lock;
mod pairs;
mod read;
mod records;
pub mod settings;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use self::check::{Checked, Decoder, Summary};
pub use self::finding::{Finding, Rule};
pub use self::lock::Lock;
pub use self::settings::Settings;
pub use self::write::{Written, read_lock};

/// A folder that is none.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be listed.
    #[error("cannot read the folder {}", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It has no topics.
    #[error("no schemas in {}: it has no folder of a topic, as in orders.created/v1.avsc", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
}

/// A folder as it lies on disk.
#[derive(Debug)]
pub struct Folder {
    /// Where it lies.
    root: PathBuf,
    /// Its topics by name.
    pub topics: Vec<Topic>,
    /// How it is governed.
    pub settings: Settings,
    /// What is published; none without a lock file.
    pub lock: Option<Lock>,
    /// Every file that could be read, with its hash.
    present: BTreeMap<String, Present>,
    /// What reading found.
    findings: Vec<Finding>,
}

/// A file that could be read.
#[derive(Debug)]
struct Present {
    sha256: String,
    /// As it would be with `\n` for every `\r\n`; none without one.
    sha256_with_plain_line_ends: Option<String>,
}

/// The versions of one topic's values.
#[derive(Debug)]
pub struct Topic {
    /// The topic's name.
    pub name: String,
    /// By number.
    pub versions: Vec<Version>,
}

/// One version.
#[derive(Debug)]
pub struct Version {
    /// Its number, from 1.
    pub number: u32,
    /// Its file, from the folder's root.
    pub path: String,
    /// What is in it; none where it could not be read, which is a finding of its own.
    pub file: Option<File>,
    /// Its golden records by name.
    pub golden: Vec<Case>,
}

/// One golden record.
#[derive(Debug)]
pub struct Case {
    /// Its two files without `.json` and `.avro`, from the folder's root.
    pub path: String,
    /// The record as JSON.
    pub json: Option<File>,
    /// The record as Avro writes it, without a header.
    pub body: Option<File>,
}

/// What a file holds.
#[derive(Debug)]
pub struct File {
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Version {
    /// The schema; none where the file could not be read or is no UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.file.as_ref()?.bytes).ok()
    }
}

impl Folder {
    /// The files that are published or to be published: schemas and golden records, with their hashes.
    fn publishable(&self) -> impl Iterator<Item = (&String, &Present)> {
        self.present.iter().filter(|(path, _)| path.contains('/'))
    }
}
