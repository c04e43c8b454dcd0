//! Texts that backends are measured and compared with, and what alike means.

use super::pooling::Vector;
use super::tokenizer::{Tokenizer, Tokens};

/// Backends whose vectors are less alike than this, by the cosine, are not two backends of one model.
pub(super) const ALIKE: f32 = 0.9999;

/// A batch about as the pipeline cuts them: texts of about 128 tokens, or what the model takes.
const TEXTS: usize = 32;
const WORDS: usize = 90;

/// A batch to measure with: texts of lengths a little apart.
pub(super) fn batch(tokenizer: &Tokenizer) -> Vec<Tokens> {
    let longest = tokenizer.max_tokens() / 3;
    tokenized(tokenizer, (0..TEXTS).map(|at| text(at, (WORDS + at).min(longest))))
}

/// Texts to compare with. Code, figures and foreign words are where a lack of precision shows first; and since kernels are
/// chosen by shapes there is plain prose too, from one word to as many as the model takes, each twice as long as the one before.
pub(super) fn hard(tokenizer: &Tokenizer) -> Vec<Tokens> {
    let longest = tokenizer.max_tokens() / 3;
    let lengths = std::iter::successors(Some(1), |words| Some(words * 2)).take_while(|words| *words <= longest);
    let prose = lengths.enumerate().map(|(at, words)| text(at, words));
    tokenized(tokenizer, HARD.into_iter().map(str::to_owned).chain(prose))
}

const HARD: [&str; 9] = [
    "How do I reset my password?",
    "fn main() { println!(\"{}\", 1 + 1); }",
    "```\ncargo run --release --bin server -- --listen 127.0.0.1:8080\n```",
    "{\"id\": 42, \"tags\": [\"a\", \"b\"], \"nested\": {\"deep\": null}}",
    "Donaudampfschifffahrtsgesellschaft, Zürich, São Paulo, Łódź",
    "Мельница стоит у реки; 水车由河流推动。",
    "| 2024-02-29 | 1,048,576 | 0.9999 | -3.14e-7 | n/a |",
    "| no. | field | type | meaning | |---|---|---|---| | 1 | `tenant` | string | Whose. | | 2 | `document_id` | string | Which one. | \
     | 3 | `revision` | int64 | 0: the last one. | ### message Letter | no. | field | type | meaning | |---|---|---|---| | 1 | \
     `reason` | string | A stable code. | | 2 | `attempts` | int32 | How often it was tried. |",
    "🦀 :: https://example.com/a/b?c=d&e=%20f#g",
];

/// The least cosine between what two backends gave for the same texts.
pub(super) fn least_alike(reference: &[Vector], vectors: &[Vector]) -> f32 {
    let pairs = reference.iter().zip(vectors);
    pairs.map(|(one, other)| one.cosine(other)).fold(1.0, f32::min)
}

fn tokenized(tokenizer: &Tokenizer, texts: impl Iterator<Item = String>) -> Vec<Tokens> {
    texts.filter_map(|text| tokenizer.tokenize(&text).ok()).collect()
}

/// Prose of plain words, each text another. A word is a token or two.
fn text(at: usize, words: usize) -> String {
    const WORD: [&str; 12] = [
        "the", "river", "turns", "wheel", "after", "wheel", "while", "millers", "measure", "what", "water", "carries",
    ];
    let words = (0..words).map(|n| WORD[(n * (at + 1) + n / 7) % WORD.len()]);
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tokenizer::tests::trapped;

    #[test]
    fn texts_to_compare_with_are_of_all_lengths() {
        let tokens = hard(&trapped(384));
        let lengths: Vec<usize> = tokens.iter().skip(HARD.len()).map(Tokens::len).collect();
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 64, 128]);
        assert!(
            batch(&trapped(512))
                .iter()
                .all(|tokens| (90..122).contains(&tokens.len()))
        );
    }
}
