//! The last traces on disk: OTLP requests as they came, each behind its length, in files of a bounded size of which the
//! oldest goes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;

/// A file is followed by the next one at this size.
const FILE_BYTES: u64 = 16 << 20;
/// As many files are kept.
const FILES: u64 = 8;
/// Of a length as it is written before a request.
const MAX_LENGTH_BYTES: usize = 10;
const SUFFIX: &str = "otlp";

/// Bytes that are kept at most.
pub const KEPT_BYTES: u64 = FILE_BYTES * FILES;

/// Writes. One a folder.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    number: u64,
    file: File,
    bytes: u64,
}

impl Store {
    /// Goes on behind what is there: in a file of its own, since the last one may end within a request.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the directory {}", folder.display()))?;
        let number = numbers(folder)?.last().map_or(1, |last| last + 1);
        let mut store = Self {
            file: create(folder, number)?,
            folder: folder.to_owned(),
            number,
            bytes: 0,
        };
        store.forget()?;
        Ok(store)
    }

    /// Keeps an encoded ExportTraceServiceRequest.
    pub fn keep(&mut self, request: &[u8]) -> Result<()> {
        let mut length = Vec::with_capacity(MAX_LENGTH_BYTES);
        prost::encode_length_delimiter(request.len(), &mut length).context("cannot write traces")?;
        let written = self.file.write_all(&length).and_then(|()| self.file.write_all(request));
        let written = written.context("cannot write traces");
        self.bytes += (length.len() + request.len()) as u64;
        // Behind half a request nothing could be read.
        if written.is_err() || self.bytes >= FILE_BYTES {
            self.number += 1;
            self.file = create(&self.folder, self.number)?;
            self.bytes = 0;
            self.forget()?;
        }
        written
    }

    /// The oldest files, while all of them have too many bytes.
    fn forget(&mut self) -> Result<()> {
        let mut files = Vec::new();
        for number in numbers(&self.folder)? {
            let path = path(&self.folder, number);
            let bytes = fs::metadata(&path)
                .with_context(|| format!("cannot read {}", path.display()))?
                .len();
            files.push((path, bytes));
        }
        let mut bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        // Room for the one that begins now.
        for (path, size) in files.iter().take(files.len().saturating_sub(1)) {
            if bytes + FILE_BYTES <= KEPT_BYTES {
                break;
            }
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
            bytes -= size;
        }
        Ok(())
    }
}

/// Gives every request that is kept, oldest first. What is no ExportTraceServiceRequest is left out.
pub fn read(folder: &Path, mut take: impl FnMut(ExportTraceServiceRequest)) -> Result<()> {
    for number in numbers(folder)? {
        let path = path(folder, number);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // The oldest goes while the stack runs.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut rest = bytes.as_slice();
        // The last request may be half written: now, or when its writer was killed.
        while let Some(request) = next(&mut rest) {
            if let Ok(request) = ExportTraceServiceRequest::decode(request) {
                take(request);
            }
        }
    }
    Ok(())
}

/// The next whole request of those in `rest`.
fn next<'r>(rest: &mut &'r [u8]) -> Option<&'r [u8]> {
    let length = prost::decode_length_delimiter(&mut *rest).ok()?;
    let (request, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(request)
}

fn create(folder: &Path, number: u64) -> Result<File> {
    let path = path(folder, number);
    File::create(&path).with_context(|| format!("cannot make {}", path.display()))
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.{SUFFIX}"))
}

/// Numbers of the files, smallest first; none where there is no folder.
fn numbers(folder: &Path) -> Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot read the directory {}", folder.display())),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if path.extension().is_some_and(|suffix| suffix == SUFFIX) {
            numbers.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use millrace_telemetry::otlp;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

    use super::*;

    fn request(name: &str) -> Vec<u8> {
        let span = Span {
            name: name.into(),
            ..Span::default()
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    spans: vec![span],
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        request.encode_to_vec()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names = Vec::new();
        read(folder, |request| {
            let spans = otlp::spans(request).map(|(_, span)| span.name);
            names.extend(spans);
        })
        .unwrap();
        names
    }

    #[test]
    fn what_was_kept_is_read_after_a_restart_and_a_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        store.keep(&request("one")).unwrap();
        store.keep(&request("two")).unwrap();
        drop(store);
        let torn = path(folder.path(), 1);
        let bytes = fs::read(&torn).unwrap();
        fs::write(&torn, &bytes[..bytes.len() - 1]).unwrap();
        Store::open(folder.path()).unwrap().keep(&request("three")).unwrap();
        assert_eq!(names(folder.path()), ["one", "three"]);
    }

    #[test]
    fn what_is_no_request_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        for bytes in [&request("one")[..], b"no request", b"", &request("two")] {
            store.keep(bytes).unwrap();
        }
        assert_eq!(names(folder.path()), ["one", "two"]);
    }

    #[test]
    fn the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let large = "x".repeat(usize::try_from(FILE_BYTES).unwrap() / 2 + 1);
        let mut store = Store::open(folder.path()).unwrap();
        for _ in 0..2 * FILES + 4 {
            store.keep(&request(&large)).unwrap();
        }
        let files = numbers(folder.path()).unwrap();
        assert!((FILES / 2..=FILES).contains(&(files.len() as u64)), "{files:?}");
        assert_eq!(files.last(), Some(&store.number));
        // A restart takes no room: nothing goes for it.
        for _ in 0..2 * FILES {
            drop(Store::open(folder.path()).unwrap());
        }
        let left: Vec<u64> = numbers(folder.path()).unwrap();
        assert!(
            files.iter().skip(1).all(|file| left.contains(file)),
            "{left:?} of {files:?}"
        );
    }

    #[test]
    fn nothing_is_kept_where_there_is_no_folder() {
        assert!(names(Path::new("/nowhere/traces")).is_empty());
    }
}
