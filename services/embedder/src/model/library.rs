//! A shared library that a process loads once: what is loaded stays, so another one is refused.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The one that was loaded, and what it gave; none yet.
pub(super) struct Library<T>(Mutex<Option<(PathBuf, T)>>);

impl<T: Clone> Library<T> {
    pub(super) const fn none() -> Self {
        Self(Mutex::new(None))
    }

    /// What loading it gave: now, unless it has been loaded. One that cannot be loaded is as if it had not been tried.
    pub(super) fn load(&self, library: &Path, load: impl FnOnce(&Path) -> Result<T, String>) -> Result<T, String> {
        let path = std::path::absolute(library).map_err(|e| e.to_string())?;
        let mut loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*loaded {
            Some((first, given)) if *first == path => Ok(given.clone()),
            Some((first, _)) => Err(format!("this process has already loaded {}", first.display())),
            None => {
                let given = load(&path)?;
                *loaded = Some((path, given.clone()));
                Ok(given)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_loaded_once_and_another_one_refused() {
        let library = Library::none();
        let failed = library.load(Path::new("/a"), |_| Err("not there".to_owned()));
        assert_eq!(failed, Err("not there".to_owned()));
        assert_eq!(library.load(Path::new("/b"), |_| Ok(1)), Ok(1));
        assert_eq!(library.load(Path::new("/b"), |_| Ok(2)), Ok(1), "loaded before");
        let refused = library.load(Path::new("/a"), |_| Ok(3)).unwrap_err();
        assert!(refused.contains("already loaded /b"), "{refused}");
    }
}
