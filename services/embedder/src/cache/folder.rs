//! The cache's folder: one process has it, and what lies there was written by a cache of the same size.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::CacheError;

/// Raised when foyer reads its files in another way, or [`super::Entry`] its bytes.
const FORMAT: u32 = 1;

/// A folder that this process has, as long as the value lives.
#[derive(Debug)]
pub(super) struct Folder {
    blocks: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes the folder, creating it; none if another process has it. What a cache of another size left there is removed: its files are cut in another way.
    pub(super) fn take(dir: &Path, max_mib: usize) -> Result<Option<Self>, CacheError> {
        let failed = |source| CacheError::Folder {
            path: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        let mut lock = options.open(dir.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let blocks = dir.join("blocks");
        prepare(&mut lock, &blocks, &format!("{FORMAT} {max_mib}\n")).map_err(failed)?;
        Ok(Some(Self { blocks, _lock: lock }))
    }

    /// Where the vectors are.
    pub(super) fn blocks(&self) -> &Path {
        &self.blocks
    }
}

/// The lock says how the blocks were made; it is written when those of another make are gone.
fn prepare(lock: &mut File, blocks: &Path, make: &str) -> io::Result<()> {
    let mut found = String::new();
    // What is no text was written by nobody here.
    if lock.read_to_string(&mut found).is_ok() && found == make {
        return Ok(());
    }
    match fs::remove_dir_all(blocks) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(make.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_gets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::take(dir.path(), 64).unwrap();
        assert!(first.is_some() && Folder::take(dir.path(), 64).unwrap().is_none());
        drop(first);
        assert!(Folder::take(dir.path(), 64).unwrap().is_some());
    }

    #[test]
    fn what_a_cache_of_another_size_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let block = dir.path().join("blocks/0");
        for (max_mib, kept) in [(64, false), (64, true), (65, false), (64, false)] {
            drop(Folder::take(dir.path(), max_mib).unwrap());
            assert_eq!(block.exists(), kept, "{max_mib}");
            fs::create_dir_all(dir.path().join("blocks")).unwrap();
            fs::write(&block, "vectors").unwrap();
        }
    }

    #[test]
    fn a_folder_that_is_none_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = Folder::take(file.path(), 64).unwrap_err().to_string();
        assert!(refused.contains(&*file.path().to_string_lossy()), "{refused}");
    }
}
