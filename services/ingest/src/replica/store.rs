//! A topic on disk (redb): what is kept of its records, and the offsets they came from, always together.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_events::{DocumentKey, IdError, Record};
use millrace_flow::Delivery;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

/// Next offset to read by partition.
const OFFSETS: TableDefinition<'_, i32, i64> = TableDefinition::new("offsets");
/// Single values: [`FORMAT_KEY`], [`SAVED_AT_KEY`].
const META: TableDefinition<'_, &str, i64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const SAVED_AT_KEY: &str = "saved_at_ms";

/// What is kept of a topic.
pub trait Kept: Send + Sync + 'static {
    /// The topic's records.
    type Record: Record;
    /// Its keys.
    type Key: Debug + Display + PartialEq + Send + Sync + 'static;
    /// What is kept of a record.
    type Entry: Debug + Send + Sync + 'static;
    /// Name of the file.
    const FILE: &'static str;
    /// Raised when the tables change: a store of another format is read again from the topic.
    const FORMAT: i64;

    /// Reads a record's key.
    fn key(key: &[u8]) -> Result<Self::Key, IdError>;
    /// The key that a record belongs under.
    fn key_of(record: &Self::Record) -> Result<Self::Key, IdError>;
    /// What is kept of a record.
    fn entry(record: Self::Record, delivery: &Delivery) -> Self::Entry;
    /// The document whose watchers are told of a change.
    fn document(change: &ChangeOf<Self>) -> Option<DocumentKey>;
    /// Makes its tables, or empties them.
    fn reset(write: &WriteTransaction) -> Result<(), redb::Error>;
    /// Applies changes to its tables, in their order.
    fn apply(write: &WriteTransaction, changes: &[ChangeOf<Self>]) -> Result<(), StoreError>;
}

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
    #[error("cannot open the replica {}; is another process using this data_dir?", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the store said.
        source: Box<redb::Error>,
    },
    /// A read or a write failed.
    #[error("the replica failed to {operation}")]
    Access {
        /// What was tried.
        operation: &'static str,
        /// What the store said.
        source: Box<redb::Error>,
    },
    /// What stands in it cannot be read.
    #[error("the replica holds an entry that cannot be read; delete its file, it is read again from the topic")]
    Entry(#[from] serde_json::Error),
    /// The thread that ran the operation is gone.
    #[error("the replica was interrupted")]
    Interrupted,
}

pub(crate) fn access<E: Into<redb::Error>>(operation: &'static str) -> impl Fn(E) -> StoreError {
    move |source| StoreError::Access {
        operation,
        source: Box::new(source.into()),
    }
}

/// One change that came from the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<E, K> {
    /// The newest record of a key.
    Put {
        /// What is kept of it.
        entry: Box<E>,
        /// The partition it stood in.
        partition: i32,
    },
    /// The key was deleted.
    Remove(K),
}

/// A change of what is kept.
pub type ChangeOf<T> = Change<<T as Kept>::Entry, <T as Kept>::Key>;

/// What one batch changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<C> {
    /// In the order of the topic.
    pub changes: Vec<C>,
    /// Next offset to read of the partitions that moved.
    pub offsets: BTreeMap<i32, i64>,
}

impl<C> Default for Batch<C> {
    fn default() -> Self {
        Self {
            changes: Vec::new(),
            offsets: BTreeMap::new(),
        }
    }
}

/// The store. Cheap to clone; every method blocks on the disk.
#[derive(Debug)]
pub struct Store<T> {
    database: Arc<Database>,
    kept: PhantomData<fn() -> T>,
}

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Self {
            database: self.database.clone(),
            kept: PhantomData,
        }
    }
}

impl<T: Kept> Store<T> {
    /// Opens or creates the store in a folder.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(|source| StoreError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let path = folder.join(T::FILE);
        let database = Database::create(&path).map_err(|source| StoreError::Open {
            path,
            source: Box::new(source.into()),
        })?;
        let store = Self {
            database: Arc::new(database),
            kept: PhantomData,
        };
        if store.meta(FORMAT_KEY)? != Some(T::FORMAT) {
            store.clear()?;
        }
        Ok(store)
    }

    /// Forgets everything: the topic is read again from its beginning.
    pub fn clear(&self) -> Result<(), StoreError> {
        let failed = "clear";
        let write = self.database.begin_write().map_err(access(failed))?;
        T::reset(&write).map_err(access(failed))?;
        write.delete_table(OFFSETS).map_err(access(failed))?;
        write.open_table(OFFSETS).map_err(access(failed))?;
        let mut meta = write.open_table(META).map_err(access(failed))?;
        meta.insert(FORMAT_KEY, T::FORMAT).map_err(access(failed))?;
        meta.remove(SAVED_AT_KEY).map_err(access(failed))?;
        drop(meta);
        write.commit().map_err(access(failed))
    }

    /// Applies a batch and its offsets in one transaction. `durable` waits for the disk; without it a crash can take
    /// this batch and those before it, offsets included, back to the last durable one.
    pub fn apply(&self, batch: &Batch<ChangeOf<T>>, now_ms: i64, durable: bool) -> Result<(), StoreError> {
        let failed = "apply a batch";
        let mut write = self.database.begin_write().map_err(access(failed))?;
        let durability = if durable {
            Durability::Immediate
        } else {
            Durability::None
        };
        write.set_durability(durability).map_err(access(failed))?;
        T::apply(&write, &batch.changes)?;
        {
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

    /// When the last batch was applied.
    pub fn saved_at_ms(&self) -> Result<Option<i64>, StoreError> {
        self.meta(SAVED_AT_KEY)
    }

    /// The tables as they are now.
    pub(crate) fn begin_read(&self, operation: &'static str) -> Result<ReadTransaction, StoreError> {
        self.database.begin_read().map_err(access(operation))
    }

    pub(crate) fn numbers(&self, table: TableDefinition<'_, i32, i64>) -> Result<BTreeMap<i32, i64>, StoreError> {
        let failed = "read its offsets";
        let table = self.begin_read(failed)?.open_table(table).map_err(access(failed))?;
        let entries = table.iter().map_err(access(failed))?;
        entries
            .map(|entry| entry.map(|(k, v)| (k.value(), v.value())).map_err(access(failed)))
            .collect()
    }

    fn meta(&self, key: &str) -> Result<Option<i64>, StoreError> {
        let failed = "read its state";
        match self.begin_read(failed)?.open_table(META) {
            Ok(meta) => Ok(meta.get(key).map_err(access(failed))?.map(|v| v.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(access(failed)(error)),
        }
    }
}
