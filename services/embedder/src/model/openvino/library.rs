//! The shared library: looked at before it is loaded.

use std::panic::{UnwindSafe, catch_unwind};
use std::path::Path;

use crate::model::ModelError;
use crate::model::library::Library;

/// Functions of OpenVINO's C library that stand for all. The bindings panic where one is missing.
const FUNCTIONS: [&[u8]; 3] = [
    b"ov_get_openvino_version",
    b"ov_core_read_model_from_memory_buffer",
    b"ov_get_last_err_msg",
];

/// Loads it, unless it has been; gives its version.
pub(super) fn load(library: &Path) -> Result<String, ModelError> {
    static LOADED: Library<String> = Library::none();
    let loaded = LOADED.load(library, |path| {
        let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
        if !is_openvino(&bytes) {
            return Err("it is not the C library of OpenVINO".into());
        }
        let opened = path.to_owned();
        understood(|| openvino_sys::library::load_from(opened))?;
        // Behind it is which commit it was built of.
        let build = openvino::version().build_number;
        Ok(build.split('-').next().unwrap_or_default().to_owned())
    });
    loaded.map_err(|what| ModelError::OpenVino {
        library: library.to_owned(),
        what,
    })
}

/// The bindings panic over a build number that does not begin with a year and a number.
fn understood(load: impl FnOnce() -> Result<(), String> + UnwindSafe) -> Result<(), String> {
    catch_unwind(load).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let said = text.or_else(|| panic.downcast_ref().copied()).unwrap_or_default();
        Err(format!(
            "its version is not understood, as of a build of one's own ({said})"
        ))
    })
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

    #[test]
    fn a_version_that_makes_the_bindings_panic_is_an_error() {
        // What they do with a build number.
        let parsed = |build: &str| {
            let build = build.to_owned();
            understood(move || Ok(_ = build.parse::<usize>().unwrap()))
        };
        assert_eq!(parsed("2026"), Ok(()));
        let error = parsed("custom_master_0123abc").unwrap_err();
        assert!(
            error.contains("a build of one's own") && error.contains("InvalidDigit"),
            "{error}"
        );
        assert!(
            understood(|| panic!("{}", "not loaded"))
                .unwrap_err()
                .contains("not loaded")
        );
        assert!(understood(|| panic!("at once")).unwrap_err().contains("at once"));
        assert_eq!(understood(|| Err("too old".into())), Err("too old".into()));
    }
}
