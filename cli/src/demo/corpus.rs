//! Real prose that is on every machine that built Millrace: the Markdown files of the crates in the cargo registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::files;

/// Larger files are mostly generated.
const MAX_BYTES: u64 = 64 << 10;

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its path below the corpus.
    pub id: String,
    /// Its text.
    pub text: String,
}

/// What the demo submits.
#[derive(Debug)]
pub struct Corpus {
    /// In order of their hash.
    pub documents: Vec<Document>,
    /// Where they are from, for people.
    pub source: String,
}

impl Corpus {
    /// Gathers at most `limit` documents. Byte-identical copies are dropped, and what is not UTF-8 or blank.
    pub fn gather(directory: Option<&Path>, limit: usize) -> Result<Self> {
        let (roots, source) = match directory {
            Some(directory) => (vec![directory.to_owned()], directory.display().to_string()),
            None => (registries()?, "the crates of your cargo registry".to_owned()),
        };
        let mut by_hash = BTreeMap::new();
        for root in &roots {
            for item in files::below(root)? {
                let markdown_only = directory.is_none() && files::media_type(&item.id) != "text/markdown";
                if markdown_only || item.size_bytes() > MAX_BYTES {
                    continue;
                }
                let path = item.id.clone();
                let Ok(text) = String::from_utf8(item.read_now().with_context(|| path.clone())?) else {
                    continue;
                };
                if !text.trim().is_empty() {
                    let document = Document { id: item.id, text };
                    by_hash.entry(Sha256::digest(&document.text)).or_insert(document);
                }
            }
        }
        let documents: Vec<_> = by_hash.into_values().take(limit).collect();
        if documents.is_empty() {
            bail!(
                "there is no Markdown or text file of at most 64 KiB in {source}: give a directory with --corpus DIR"
            );
        }
        Ok(Self { documents, source })
    }

    /// Size of all texts.
    pub fn bytes(&self) -> usize {
        self.documents.iter().map(|document| document.text.len()).sum()
    }
}

/// The source folders of the registries that cargo has fetched crates from.
fn registries() -> Result<Vec<PathBuf>> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo"),
    };
    let sources = home.join("registry/src");
    let entries = std::fs::read_dir(&sources).with_context(|| {
        format!(
            "there is no cargo registry in {}: give a directory with --corpus DIR",
            home.display()
        )
    })?;
    let mut roots = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    roots.sort();
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_large_blank_and_broken_files_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, body: &[u8]| std::fs::write(dir.path().join(name), body).unwrap();
        write("a.md", b"one text");
        write("b.md", b"one text");
        write("c.txt", b"another text");
        write("blank.md", b" \n");
        write("broken.md", b"\xff\xfe");
        write("large.md", &vec![b'x'; MAX_BYTES as usize + 1]);
        let ids = |limit| {
            let corpus = Corpus::gather(Some(dir.path()), limit).unwrap();
            let mut ids: Vec<_> = corpus.documents.into_iter().map(|document| document.id).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(9), ["a.md", "c.txt"]);
        assert_eq!(ids(1).len(), 1);
    }

    #[test]
    fn an_empty_corpus_is_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let error = Corpus::gather(Some(dir.path()), 9).unwrap_err().to_string();
        assert!(error.contains("--corpus"), "{error}");
    }
}
