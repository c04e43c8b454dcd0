//! Where vectors are remembered, and how many.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[cache]`: vectors that were computed before.
///
/// A vector of up to 1,000 values takes 4 KiB on disk: a GiB has some 260,000 of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheOptions {
    /// Folder of this process alone, made where it is missing. Empty: nothing is remembered.
    pub dir: PathBuf,
    /// Most of it on disk, in MiB. Another value begins with an empty cache.
    pub max_mib: usize,
    /// Of that what is in memory as well, in MiB.
    pub memory_mib: usize,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            max_mib: 1_024,
            memory_mib: 64,
        }
    }
}

/// A MiB for each of the files, so that the longest vector fits into one.
const MIN_MIB: usize = super::BLOCKS;
/// Positions in a file are 32 bits.
const MAX_MIB: usize = super::BLOCKS << 11;

impl CacheOptions {
    /// Whether there is to be one.
    pub fn is_on(&self) -> bool {
        !self.dir.as_os_str().is_empty()
    }

    /// What cannot work: the key, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(MIN_MIB..=MAX_MIB).contains(&self.max_mib) {
            return Err(("cache.max_mib", format!("must be {MIN_MIB} to {MAX_MIB}")));
        }
        if !(1..=self.max_mib).contains(&self.memory_mib) {
            let why = format!("must be 1 to cache.max_mib ({})", self.max_mib);
            return Err(("cache.memory_mib", why));
        }
        Ok(())
    }
}
