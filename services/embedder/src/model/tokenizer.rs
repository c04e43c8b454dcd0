//! Texts to tokens, by the model's own `tokenizer.json`, never cut and never padded here.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::ModelError;

/// The file's name in a model directory.
pub const FILE: &str = "tokenizer.json";

/// A text's tokens as the model takes them, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Ids in the model's vocabulary.
    pub ids: Box<[u32]>,
    /// Segment of each token; all 0 for a single text.
    pub types: Box<[u32]>,
    /// The text itself, for a backend that has a tokenizer of its own: [`Tokenizer::keeping_text`].
    pub text: Option<Box<str>>,
}

impl Tokens {
    /// How many there are, at least 1.
    pub fn len(&self) -> usize {
        self.ids.len()
    }
    /// Whether there are none: never, of a text that [`Tokenizer::tokenize`] took.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Why a text is not embedded. Nothing is ever cut to make it fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing but white space.
    #[error("the text is empty")]
    Empty,
    /// More tokens than the model takes.
    #[error("the text has {tokens} tokens, the model takes at most {max_tokens}")]
    TooManyTokens {
        /// Tokens it has, the special ones included.
        tokens: usize,
        /// The model's limit.
        max_tokens: usize,
    },
    /// Too large to be worth counting its tokens.
    #[error("the text has {bytes} bytes, at most {max_bytes} are taken")]
    TooManyBytes {
        /// Bytes it has.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The tokenizer refused it.
    #[error("the tokenizer refused the text: {0}")]
    Refused(String),
}

/// The model's tokenizer. Cheap to clone. Blocking work: about 0.15 ms for 128 tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    max_tokens: usize,
    pad_id: u32,
    keeps_text: bool,
    sha256: [u8; 32],
}

/// Bytes a token may have on average before a text is refused uncounted. Prose has 4 to 5; this bounds what a hostile
/// text costs, since an endless word is one token only after all of it was read.
const MAX_BYTES_PER_TOKEN: usize = 64;

impl Tokenizer {
    /// Reads `tokenizer.json` of a model directory.
    pub fn read(dir: &Path, max_tokens: usize) -> Result<Self, ModelError> {
        let path = dir.join(FILE);
        let bytes = super::read(&path)?;
        let refused = |what: tokenizers::Error| ModelError::Tokenizer {
            path: path.clone(),
            what: what.to_string(),
        };
        let sha256 = Sha256::digest(&bytes).into();
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(refused)?;
        let pad_id = inner.get_padding().map_or(0, |padding| padding.pad_id);
        // The file may have both baked in (MiniLM's cuts at 128 tokens and pads to 128): texts would be cut silently.
        inner.with_truncation(None).map_err(refused)?;
        inner.with_padding(None);
        Ok(Self {
            inner: Arc::new(inner),
            max_tokens,
            pad_id,
            keeps_text: false,
            sha256,
        })
    }

    /// The same, with the text beside its tokens.
    #[must_use]
    pub fn keeping_text(self) -> Self {
        Self {
            keeps_text: true,
            ..self
        }
    }

    /// The token that fills rows of a batch; masked out, so that its value does not matter to the result.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }
    /// sha256 of its file.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
    /// Longest text in tokens, the special ones included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The tokens of a text with a prefix before it, all of them.
    pub fn tokenize_after(&self, prefix: &str, text: &str) -> Result<Tokens, TextError> {
        match prefix {
            "" => self.tokenize(text),
            _ if text.trim().is_empty() => Err(TextError::Empty),
            _ => self.tokenize(&format!("{prefix}{text}")),
        }
    }

    /// A text's tokens, all of them.
    pub fn tokenize(&self, text: &str) -> Result<Tokens, TextError> {
        let max_bytes = self.max_tokens * MAX_BYTES_PER_TOKEN;
        if text.trim().is_empty() {
            return Err(TextError::Empty);
        }
        if text.len() > max_bytes {
            return Err(TextError::TooManyBytes {
                bytes: text.len(),
                max_bytes,
            });
        }
        let encoding = self
            .inner
            .encode_fast(text, true)
            .map_err(|e| TextError::Refused(e.to_string()))?;
        let tokens = encoding.len();
        match tokens {
            0 => Err(TextError::Empty),
            _ if tokens > self.max_tokens => Err(TextError::TooManyTokens {
                tokens,
                max_tokens: self.max_tokens,
            }),
            _ => Ok(Tokens {
                ids: encoding.get_ids().into(),
                types: encoding.get_type_ids().into(),
                text: self.keeps_text.then(|| text.into()),
            }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A word-level tokenizer with MiniLM's trap in it: it cuts at 4 tokens and pads to 4.
    pub(crate) const TRAPPED: &str = r#"{
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 4}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 3, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1, "b": 2, "[PAD]": 3}, "unk_token": "[UNK]"}
    }"#;

    pub(crate) fn trapped(max_tokens: usize) -> Tokenizer {
        read(TRAPPED, max_tokens)
    }

    pub(crate) fn read(file: &str, max_tokens: usize) -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), file).unwrap();
        Tokenizer::read(dir.path(), max_tokens).unwrap()
    }

    #[test]
    fn baked_in_truncation_and_padding_are_off() {
        let tokenizer = trapped(8);
        assert_eq!(tokenizer.tokenize("a").unwrap().ids.as_ref(), [1]);
        assert_eq!(tokenizer.tokenize("a b a b a b").unwrap().len(), 6);
        assert_eq!(tokenizer.pad_id(), 3);
    }

    #[test]
    fn the_text_travels_where_it_is_needed_alone() {
        assert_eq!(trapped(8).tokenize("a b").unwrap().text, None);
        let tokens = trapped(8).keeping_text().tokenize("a b").unwrap();
        assert_eq!((tokens.text.as_deref(), tokens.len()), (Some("a b"), 2));
    }

    #[test]
    fn what_does_not_fit_is_refused_not_cut() {
        let tokenizer = trapped(8);
        assert_eq!(tokenizer.tokenize("a ".repeat(8).trim()).unwrap().len(), 8);
        let long = tokenizer.tokenize(&"a ".repeat(9)).unwrap_err();
        assert_eq!(
            long,
            TextError::TooManyTokens {
                tokens: 9,
                max_tokens: 8
            }
        );
        let endless = tokenizer.tokenize(&"a".repeat(513)).unwrap_err();
        assert_eq!(
            endless,
            TextError::TooManyBytes {
                bytes: 513,
                max_bytes: 512
            }
        );
        for empty in ["", " \n\t"] {
            assert_eq!(tokenizer.tokenize(empty).unwrap_err(), TextError::Empty);
        }
    }
}
