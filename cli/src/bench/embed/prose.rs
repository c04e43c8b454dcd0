//! Chunks of chosen lengths, of real prose.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use millrace_embedder::model::Tokenizer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::demo::corpus::Corpus;

/// Enough words for every figure.
const DOCUMENTS: usize = 2_000;
const SEED: u64 = 7;
const DIFFERENT: usize = 4_096;
/// Mixed lengths in tokens.
const MIXED: std::ops::RangeInclusive<usize> = 16..=512;
/// Words that are tried at once: a chunk grows by these until it is long enough.
const STEP: usize = 4;

/// How long chunks are, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lengths {
    /// So long, or a few tokens less.
    About(usize),
    /// 16 to 512, each as often as the others.
    Mixed,
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::About(tokens) => write!(f, "{tokens} tokens a chunk"),
            Self::Mixed => write!(f, "{} to {} tokens a chunk", MIXED.start(), MIXED.end()),
        }
    }
}

/// Words as people wrote them, one after another.
pub struct Prose {
    words: Vec<String>,
}

impl Prose {
    /// Of text files below a directory, or of the crates in the cargo registry.
    pub fn gather(directory: Option<&Path>) -> Result<Self> {
        let corpus = Corpus::gather(directory, DOCUMENTS)?;
        let words = corpus
            .documents
            .iter()
            .flat_map(|document| document.text.split_whitespace());
        // Words without an end are no prose: links, keys, tables.
        let words = words.filter(|word| word.len() <= 24).map(str::to_owned).collect();
        Ok(Self { words })
    }

    /// So many chunks, the same ones each time; after 4,096 they come again.
    pub fn texts(&self, tokenizer: &Tokenizer, lengths: Lengths, count: usize) -> Vec<String> {
        let mut random = StdRng::seed_from_u64(SEED);
        let mut words = self.words.iter().map(String::as_str).cycle();
        let different: Vec<String> = (0..count.min(DIFFERENT))
            .map(|_| {
                let wanted = match lengths {
                    Lengths::About(tokens) => tokens,
                    Lengths::Mixed => random.random_range(MIXED),
                };
                chunk(tokenizer, &mut words, wanted)
            })
            .collect();
        different.iter().cycle().take(count).cloned().collect()
    }
}

/// Takes words until there are no more tokens than wanted, or a few less.
fn chunk<'a>(tokenizer: &Tokenizer, words: &mut impl Iterator<Item = &'a str>, wanted: usize) -> String {
    let length = |text: &str| tokenizer.tokenize(text).map_or(usize::MAX, |tokens| tokens.len());
    // Prose has about 1.4 tokens a word: begin with what fits in any case.
    let mut text: Vec<&str> = words.by_ref().take((wanted / 3).max(1)).collect();
    loop {
        let longer: Vec<&str> = text.iter().copied().chain(words.by_ref().take(STEP)).collect();
        if length(&longer.join(" ")) > wanted {
            return text.join(" ");
        }
        text = longer;
    }
}
