//! Texts that backends are measured and compared with, and what alike means.

use super::pooling::Vector;
use super::tokenizer::{Tokenizer, Tokens};

/// Backends whose vectors are less alike than this, by the cosine, are not two backends of one model.
const ALIKE: f32 = 0.9999;

/// A batch about as the pipeline cuts them: texts of about 128 tokens, or what the model takes.
const TEXTS: usize = 32;
const WORDS: usize = 90;

/// Texts to compare with have no more tokens, whatever the model takes: they are computed all in one batch.
const LONGEST: usize = 512;

/// A batch to measure with: texts of lengths a little apart.
pub(super) fn batch(tokenizer: &Tokenizer) -> Vec<Tokens> {
    let longest = tokenizer.max_tokens() / 3;
    tokenized(tokenizer, (0..TEXTS).map(|at| text(at, (WORDS + at).min(longest))))
}

/// Texts to compare with. Code, figures and foreign words are where a lack of precision shows first; and since kernels are
/// chosen by shapes there is plain prose too, from one word to as many as fit, each twice as long as the one before.
pub(super) fn hard(tokenizer: &Tokenizer) -> Vec<Tokens> {
    let longest = tokenizer.max_tokens().min(LONGEST) / 3;
    let lengths = std::iter::successors(Some(1), |words| Some(words * 2)).take_while(|words| *words <= longest);
    let prose = lengths.enumerate().map(|(at, words)| text(at, words));
    let mut texts = tokenized(tokenizer, HARD.into_iter().map(str::to_owned).chain(prose));
    // Of some tokenizers a word has more than three.
    texts.retain(|tokens| tokens.len() <= LONGEST);
    texts
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

/// Why vectors are not those of one model.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub(super) enum Unlike {
    #[error("{found} vectors instead of {expected}")]
    Count { found: usize, expected: usize },
    #[error("a vector's cosine to the reference's is not a number")]
    NotANumber,
    #[error("a vector's cosine to the reference's is {0}, below {ALIKE}")]
    Cosine(f32),
}

/// The least cosine between what two backends gave for the same texts, if they are alike.
pub(super) fn alike(reference: &[Vector], vectors: &[Vector]) -> Result<f32, Unlike> {
    let (found, expected) = (vectors.len(), reference.len());
    if found != expected {
        return Err(Unlike::Count { found, expected });
    }
    least(reference.iter().zip(vectors).map(|(one, other)| one.cosine(other)))
}

fn least(mut cosines: impl Iterator<Item = f32>) -> Result<f32, Unlike> {
    // `f32::min` alone passes over what is not a number.
    let least = cosines.try_fold(1.0, |least: f32, cosine| match cosine.is_nan() {
        true => Err(Unlike::NotANumber),
        false => Ok(least.min(cosine)),
    })?;
    match least >= ALIKE {
        true => Ok(least),
        false => Err(Unlike::Cosine(least)),
    }
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
    use crate::model::pooling::Gate;
    use crate::model::tokenizer::tests::{TRAPPED, read, trapped};

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

    #[test]
    fn a_model_for_long_texts_is_compared_with_short_ones() {
        let longest = |max_tokens| hard(&trapped(max_tokens)).iter().map(Tokens::len).max();
        assert_eq!((longest(512), longest(8192)), (Some(128), Some(128)));
        // A token for each letter: prose of 128 words has more than 512.
        let letters = read(
            &TRAPPED.replace(
                r#"{"type": "Whitespace"}"#,
                r#"{"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false}"#,
            ),
            8192,
        );
        let lengths: Vec<usize> = hard(&letters).iter().map(Tokens::len).collect();
        assert!(
            lengths.len() == HARD.len() + 7 && lengths.iter().all(|tokens| *tokens <= LONGEST),
            "{lengths:?}"
        );
    }

    #[test]
    fn what_is_missing_or_no_number_is_not_alike() {
        let gate = Gate {
            dimensions: 2,
            normalized: false,
        };
        let vector = |y: f32| gate.pass(vec![1.0, y]).unwrap();
        let reference = [vector(0.0), vector(1.0)];
        assert!(alike(&reference, &reference).unwrap() >= ALIKE);
        let (found, expected) = (1, 2);
        assert_eq!(
            alike(&reference, &reference[..1]),
            Err(Unlike::Count { found, expected })
        );
        let (found, expected) = (2, 1);
        assert_eq!(
            alike(&reference[..1], &reference),
            Err(Unlike::Count { found, expected })
        );
        let other = alike(&reference, &[vector(0.0), vector(-1.0)]);
        assert!(
            matches!(other, Err(Unlike::Cosine(cosine)) if cosine.abs() < 1e-6),
            "{other:?}"
        );
        for cosines in [[f32::NAN, 1.0], [1.0, f32::NAN], [f32::NAN, 0.5]] {
            assert_eq!(least(cosines.into_iter()), Err(Unlike::NotANumber));
        }
    }
}
