//! What benches submit.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Result, ensure};
use millrace_ingest::pipeline::chunk::Chunker;
use millrace_ingest::pipeline::media::MediaType;
use millrace_ingest::pipeline::tokens::TokenCounter;

use crate::demo::corpus::{Corpus, Document};

/// Files to choose from.
const FILES: usize = 10_000;
/// Chunks of a document of short ones.
const SHORT_CHUNKS: usize = 30;

/// Documents as people wrote them, of 20 to 40 chunks each, and the texts of their chunks as ingest cuts them.
pub struct Prose {
    pub documents: Vec<Document>,
    pub chunks: Vec<String>,
}

impl Prose {
    /// Of a document.
    pub const LEAST_CHUNKS: usize = 20;
    const CHUNKS: RangeInclusive<usize> = Self::LEAST_CHUNKS..=40;

    /// The first ones of a directory, or of the crates in the cargo registry. Blocking.
    pub fn gather(directory: Option<&Path>, model: &Path, documents: usize) -> Result<Self> {
        let corpus = Corpus::gather(directory, FILES)?;
        let counter = TokenCounter::open(&model.join("tokenizer.json"))?;
        // As `millrace up` leaves it.
        let max_tokens = millrace_ingest::Config::default().max_chunk_tokens;
        let chunker = Chunker::new(counter, max_tokens);
        let mut prose = Self {
            documents: Vec::new(),
            chunks: Vec::new(),
        };
        for document in corpus.documents {
            if prose.documents.len() == documents {
                break;
            }
            let chunks = chunker.chunk(&document.text, MediaType::Markdown)?;
            if Self::CHUNKS.contains(&chunks.len()) {
                let texts = chunks.into_iter().map(|chunk| document.text[chunk.range].to_owned());
                prose.chunks.extend(texts);
                prose.documents.push(document);
            }
        }
        ensure!(
            prose.documents.len() == documents,
            "{} has {} documents of {} to {} chunks, not {documents}: submit fewer with --documents N, or name another \
             directory with --corpus DIR",
            corpus.source,
            prose.documents.len(),
            Self::CHUNKS.start(),
            Self::CHUNKS.end()
        );
        Ok(prose)
    }
}

/// Documents of 30 sections, each of which is a short chunk.
pub fn of_short_chunks(name: &str, documents: usize) -> Vec<Document> {
    let section = |document, section| format!("## Note {document}.{section}\n\nSo it goes, and on.\n\n");
    let document = |document| Document {
        id: format!("{name}/{document}.md"),
        text: (0..SHORT_CHUNKS).map(|n| section(document, n)).collect(),
    };
    (0..documents).map(document).collect()
}

/// A document of one short chunk.
pub fn note(name: &str, number: usize) -> Document {
    Document {
        id: format!("{name}/{number}.md"),
        text: format!("Note {number} of many: so it goes, and on."),
    }
}

/// Several of them.
pub fn notes(name: &str, documents: usize) -> Vec<Document> {
    (0..documents).map(|number| note(name, number)).collect()
}
