//! Lengths in tokens of the embedding model.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

/// Why text could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file is missing, unreadable or not a tokenizer.
    #[error("cannot read the tokenizer {}: {message}; it must be the tokenizer.json of the embedding model", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the tokenizer's reader said.
        message: String,
    },
    /// A text was refused. Why is left out: the tokenizer's words may quote the text.
    #[error("the tokenizer refused a text of {len} bytes")]
    Encode {
        /// Length of the text in bytes.
        len: usize,
    },
}

/// Counts tokens as the embedding model will, its special tokens included.
///
/// Truncation and padding that stand in the tokenizer's file are switched off: with them every text would seem to
/// fit, and the model would cut it silently.
#[derive(Debug, Clone)]
pub struct TokenCounter {
    tokenizer: Tokenizer,
    special: usize,
}

impl TokenCounter {
    /// Reads a `tokenizer.json`.
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        let open_error = |message: String| TokenizerError::Open {
            path: path.to_owned(),
            message,
        };
        let tokenizer = Tokenizer::from_file(path).map_err(|error| open_error(error.to_string()))?;
        Self::new(tokenizer).map_err(|error| open_error(error.to_string()))
    }

    /// Takes a tokenizer, without its truncation and padding.
    pub fn new(mut tokenizer: Tokenizer) -> Result<Self, TokenizerError> {
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|_| refused(""))?;
        let mut counter = Self { tokenizer, special: 0 };
        counter.special = counter.count("")?;
        Ok(counter)
    }

    /// Special tokens around every text.
    pub fn special(&self) -> usize {
        self.special
    }

    /// Tokens of a text, special ones included.
    pub fn count(&self, text: &str) -> Result<usize, TokenizerError> {
        match self.tokenizer.encode_fast(text, true) {
            Ok(encoding) => Ok(encoding.len()),
            Err(_) => Err(refused(text)),
        }
    }

    /// Byte at which each token of a text begins, ascending, without special tokens.
    pub fn starts(&self, text: &str) -> Result<Vec<usize>, TokenizerError> {
        let encoding = self.tokenizer.encode(text, false).map_err(|_| refused(text))?;
        let mut starts: Vec<usize> = encoding.get_offsets().iter().map(|(start, _)| *start).collect();
        starts.sort_unstable();
        Ok(starts)
    }
}

fn refused(text: &str) -> TokenizerError {
    TokenizerError::Encode { len: text.len() }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::collections::HashMap;

    use tokenizers::models::wordpiece::WordPiece;
    use tokenizers::normalizers::BertNormalizer;
    use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
    use tokenizers::processors::bert::BertProcessing;
    use tokenizers::{PaddingParams, PaddingStrategy, Tokenizer, TruncationParams};

    use super::TokenCounter;

    /// The file named by `MILLRACE_TEST_TOKENIZER`, or a small tokenizer built as BERT's are: lower case, WordPiece,
    /// two special tokens, and the truncation and padding that MiniLM's file carries.
    pub(crate) fn tokenizer() -> Tokenizer {
        if let Some(path) = std::env::var_os("MILLRACE_TEST_TOKENIZER") {
            return Tokenizer::from_file(path).expect("MILLRACE_TEST_TOKENIZER names a tokenizer.json");
        }
        let letters = ('a'..='z').chain('0'..='9');
        let vocab = [
            "[UNK]", "[CLS]", "[SEP]", "[PAD]", "the", "and", "##ing", "word", "river", "mill", "##s",
        ]
        .into_iter()
        .map(String::from)
        .chain(letters.flat_map(|c| [c.to_string(), format!("##{c}")]))
        .chain(".,;:!?#*->`'()[]{}|_=+~/\\\"".chars().map(String::from))
        .zip(0..);
        let model = serde_json::json!({
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab.collect::<HashMap<_, u32>>(),
        });
        let mut tokenizer = Tokenizer::new(serde_json::from_str::<WordPiece>(&model.to_string()).unwrap());
        tokenizer
            .with_normalizer(Some(BertNormalizer::default()))
            .with_pre_tokenizer(Some(BertPreTokenizer))
            .with_post_processor(Some(BertProcessing::new(("[SEP]".into(), 2), ("[CLS]".into(), 1))));
        tokenizer.with_padding(Some(PaddingParams {
            strategy: PaddingStrategy::Fixed(128),
            ..PaddingParams::default()
        }));
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length: 128,
                ..TruncationParams::default()
            }))
            .unwrap();
        tokenizer
    }

    pub(crate) fn counter() -> TokenCounter {
        TokenCounter::new(tokenizer()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_and_padding_of_the_file_do_not_count() {
        let counter = testing::counter();
        assert_eq!(counter.special(), 2);
        assert_eq!(counter.count("the river").unwrap(), 4);
        assert_eq!(counter.count(&"the ".repeat(500)).unwrap(), 502);
    }

    #[test]
    fn starts_are_bytes_of_the_text_as_given() {
        assert_eq!(testing::counter().starts("Thé  river").unwrap(), [0, 6]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = TokenCounter::open(Path::new("/nowhere/tokenizer.json")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/tokenizer.json"), "{error}");
    }
}
