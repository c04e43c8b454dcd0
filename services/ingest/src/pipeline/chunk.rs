//! Cutting a document into chunks: sections, then paragraphs, then sentences, measured in the model's own tokens.
//!
//! Promises:
//! - A chunk is an exact substring of the document, at most the configured tokens (special ones included) and
//!   [`MAX_CHUNK_BYTES`] long: no model with that limit cuts it.
//! - Chunks rise in order, do not overlap, and every character that is not white space stands in one of them (a byte
//!   order mark at the start aside).
//! - Time and memory grow with the document's length whatever is in it.
//!
//! How that holds: text goes to `text-splitter` in slabs of bounded length, because its cost is quadratic in what it
//! is given at once. Each slab is tokenized once and candidates are measured by counting token starts; what it chose
//! is then tokenized on its own, and cut in halves where that count is higher than the estimate.

use std::ops::Range;
use std::sync::Arc;

use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};

use super::media::MediaType;
use super::sections::{Section, is_parseable, sections};
use super::tokens::{TokenCounter, TokenizerError};

/// No chunk is longer, however few tokens it has.
pub const MAX_CHUNK_BYTES: usize = 4 << 10;
/// The least that a chunk's token limit can be: one character of any script fits.
pub const MIN_CHUNK_TOKENS: usize = 64;
const SLAB_BYTES: usize = 8 << 10;
/// A slab with more tokens than so many chunks have is cut further: its chunks are short and many, and the splitter
/// looks through what is left of it for each (a megabyte of CJK text without punctuation took three times as long).
const DENSE_SLAB_CHUNKS: usize = 12;
/// Into pieces of about so many chunks.
const DENSE_PIECE_CHUNKS: usize = 4;
const MIN_PIECE_BYTES: usize = 512;
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes of the document.
    pub range: Range<usize>,
    /// Headings above it, outermost first.
    pub section: Arc<[String]>,
    /// Length in the model's tokens, special ones included.
    pub tokens: usize,
}

/// Why a document could not be cut.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// The tokenizer refused a text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// One character has more tokens than a chunk may have.
    #[error("the character at byte {at} has {tokens} tokens, a chunk has at most {max_tokens}")]
    Character {
        /// Where it stands.
        at: usize,
        /// Its tokens, special ones included.
        tokens: usize,
        /// The limit.
        max_tokens: usize,
    },
}

/// Cuts documents into chunks.
#[derive(Debug, Clone)]
pub struct Chunker {
    counter: TokenCounter,
    max_tokens: usize,
}

impl Chunker {
    /// `max_tokens` counts special tokens too; below [`MIN_CHUNK_TOKENS`] it is taken as that.
    pub fn new(counter: TokenCounter, max_tokens: usize) -> Self {
        Self {
            counter,
            max_tokens: max_tokens.max(MIN_CHUNK_TOKENS),
        }
    }

    /// Cuts one document. Uses the processor for up to seconds: not for an async thread.
    pub fn chunk(&self, document: &str, media: MediaType) -> Result<Vec<Chunk>, ChunkError> {
        let text = document.strip_prefix(BYTE_ORDER_MARK).unwrap_or(document);
        let skipped = document.len() - text.len();
        // Too deep to parse: its text is what counts.
        let media = if is_parseable(text) { media } else { MediaType::Plain };
        let sections = match media {
            MediaType::Markdown => sections(text),
            MediaType::Plain => vec![Section {
                range: 0..text.len(),
                path: Arc::default(),
            }],
        };
        let mut chunks = Vec::new();
        for section in &sections {
            let mut cutter = Cutter {
                chunker: self,
                text,
                section,
                chunks: &mut chunks,
            };
            for slab in slabs(text, section.range.clone(), SLAB_BYTES) {
                cutter.cut(slab, media)?;
            }
        }
        for chunk in &mut chunks {
            chunk.range = chunk.range.start + skipped..chunk.range.end + skipped;
        }
        Ok(chunks)
    }
}

/// One section's way into chunks.
struct Cutter<'a> {
    chunker: &'a Chunker,
    text: &'a str,
    section: &'a Section,
    chunks: &'a mut Vec<Chunk>,
}

impl Cutter<'_> {
    fn cut(&mut self, slab: Range<usize>, media: MediaType) -> Result<(), ChunkError> {
        let starts = self.chunker.counter.starts(&self.text[slab.clone()])?;
        let max_tokens = self.chunker.max_tokens;
        if starts.len() <= DENSE_SLAB_CHUNKS * max_tokens {
            return self.split(slab, starts, media);
        }
        let piece_bytes = slab.len() * DENSE_PIECE_CHUNKS * max_tokens / starts.len();
        for piece in slabs(self.text, slab.clone(), piece_bytes.max(MIN_PIECE_BYTES)) {
            let (first, end) = (piece.start - slab.start, piece.end - slab.start);
            let within = starts.partition_point(|s| *s < first)..starts.partition_point(|s| *s < end);
            let starts = starts[within].iter().map(|s| s - first).collect();
            self.split(piece, starts, media)?;
        }
        Ok(())
    }

    fn split(&mut self, slab: Range<usize>, starts: Vec<usize>, media: MediaType) -> Result<(), ChunkError> {
        let text = &self.text[slab.clone()];
        let special = self.chunker.counter.special();
        let max_tokens = self.chunker.max_tokens;
        if text.len() <= MAX_CHUNK_BYTES && starts.len() + special <= max_tokens {
            return self.fit(slab);
        }
        let config = ChunkConfig::new(max_tokens).with_sizer(Measured {
            text,
            starts,
            special,
            max_tokens,
        });
        let found: Vec<(usize, usize)> = match media {
            MediaType::Plain => lengths(TextSplitter::new(config).chunk_indices(text)),
            MediaType::Markdown => lengths(MarkdownSplitter::new(config).chunk_indices(text)),
        };
        for (start, len) in found {
            self.fit(slab.start + start..slab.start + start + len)?;
        }
        Ok(())
    }

    /// Takes a candidate if it fits, its halves if not.
    fn fit(&mut self, candidate: Range<usize>) -> Result<(), ChunkError> {
        let range = trimmed(self.text, candidate);
        if range.is_empty() {
            return Ok(());
        }
        let text = &self.text[range.clone()];
        if text.len() <= MAX_CHUNK_BYTES {
            let tokens = self.chunker.counter.count(text)?;
            if tokens <= self.chunker.max_tokens {
                let section = Arc::clone(&self.section.path);
                self.chunks.push(Chunk { range, section, tokens });
                return Ok(());
            }
            if text.chars().nth(1).is_none() {
                return Err(ChunkError::Character {
                    at: range.start,
                    tokens,
                    max_tokens: self.chunker.max_tokens,
                });
            }
        }
        let middle = range.start + halfway(text);
        self.fit(range.start..middle)?;
        self.fit(middle..range.end)
    }
}

/// Measures candidates by the tokens of the slab they stand in. An estimate: where a candidate ends inside a word its
/// own tokens can differ.
struct Measured<'a> {
    text: &'a str,
    starts: Vec<usize>,
    special: usize,
    max_tokens: usize,
}

impl ChunkSizer for Measured<'_> {
    fn size(&self, chunk: &str) -> usize {
        if chunk.len() > MAX_CHUNK_BYTES {
            return self.max_tokens + chunk.len();
        }
        // Candidates are slices of the slab; if one ever is not, its length in bytes is a safe estimate.
        let start = (chunk.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        if start > self.text.len() || chunk.len() > self.text.len() - start {
            return self.special + chunk.len();
        }
        let before = |at: usize| self.starts.partition_point(|s| *s < at);
        self.special + before(start + chunk.len()) - before(start)
    }
}

fn lengths<'a>(chunks: impl Iterator<Item = (usize, &'a str)>) -> Vec<(usize, usize)> {
    chunks.map(|(start, text)| (start, text.len())).collect()
}

/// Without white space at the end and empty lines at the start; the first line keeps its indentation.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let piece = text[range.clone()].trim_end();
    let blank = piece.len() - piece.trim_start().len();
    let line = piece[..blank].rfind('\n').map_or(0, |at| at + 1);
    range.start + line..range.start + piece.len()
}

/// Stretches of at most `size` bytes, cut at the best place in their second half: an empty line, a line's end, white
/// space, a character's end.
fn slabs(text: &str, range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = range.start;
    std::iter::from_fn(move || {
        if start >= range.end {
            return None;
        }
        let end = if range.end - start <= size {
            range.end
        } else {
            let half = text.floor_char_boundary(start + size / 2);
            let window = &text[half..text.floor_char_boundary(start + size)];
            let best = (window.rfind("\n\n").map(|at| at + 2))
                .or_else(|| window.rfind('\n').map(|at| at + 1))
                .or_else(|| {
                    window
                        .rfind(char::is_whitespace)
                        .map(|at| window.ceil_char_boundary(at + 1))
                });
            half + best.unwrap_or(window.len())
        };
        let slab = start..end;
        start = end;
        Some(slab)
    })
}

/// Where to halve a text of at least two characters: behind white space near its middle, or between two characters.
fn halfway(text: &str) -> usize {
    let middle = text.ceil_char_boundary((text.len() / 2).max(1));
    let middle = if middle < text.len() {
        middle
    } else {
        text.floor_char_boundary(text.len() - 1)
    };
    let low = text.floor_char_boundary(middle / 2);
    match text[low..middle].rfind(char::is_whitespace) {
        Some(at) if low + at > 0 => text.ceil_char_boundary(low + at + 1),
        _ => middle,
    }
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
