//! Vectors that were computed before: an update of a document computes only the chunks that changed, a replay none.
//!
//! ```text
//! Embedder ── lookup ──▶ memory, then disk (foyer) ◀── lots ── Writer ◀── owner: what a canary has proven
//! ```
//! - A vector is found by the model and the text alone ([`key`]): another model, tokenizer or prefix meets no old one. Only its
//!   hash is kept of a text.
//! - What a device computed is remembered once a canary after it has passed ([`probation`]): nonsense that is finite is never
//!   served again.
//! - Bounded in memory and on disk; what is written first leaves first. What comes faster than the disk takes it is not remembered.
//! - A cache that fails costs time and no request: what cannot be read was not found.
//! - Only vectors that do not depend on their batch-mates by more than 1e-5: of models in floats, since what is quantised takes
//!   its scale from the whole batch, and of backends that compute them in f32 ([`crate::model::Description::batch_independent`]).
//!   What another backend of the model remembered is found whatever is at work: they are alike, or would not stand in for it.
//!
//! The folder is one process's ([`folder`]); it outlives that process, also when it is killed: what is damaged is left out.
//!
//! Rejected: token ids as the key (the text would be tokenised to find that it need not be); a cache before the pipeline's stage
//! (queries and the API would have none).

mod folder;
mod key;
mod options;
pub mod probation;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use foyer::{BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder, HybridCachePolicy};
use futures::stream::{self, StreamExt};
use millrace_rpc::error::chain;
use millrace_telemetry::{metrics, names};
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;

pub use key::Key;
#[cfg(test)]
pub(crate) use key::tests::key as key_of;
pub use options::CacheOptions;
pub use writer::Writer;

use crate::model::{BadVector, Gate, Manifest, Tokenizer, Vector};
use folder::Folder;
use key::Seed;

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The folder cannot be used.
    #[error("the cache's folder {} cannot be used: let this process write there, or leave cache.dir empty", path.display())]
    Folder {
        /// The folder, or what in it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is in the folder cannot be opened.
    #[error("opening the cache in {} failed: {what}; it may be removed, nothing is lost but time", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What was said.
        what: String,
    },
}

/// What is remembered of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its vector, bit by bit as it was computed.
    pub vector: Vector,
    /// Its tokens, what was put before it and the special ones included.
    pub tokens: u32,
}

/// What is remembered together.
pub type Lot = Vec<(Key, Entry)>;

type Store = HybridCache<Key, Vec<u8>>;

/// Lots on their way to the disk.
const LOTS: usize = 2;
/// Entries of a request that are read from disk at once.
const READS: usize = 8;
/// For one of them: computing it anew takes less.
const READ_LIMIT: Duration = Duration::from_secs(1);
/// The folder's files, each of which is emptied as a whole.
const BLOCKS: usize = 64;
/// What is written at once; there are two such buffers.
const BUFFER_BYTES: usize = 8 << 20;
/// What an entry needs in memory beside its bytes, about.
const OVERHEAD_BYTES: usize = 128;

/// Finds vectors. Cheap to clone; the [`Writer`] ends when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Cache {
    seed: Seed,
    gate: Gate,
    store: Store,
    lots: mpsc::Sender<Lot>,
}

impl Cache {
    /// Opens the cache of a model, and what writes it. None where none is configured; and, which is logged, where the model's
    /// vectors depend on their batch-mates, or another process has the folder: it may be one that this one is to replace.
    pub async fn open(
        options: &CacheOptions,
        manifest: &Manifest,
        tokenizer: &Tokenizer,
    ) -> Result<Option<(Self, Writer)>, CacheError> {
        if !options.is_on() {
            return Ok(None);
        }
        if !matches!(manifest.dtype.as_str(), "f32" | "f16" | "bf16") {
            let dtype = &manifest.dtype;
            tracing::warn!(
                dtype,
                "no cache: a vector of this model depends on what else is in its batch"
            );
            return Ok(None);
        }
        let (dir, max_mib) = (options.dir.clone(), options.max_mib);
        // A panic in it stands in the log.
        let taken = tokio::task::spawn_blocking(move || Folder::take(&dir, max_mib)).await;
        let Some(folder) = taken.map_err(|error| open_failed(options, &error))?? else {
            tracing::warn!(dir = %options.dir.display(), "no cache: another process has its folder");
            return Ok(None);
        };
        let store = open_store(options, &folder).await?;
        let (lots, remembered) = mpsc::channel(LOTS);
        let cache = Self {
            seed: Seed::of(manifest, tokenizer),
            gate: manifest.gate(),
            store: store.clone(),
            lots,
        };
        tracing::info!(dir = %options.dir.display(), max_mib, "vectors are remembered");
        Ok(Some((cache, Writer::new(store, remembered, folder))))
    }

    /// What a text is found by, with what the model wants before it.
    pub fn key(&self, prefix: &str, text: &str) -> Key {
        self.seed.key(prefix, text)
    }

    /// Where to hand what is to be remembered.
    pub(crate) fn lots(&self) -> mpsc::Sender<Lot> {
        self.lots.clone()
    }

    /// What is known of these, in their order.
    pub async fn lookup(&self, keys: &[Key]) -> Vec<Option<Entry>> {
        let read = stream::iter(keys.iter().copied()).map(|key| self.read(key));
        let read: Vec<_> = read.buffered(READS).collect().await;
        let hits = read.iter().filter(|read| matches!(read, Ok(Some(_)))).count();
        let errors = read.iter().filter(|read| read.is_err()).count();
        let misses = read.len() - hits - errors;
        for (result, count) in [("hit", hits), ("miss", misses), ("error", errors)] {
            metrics::CACHE_LOOKUPS.add(count, || [(names::CACHE_RESULT, result.into())]);
        }
        let not_found = |error: ReadError| {
            tracing::warn!(error = chain(&error), "a remembered vector cannot be read");
            None
        };
        read.into_iter().map(|read| read.unwrap_or_else(not_found)).collect()
    }

    async fn read(&self, key: Key) -> Result<Option<Entry>, ReadError> {
        let found = tokio::time::timeout(READ_LIMIT, self.store.get(&key)).await??;
        let entry = found.map(|bytes| Entry::from_bytes(&bytes, self.gate));
        Ok(entry.transpose()?)
    }
}

/// Why a vector is as good as not found.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("the disk does not give it")]
    Disk(#[from] foyer::Error),
    #[error("the disk does not answer")]
    Silent(#[from] Elapsed),
    #[error("it is none of this model")]
    Vector(#[from] BadVector),
}

impl Entry {
    /// Tokens, then values, all little-endian.
    fn to_bytes(&self) -> Vec<u8> {
        let values = self.vector.values().iter().flat_map(|value| value.to_le_bytes());
        self.tokens.to_le_bytes().into_iter().chain(values).collect()
    }

    /// Reads what [`Self::to_bytes`] wrote, and judges it as any vector.
    fn from_bytes(bytes: &[u8], gate: Gate) -> Result<Self, BadVector> {
        let (words, _) = bytes.as_chunks::<4>();
        let (tokens, values) = words.split_first().unwrap_or((&[0; 4], &[]));
        Ok(Self {
            vector: gate.pass_again(values.iter().map(|word| f32::from_le_bytes(*word)).collect())?,
            tokens: u32::from_le_bytes(*tokens),
        })
    }
}

async fn open_store(options: &CacheOptions, folder: &Folder) -> Result<Store, CacheError> {
    let failed = |error: foyer::Error| open_failed(options, &error);
    let (max_bytes, memory_bytes) = (options.max_mib << 20, options.memory_mib << 20);
    let device = FsDeviceBuilder::new(folder.blocks()).with_capacity(max_bytes);
    let engine = BlockEngineConfig::new(device.build().map_err(failed)?)
        .with_block_size(max_bytes / BLOCKS)
        .with_buffer_pool_size(BUFFER_BYTES);
    HybridCacheBuilder::new()
        .with_name("embeddings")
        // What is remembered is there after a kill.
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .with_flush_on_close(false)
        .memory(memory_bytes)
        .with_weighter(|_: &Key, value: &Vec<u8>| value.len() + OVERHEAD_BYTES)
        .storage()
        .with_engine_config(engine)
        .build()
        .await
        .map_err(failed)
}

fn open_failed(options: &CacheOptions, why: &dyn std::fmt::Display) -> CacheError {
    CacheError::Open {
        path: options.dir.clone(),
        what: why.to_string(),
    }
}
