//! Draws sentences that stand in exactly one document: each must lead a search back to it.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::corpus::Document;

const WORDS: std::ops::RangeInclusive<usize> = 8..=40;

/// A sentence and the document it was drawn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// Eight words or more, white space made one.
    pub sentence: String,
    /// The document's id.
    pub document: String,
}

/// At most `count` sentences, one a document, the same for the same seed.
pub fn draw(documents: &[Document], count: usize, seed: u64) -> Vec<Drawn> {
    let mut random = StdRng::seed_from_u64(seed);
    let plain: Vec<String> = documents.iter().map(|document| normalize(&document.text)).collect();
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.shuffle(&mut random);
    let mut drawn = Vec::new();
    for index in order {
        if drawn.len() == count {
            break;
        }
        let candidates = sentences(&documents[index].text);
        let unique = |sentence: &&String| plain.iter().filter(|text| text.contains(sentence.as_str())).count() == 1;
        // A document of copied prose may have none: a few tries tell.
        let mut tries = (0..random.random_range(4..8)).filter_map(|_| candidates.choose(&mut random));
        if let Some(sentence) = tries.find(unique) {
            drawn.push(Drawn {
                sentence: sentence.clone(),
                document: documents[index].id.clone(),
            });
        }
    }
    drawn
}

fn normalize(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The sentences of a text's paragraphs. Code, tables, headings, lists and links are not prose.
fn sentences(text: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    let mut fenced = false;
    for line in text.lines() {
        let line = line.trim_end();
        fenced ^= line.trim_start().starts_with("```");
        let prose = !fenced && line.starts_with(|c: char| c.is_alphanumeric()) && !line.starts_with("    ");
        match paragraphs.last_mut() {
            Some(paragraph) if prose => {
                paragraph.push_str(line);
                paragraph.push(' ');
            }
            _ => paragraphs.push(String::new()),
        }
    }
    let whole = paragraphs
        .iter()
        .flat_map(|paragraph| paragraph.split_inclusive(['.', '!', '?']));
    whole.map(normalize).filter(|sentence| is_prose(sentence)).collect()
}

fn is_prose(sentence: &str) -> bool {
    let letters = sentence.chars().filter(|c| c.is_alphabetic() || *c == ' ').count();
    sentence.ends_with(['.', '!', '?'])
        && sentence.starts_with(char::is_uppercase)
        && WORDS.contains(&sentence.split(' ').count())
        && letters * 10 >= sentence.chars().count() * 9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(id: &str, text: &str) -> Document {
        Document {
            id: id.into(),
            text: text.into(),
        }
    }

    #[test]
    fn only_prose_that_stands_in_one_document_is_drawn() {
        let shared = "This one sentence of licence text stands in both of them.";
        let own = "A sentence\nthat only the first document has, over two lines.";
        let documents = [
            document(
                "a",
                &format!("# Title of more than eight words in all of it.\n\n{shared}\n\n{own} Short one.\n"),
            ),
            document(
                "b",
                &format!("{shared}\n\n```\nThis is code and not prose although it has eight words.\n```\n"),
            ),
        ];
        for seed in 0..20 {
            for drawn in draw(&documents, 10, seed) {
                assert_eq!(
                    (drawn.document.as_str(), drawn.sentence.as_str()),
                    ("a", normalize(own).as_str())
                );
            }
        }
        assert!((0..20).any(|seed| draw(&documents, 10, seed).len() == 1));
    }

    #[test]
    fn a_seed_draws_the_same_again() {
        let text = |n: u8| format!("The quick brown fox number {n} jumps over the lazy dog today.");
        let documents: Vec<_> = (0..50).map(|n| document(&n.to_string(), &text(n))).collect();
        assert_eq!(draw(&documents, 10, 7), draw(&documents, 10, 7));
        assert_ne!(draw(&documents, 10, 7), draw(&documents, 10, 8));
        assert_eq!(draw(&documents, 10, 7).len(), 10);
    }
}
