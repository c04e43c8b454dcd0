//! Statuses on disk (redb): records, first receipts by request id, and the offsets they came from, always together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_events::{DocumentKey, DocumentStatus, RequestId, Revision, State, StatusKey};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::view::{DocumentView, RevisionStatus};

/// Status of each revision by `document NUL revision` (big-endian: in order).
const STATUSES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("statuses");
/// Revision that took effect by `document NUL request_id`, and when it was accepted.
const REQUESTS: TableDefinition<'_, &[u8], (i64, i64)> = TableDefinition::new("requests");
/// Next offset to read by partition.
const OFFSETS: TableDefinition<'_, i32, i64> = TableDefinition::new("offsets");
/// Greatest offset of `documents.submitted` that a status speaks of, by partition.
const SUBMITTED: TableDefinition<'_, i32, i64> = TableDefinition::new("submitted");
/// Single values: [`FORMAT_KEY`], [`SAVED_AT_KEY`].
const META: TableDefinition<'_, &str, i64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const SAVED_AT_KEY: &str = "saved_at_ms";
/// Raised when the tables change: a store of another format is read again from the topic.
const FORMAT: i64 = 1;
const FILE: &str = "status.redb";
/// Within this time after its acceptance a request id has one effect.
pub const REQUEST_ID_TTL_MS: i64 = 24 * 60 * 60 * 1000;

/// Why the store does not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made.
    #[error("cannot create the folder {}: {source}; set data_dir to one that this process may write", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be opened.
    #[error("cannot open the status replica {}; is another process using this data_dir?", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the store said.
        source: Box<redb::Error>,
    },
    /// A read or a write failed.
    #[error("the status replica failed to {operation}")]
    Access {
        /// What was tried.
        operation: &'static str,
        /// What the store said.
        source: Box<redb::Error>,
    },
    /// What stands in it cannot be read.
    #[error("the status replica holds an entry that cannot be read; delete its file, it is read again from the topic")]
    Entry(#[from] serde_json::Error),
    /// The thread that ran the operation is gone.
    #[error("the status replica was interrupted")]
    Interrupted,
}

fn access<E: Into<redb::Error>>(operation: &'static str) -> impl Fn(E) -> StoreError {
    move |source| StoreError::Access {
        operation,
        source: Box::new(source.into()),
    }
}

/// One change that came from the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The newest record of a key.
    Put {
        /// The record.
        status: Box<RevisionStatus>,
        /// The partition it stood in.
        partition: i32,
    },
    /// The key was deleted.
    Remove(StatusKey),
}

/// What one batch changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order of the topic.
    pub changes: Vec<Change>,
    /// Next offset to read of the partitions that moved.
    pub offsets: BTreeMap<i32, i64>,
}

/// The store. Cheap to clone; every method blocks on the disk.
#[derive(Debug, Clone)]
pub struct Store {
    database: Arc<Database>,
}

impl Store {
    /// Opens or creates the store in a folder.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(|source| StoreError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let path = folder.join(FILE);
        let database = Database::create(&path).map_err(|source| StoreError::Open {
            path,
            source: Box::new(source.into()),
        })?;
        let store = Self {
            database: Arc::new(database),
        };
        if store.meta(FORMAT_KEY)? != Some(FORMAT) {
            store.clear()?;
        }
        Ok(store)
    }

    /// Forgets everything: the topic is read again from its beginning.
    pub fn clear(&self) -> Result<(), StoreError> {
        let failed = "clear";
        let write = self.database.begin_write().map_err(access(failed))?;
        write.delete_table(STATUSES).map_err(access(failed))?;
        write.delete_table(REQUESTS).map_err(access(failed))?;
        write.delete_table(OFFSETS).map_err(access(failed))?;
        write.delete_table(SUBMITTED).map_err(access(failed))?;
        write.open_table(STATUSES).map_err(access(failed))?;
        write.open_table(REQUESTS).map_err(access(failed))?;
        write.open_table(OFFSETS).map_err(access(failed))?;
        write.open_table(SUBMITTED).map_err(access(failed))?;
        let mut meta = write.open_table(META).map_err(access(failed))?;
        meta.insert(FORMAT_KEY, FORMAT).map_err(access(failed))?;
        meta.remove(SAVED_AT_KEY).map_err(access(failed))?;
        drop(meta);
        write.commit().map_err(access(failed))
    }

    /// Applies a batch and its offsets in one transaction. `durable` waits for the disk; without it a crash can take
    /// this batch and those before it, offsets included, back to the last durable one.
    pub fn apply(&self, batch: &Batch, now_ms: i64, durable: bool) -> Result<(), StoreError> {
        let failed = "apply a batch";
        let mut write = self.database.begin_write().map_err(access(failed))?;
        let durability = if durable {
            Durability::Immediate
        } else {
            Durability::None
        };
        write.set_durability(durability).map_err(access(failed))?;
        {
            let mut tables = Tables {
                statuses: write.open_table(STATUSES).map_err(access(failed))?,
                requests: write.open_table(REQUESTS).map_err(access(failed))?,
                submitted: write.open_table(SUBMITTED).map_err(access(failed))?,
            };
            for change in &batch.changes {
                tables.apply(change)?;
            }
            let mut offsets = write.open_table(OFFSETS).map_err(access(failed))?;
            for (partition, next) in &batch.offsets {
                offsets.insert(partition, next).map_err(access(failed))?;
            }
            let mut meta = write.open_table(META).map_err(access(failed))?;
            meta.insert(SAVED_AT_KEY, now_ms).map_err(access(failed))?;
        }
        write.commit().map_err(access(failed))
    }

    /// Next offset to read, by partition.
    pub fn offsets(&self) -> Result<BTreeMap<i32, i64>, StoreError> {
        self.numbers(OFFSETS)
    }

    /// Greatest offset of `documents.submitted` that a status speaks of, by partition.
    pub fn submitted(&self) -> Result<BTreeMap<i32, i64>, StoreError> {
        self.numbers(SUBMITTED)
    }

    /// When the last batch was applied.
    pub fn saved_at_ms(&self) -> Result<Option<i64>, StoreError> {
        self.meta(SAVED_AT_KEY)
    }

    /// What is known of a document; `revision` chooses the status, the latest one without it.
    pub fn view(&self, document: &DocumentKey, revision: Option<Revision>) -> Result<DocumentView, StoreError> {
        let failed = "read a document";
        let read = self.database.begin_read().map_err(access(failed))?;
        let statuses = read.open_table(STATUSES).map_err(access(failed))?;
        let mut view = DocumentView::default();
        if let Some(revision) = revision {
            let key = status_key(document, revision);
            if let Some(value) = statuses.get(key.as_slice()).map_err(access(failed))? {
                view.status = Some(serde_json::from_slice(value.value())?);
            }
        }
        let (first, last) = (document_key(document, &[0; 8]), document_key(document, &[0xff; 8]));
        let all = statuses
            .range(first.as_slice()..=last.as_slice())
            .map_err(access(failed))?;
        for entry in all.rev() {
            let (_, value) = entry.map_err(access(failed))?;
            let status: RevisionStatus = serde_json::from_slice(value.value())?;
            let this = status.record.checked_revision().ok();
            let state = status.record.state;
            view.latest = view.latest.or(this);
            if revision.is_none() && view.status.is_none() {
                view.status = Some(status);
            }
            match state {
                State::Indexed => {
                    view.live = this;
                    break;
                }
                State::Deleted => break,
                _ => {}
            }
        }
        Ok(view)
    }

    /// The revision that took effect for a request id of a document, if it was accepted within 24 hours before `now_ms`.
    pub fn request(
        &self,
        document: &DocumentKey,
        request: RequestId,
        now_ms: i64,
    ) -> Result<Option<RevisionStatus>, StoreError> {
        let failed = "look up a request id";
        let read = self.database.begin_read().map_err(access(failed))?;
        let requests = read.open_table(REQUESTS).map_err(access(failed))?;
        let key = document_key(document, request.to_string().as_bytes());
        let Some(found) = requests.get(key.as_slice()).map_err(access(failed))? else {
            return Ok(None);
        };
        let (revision, accepted_at_ms) = found.value();
        if now_ms - accepted_at_ms > REQUEST_ID_TTL_MS {
            return Ok(None);
        }
        let statuses = read.open_table(STATUSES).map_err(access(failed))?;
        let key = document_key(document, &revision.to_be_bytes());
        let status = statuses.get(key.as_slice()).map_err(access(failed))?;
        Ok(status.map(|value| serde_json::from_slice(value.value())).transpose()?)
    }

    fn numbers(&self, table: TableDefinition<'_, i32, i64>) -> Result<BTreeMap<i32, i64>, StoreError> {
        let failed = "read its offsets";
        let read = self.database.begin_read().map_err(access(failed))?;
        let table = read.open_table(table).map_err(access(failed))?;
        let entries = table.iter().map_err(access(failed))?;
        entries
            .map(|entry| entry.map(|(k, v)| (k.value(), v.value())).map_err(access(failed)))
            .collect()
    }

    fn meta(&self, key: &str) -> Result<Option<i64>, StoreError> {
        let failed = "read its state";
        let read = self.database.begin_read().map_err(access(failed))?;
        match read.open_table(META) {
            Ok(meta) => Ok(meta.get(key).map_err(access(failed))?.map(|v| v.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(access(failed)(error)),
        }
    }
}

struct Tables<'t> {
    statuses: Table<'t, &'static [u8], &'static [u8]>,
    requests: Table<'t, &'static [u8], (i64, i64)>,
    submitted: Table<'t, i32, i64>,
}

impl Tables<'_> {
    fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Put { status, partition } => self.put(status, *partition),
            Change::Remove(key) => self.remove(key),
        }
    }

    fn put(&mut self, status: &RevisionStatus, partition: i32) -> Result<(), StoreError> {
        let failed = "store a status";
        let record = &status.record;
        // Records without an identity were refused before they came here.
        let (Ok(document), Ok(revision)) = (record.document(), record.checked_revision()) else {
            return Ok(());
        };
        let value = serde_json::to_vec(status)?;
        let key = status_key(&document, revision);
        self.statuses
            .insert(key.as_slice(), value.as_slice())
            .map_err(access(failed))?;
        let known = self
            .submitted
            .get(partition)
            .map_err(access(failed))?
            .map(|v| v.value());
        if known.is_none_or(|known| known < revision.offset()) {
            self.submitted
                .insert(partition, revision.offset())
                .map_err(access(failed))?;
        }
        self.put_request(&document, revision, record)
    }

    /// The first revision of a request id keeps it, for 24 hours.
    fn put_request(
        &mut self,
        document: &DocumentKey,
        revision: Revision,
        record: &DocumentStatus,
    ) -> Result<(), StoreError> {
        let failed = "store a request id";
        let Ok(request) = record.request_id.parse::<RequestId>() else {
            return Ok(());
        };
        if record.state == State::DuplicateOf {
            return Ok(());
        }
        let key = document_key(document, request.to_string().as_bytes());
        let kept = self
            .requests
            .get(key.as_slice())
            .map_err(access(failed))?
            .map(|v| v.value());
        let keep = kept
            .is_some_and(|(first, at_ms)| first < revision.get() && record.accepted_at_ms - at_ms <= REQUEST_ID_TTL_MS);
        if !keep {
            let entry = (revision.get(), record.accepted_at_ms);
            self.requests.insert(key.as_slice(), entry).map_err(access(failed))?;
        }
        Ok(())
    }

    fn remove(&mut self, key: &StatusKey) -> Result<(), StoreError> {
        let failed = "remove a status";
        let status = status_key(&key.document, key.revision);
        let removed = self.statuses.remove(status.as_slice()).map_err(access(failed))?;
        let Some(removed) = removed else { return Ok(()) };
        let removed: RevisionStatus = serde_json::from_slice(removed.value())?;
        let request = document_key(&key.document, removed.record.request_id.as_bytes());
        let held = self
            .requests
            .get(request.as_slice())
            .map_err(access(failed))?
            .map(|v| v.value().0);
        if held == Some(key.revision.get()) {
            self.requests.remove(request.as_slice()).map_err(access(failed))?;
        }
        Ok(())
    }
}

fn status_key(document: &DocumentKey, revision: Revision) -> Vec<u8> {
    document_key(document, &revision.get().to_be_bytes())
}

/// NUL ends a document's name: names have no control characters.
fn document_key(document: &DocumentKey, rest: &[u8]) -> Vec<u8> {
    let mut key = document.to_string().into_bytes();
    key.push(0);
    key.extend_from_slice(rest);
    key
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
