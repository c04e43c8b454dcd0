//! The shared library: one a process, looked at before it is loaded.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::model::ModelError;

/// Functions of OpenVINO's C library that stand for all. The bindings panic where one is missing.
const FUNCTIONS: [&[u8]; 3] = [
    b"ov_get_openvino_version",
    b"ov_core_read_model_from_memory_buffer",
    b"ov_get_last_err_msg",
];

/// Loads it, unless it has been; gives its version.
pub(super) fn load(library: &Path) -> Result<String, ModelError> {
    static LOADED: Mutex<Option<PathBuf>> = Mutex::new(None);
    let refused = |what: String| ModelError::OpenVino {
        library: library.to_owned(),
        what,
    };
    let path = std::path::absolute(library).map_err(|e| refused(e.to_string()))?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    match &*loaded {
        Some(first) if *first == path => {}
        Some(first) => return Err(refused(format!("this process has already loaded {}", first.display()))),
        None => {
            // A library that is loaded stays, whatever it is.
            let bytes = std::fs::read(&path).map_err(|e| refused(e.to_string()))?;
            if !is_openvino(&bytes) {
                return Err(refused("it is not the C library of OpenVINO".into()));
            }
            openvino_sys::library::load_from(&path).map_err(refused)?;
            *loaded = Some(path);
        }
    }
    // Behind it is which commit it was built of.
    let build = openvino::version().build_number;
    Ok(build.split('-').next().unwrap_or_default().to_owned())
}

/// By the names in it: to ask the library it would have to be loaded.
fn is_openvino(bytes: &[u8]) -> bool {
    let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    FUNCTIONS.into_iter().all(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_openvino_is_named_and_not_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("libother.so");
        std::fs::write(&other, b"\x7fELF ov_get_openvino_version").unwrap();
        for (library, what) in [
            (Path::new("/nowhere/libopenvino_c.so"), "No such file"),
            (&other, "not the C library of OpenVINO"),
            (dir.path(), "directory"),
        ] {
            let error = load(library).unwrap_err().to_string();
            assert!(
                error.contains(what) && error.contains("PyPI") && error.contains(&*library.to_string_lossy()),
                "{error}"
            );
        }
    }
}
