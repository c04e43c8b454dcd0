//! What was asked for, and what was answered: the debts of the run.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde::Serialize;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// A revision of a document, in so many sections.
    Upsert {
        /// A chunk each.
        sections: usize,
    },
    /// A revision with a chunk in its middle that the model refuses, for as long as the model is told to.
    Refused {
        /// A chunk each.
        sections: usize,
    },
    /// Its deletion.
    Delete,
    /// A record that no stage can read.
    Poison,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// On disk before it is sent. Sent again until there is a receipt, with the same id.
    Asked {
        /// Request id.
        id: String,
        /// `tenant/document_id`.
        document: String,
        /// What for.
        #[serde(flatten)]
        act: Act,
        /// Milliseconds since 1970 UTC.
        at_ms: i64,
    },
    /// On disk before it is used.
    Receipt {
        /// The request's.
        id: String,
        /// What the receipt says.
        revision: i64,
        /// Milliseconds since 1970 UTC.
        at_ms: i64,
    },
}

/// A file of lines of JSON, each of them on disk when [`Journal::write`] returns.
#[derive(Debug)]
pub struct Journal(Mutex<Open>);

#[derive(Debug)]
struct Open {
    file: File,
    entries: Vec<Entry>,
}

impl Journal {
    /// A new journal.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create_new(true).append(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let entries = Vec::new();
        Ok(Self(Mutex::new(Open { file, entries })))
    }

    /// Writes an entry through to the disk.
    pub fn write(&self, entry: Entry) -> Result<()> {
        let line = serde_json::to_string(&entry)? + "\n";
        // For a disk's moment: the runtime has other threads.
        tokio::task::block_in_place(|| {
            let mut open = self.open();
            open.file.write_all(line.as_bytes())?;
            open.file.sync_data()?;
            open.entries.push(entry);
            Ok(())
        })
    }

    /// All entries so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.open().entries.clone()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_written_is_in_the_file() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("journal.jsonl");
        let journal = Journal::create(&path)?;
        let asked = Entry::Asked {
            id: "r1".into(),
            document: "t/d".into(),
            act: Act::Upsert { sections: 2 },
            at_ms: 5,
        };
        journal.write(asked.clone())?;
        assert_eq!(
            std::fs::read_to_string(&path)?,
            "{\"entry\":\"asked\",\"id\":\"r1\",\"document\":\"t/d\",\"act\":\"upsert\",\"sections\":2,\"at_ms\":5}\n"
        );
        assert_eq!(journal.entries(), [asked]);
        assert!(Journal::create(&path).is_err(), "a journal is never written over");
        Ok(())
    }
}
