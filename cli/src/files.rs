//! Which files become which documents.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// One document to submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its document id.
    pub id: String,
    /// Where its body is; none for stdin.
    path: Option<PathBuf>,
}

/// Largest body that ingest takes.
const MAX_BODY_BYTES: u64 = 1 << 20;

impl Item {
    /// Its body. One that is too large is refused before it is read.
    pub async fn read(&self) -> Result<Vec<u8>> {
        let item = self.clone();
        tokio::task::spawn_blocking(move || item.read_now()).await?
    }

    /// As [`Item::read`], blocking.
    pub fn read_now(&self) -> Result<Vec<u8>> {
        match &self.path {
            Some(path) => {
                let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
                read_bounded(file).with_context(|| format!("cannot read {}", path.display()))
            }
            None => read_bounded(std::io::stdin().lock()).context("cannot read stdin"),
        }
    }

    /// Size of its file; 0 where that is not known before it is read.
    pub fn size_bytes(&self) -> u64 {
        self.path
            .as_ref()
            .and_then(|path| fs::metadata(path).ok())
            .map_or(0, |metadata| metadata.len())
    }
}

fn read_bounded(source: impl Read) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    source.take(MAX_BODY_BYTES + 1).read_to_end(&mut body)?;
    if body.len() as u64 > MAX_BODY_BYTES {
        bail!("it is larger than 1 MiB, the most that a document may have: split it");
    }
    Ok(body)
}

/// The documents of the paths, in order; two files that would be one document are refused.
pub fn collect(paths: &[String], id: Option<&str>) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for path in paths {
        if path == "-" {
            let id = id.context("stdin has no name: give the document's id with --id")?;
            items.push(Item {
                id: id.to_owned(),
                path: None,
            });
            continue;
        }
        let path = Path::new(path);
        let found = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        if found.is_dir() {
            if id.is_some() {
                bail!("--id names one document, {} is a directory", path.display());
            }
            items.extend(below(path)?);
        } else {
            let name = || text(path.file_name().unwrap_or(path.as_os_str()), path).map(str::to_owned);
            let id = id.map_or_else(name, |id| Ok(id.to_owned()))?;
            items.push(Item {
                id,
                path: Some(path.to_owned()),
            });
        }
    }
    if id.is_some() && items.len() > 1 {
        bail!("--id names one document, {} were given", items.len());
    }
    let mut seen = HashMap::new();
    for item in &items {
        if let Some(first) = seen.insert(&item.id, &item.path) {
            let name = |path: &Option<PathBuf>| path.as_ref().map_or("stdin".into(), |p| p.display().to_string());
            bail!(
                "{} and {} would both be the document {}: submit them apart, from a directory above both",
                name(first),
                name(&item.path),
                item.id
            );
        }
    }
    Ok(items)
}

/// The documents below a directory, in order of their paths; a document's id is its path below the directory.
pub fn below(directory: &Path) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    walk(directory, directory, &mut items)?;
    Ok(items)
}

fn walk(base: &Path, folder: &Path, items: &mut Vec<Item>) -> Result<()> {
    let cannot = || format!("cannot read {}", folder.display());
    let mut entries = fs::read_dir(folder)
        .with_context(cannot)?
        .collect::<Result<Vec<_>, _>>()
        .with_context(cannot)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        // Links to directories are not followed: they may lead back.
        if entry.file_type().with_context(cannot)?.is_dir() {
            walk(base, &path, items)?;
        } else if is_document(&path) && path.is_file() {
            let relative = path.strip_prefix(base).unwrap_or(&path);
            let parts = relative
                .components()
                .map(|part| text(part.as_os_str(), &path))
                .collect::<Result<Vec<_>>>()?;
            items.push(Item {
                id: parts.join("/"),
                path: Some(path),
            });
        }
    }
    Ok(())
}

fn text<'a>(name: &'a OsStr, path: &Path) -> Result<&'a str> {
    name.to_str()
        .with_context(|| format!("the name of {} is not UTF-8, and a document id must be", path.display()))
}

fn is_document(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    ["md", "markdown", "txt"]
        .iter()
        .any(|known| ending.eq_ignore_ascii_case(known))
}

/// The media type of a name.
pub fn media_type(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    if ["md", "markdown"]
        .iter()
        .any(|known| ending.eq_ignore_ascii_case(known))
    {
        "text/markdown"
    } else {
        "text/plain"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in ["b.md", "a/x.TXT", "a/b/y.markdown", "a/z.rs", "c/b.md"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        dir
    }

    fn ids(paths: &[&Path], id: Option<&str>) -> Result<Vec<String>> {
        let paths: Vec<_> = paths.iter().map(|p| p.to_string_lossy().into_owned()).collect();
        Ok(collect(&paths, id)?.into_iter().map(|item| item.id).collect())
    }

    #[test]
    fn ids_are_paths_below_the_directory_given() {
        let dir = tree();
        assert_eq!(
            ids(&[dir.path()], None).unwrap(),
            ["a/b/y.markdown", "a/x.TXT", "b.md", "c/b.md"]
        );
        assert_eq!(ids(&[&dir.path().join("a")], None).unwrap(), ["b/y.markdown", "x.TXT"]);
        assert_eq!(
            ids(&[&dir.path().join("a/z.rs")], None).unwrap(),
            ["z.rs"],
            "a file named is taken as it is"
        );
        assert_eq!(ids(&[&dir.path().join("b.md")], Some("n")).unwrap(), ["n"]);
        assert_eq!(ids(&[Path::new("-")], Some("n")).unwrap(), ["n"]);
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        let dir = tree();
        let refused = |paths: &[&Path], id| ids(paths, id).unwrap_err().to_string();
        assert!(
            refused(&[&dir.path().join("b.md"), &dir.path().join("c/b.md")], None)
                .contains("both be the document b.md")
        );
        assert!(refused(&[Path::new("-")], None).contains("--id"));
        assert!(refused(&[dir.path()], Some("n")).contains("directory"));
        assert!(refused(&[&dir.path().join("none")], None).contains("cannot read"));
    }

    #[tokio::test]
    async fn a_body_above_the_bound_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big.md");
        fs::write(&path, vec![b'x'; (1 << 20) + 1]).unwrap();
        let item = Item {
            id: "big.md".to_owned(),
            path: Some(path),
        };
        assert!(format!("{:#}", item.read().await.unwrap_err()).contains("1 MiB"));
    }

    #[test]
    fn the_ending_tells_the_media_type() {
        assert_eq!(
            ["a.md", "a.MARKDOWN", "a.txt", "a"].map(media_type),
            ["text/markdown", "text/markdown", "text/plain", "text/plain"]
        );
    }
}
