use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::pipeline::tokens::testing::counter;

const MAX_TOKENS: usize = 200;

/// Cuts a document and checks every promise of the module on it.
fn chunks(document: &str, media: MediaType) -> Vec<Chunk> {
    let counter = counter();
    let chunks = Chunker::new(counter.clone(), MAX_TOKENS)
        .chunk(document, media)
        .unwrap();
    let mut end = 0;
    for chunk in &chunks {
        let gap = document[end..chunk.range.start].trim();
        assert!(
            gap.is_empty() || (end == 0 && gap == BYTE_ORDER_MARK),
            "left out: {gap:?}"
        );
        let text = &document[chunk.range.clone()];
        assert!(
            !text.trim().is_empty() && text.len() <= MAX_CHUNK_BYTES,
            "{}",
            text.len()
        );
        assert_eq!(chunk.tokens, counter.count(text).unwrap());
        assert!(chunk.tokens <= MAX_TOKENS, "{} tokens", chunk.tokens);
        end = chunk.range.end;
    }
    assert!(document[end..].trim().trim_matches('\u{feff}').is_empty());
    chunks
}

fn texts<'a>(document: &'a str, chunks: &[Chunk]) -> Vec<&'a str> {
    chunks.iter().map(|c| &document[c.range.clone()]).collect()
}

#[test]
fn a_short_document_is_one_chunk() {
    let document = "\n\n  The mill.\n\nThe river.\n";
    assert_eq!(
        texts(document, &chunks(document, MediaType::Plain)),
        ["  The mill.\n\nThe river."]
    );
    assert!(chunks(" \n\t\u{3000}\n", MediaType::Plain).is_empty());
    assert!(chunks("", MediaType::Markdown).is_empty());
}

#[test]
fn paragraphs_stay_whole_where_they_fit() {
    let paragraph = "the river and the mill. ".repeat(20);
    let document = [paragraph.trim(); 6].join("\n\n");
    let found = chunks(&document, MediaType::Plain);
    assert_eq!(texts(&document, &found), [paragraph.trim(); 6]);
}

#[test]
fn a_long_paragraph_is_cut_between_sentences() {
    let document = "The river and the mill and the word. ".repeat(60);
    let found = chunks(&document, MediaType::Plain);
    assert!(found.len() > 1);
    assert!(
        texts(&document, &found)
            .iter()
            .all(|t| t.ends_with('.') && t.starts_with("The"))
    );
}

#[test]
fn sections_are_never_mixed_and_carry_their_path() {
    let document = "# Mill\n\nthe mill\n\n## River\n\nthe river\n\n# Word\n\nthe word\n";
    let found = chunks(document, MediaType::Markdown);
    let sections: Vec<_> = found.iter().map(|c| c.section.join(" > ")).collect();
    assert_eq!(sections, ["Mill", "Mill > River", "Word"]);
    let plain = chunks(document, MediaType::Plain);
    assert_eq!((plain.len(), plain[0].section.len()), (1, 0));
}

#[test]
fn offsets_count_from_the_start_of_the_body_behind_a_byte_order_mark() {
    let document = "\u{feff}# Mill\n\nthe mill";
    let found = chunks(document, MediaType::Markdown);
    assert_eq!(
        (found[0].range.clone(), found[0].section[0].as_str()),
        (3..document.len(), "Mill")
    );
}

/// The bound is generous: what it must catch is growth that is not linear, which takes minutes at this size.
///
/// `MILLRACE_TEST_HOSTILE_BYTES=1048576` runs all of them at the size that is accepted.
#[test]
fn a_hostile_document_takes_bounded_time() {
    let size = std::env::var("MILLRACE_TEST_HOSTILE_BYTES")
        .ok()
        .map(|bytes| bytes.parse().unwrap());
    let (small, large) = (size.unwrap_or(64 << 10), size.unwrap_or(256 << 10));
    let repeat = |pattern: &str, size: usize| pattern.repeat(size / pattern.len());
    let of = |pattern: &str| repeat(pattern, small);
    let nested_list: String = (0..large / 1400)
        .map(|i| format!("{}- a\n", " ".repeat(2 * (i % 1400))))
        .collect();
    let hostile = [
        ("quotes and lines", repeat(">", large / 2) + &repeat("a\n", large / 2)),
        (
            "nested quotes on every line",
            repeat(&(">".repeat(500) + " a\n"), large),
        ),
        (
            "as deep as parsed",
            repeat(&(">".repeat(499) + &" a\n".repeat(4000)), large),
        ),
        ("deep once, then lines", ">".repeat(500) + &repeat("a\n", large)),
        ("nested list", nested_list),
        ("one word", of("x")),
        ("newlines", of("\n")),
        ("hashes", of("#")),
        ("empty headings", of("#\n")),
        ("tiny sections", of("# a\nx\n")),
        ("quotes in one line", of(">")),
        ("list markers in one line", of("- ")),
        ("emphasis", of("*a_ ")),
        ("brackets", of("[")),
        ("links", of("[a](b")),
        ("backticks", of("`a``b")),
        ("angle brackets", of("<a ")),
        ("table", of("|a")),
        ("table rows", "|a|b|\n|-|-|\n".to_owned() + &of("|c|d|\n")),
        ("emoji", of("👩‍👩‍👧‍👦")),
        ("combining", "e".to_owned() + &of("\u{301}")),
        ("no spaces, no latin", of("水車小屋")),
        ("nul", of("\0")),
        ("full stops", of(".")),
        ("prose", of("The river drives the mill. The mill and the word.\n\n")),
    ];
    let mut slow = Vec::new();
    for (name, document) in &hostile {
        for media in [MediaType::Plain, MediaType::Markdown] {
            let begun = Instant::now();
            let found = chunks(document, media);
            let taken = begun.elapsed();
            println!("{name:28} {media:14} {:6} chunks {taken:.2?}", found.len());
            if taken > Duration::from_secs(30) {
                slow.push((name, media, taken));
            }
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_text_is_covered_by_chunks_that_fit(
        pieces in proptest::collection::vec(
            prop_oneof![
                4 => "[a-z]{1,12} ",
                2 => "[A-Z][a-z ]{0,80}[.!?] ",
                1 => Just("\n\n".to_owned()),
                1 => "#{1,6} [a-z]{1,10}\n\n",
                1 => "(- |> |1\\. |    |```\n|\\| a \\|\n|\\* \\* \\*\n)",
                1 => "\\PC{0,40}",
                1 => "[\u{0}-\u{1f}\u{300}-\u{305}\u{feff}\u{200d}👩水]{1,30}",
                1 => "[a-z]{200,6000}",
            ],
            0..120,
        ),
        markdown: bool,
    ) {
        let media = if markdown { MediaType::Markdown } else { MediaType::Plain };
        chunks(&pieces.concat(), media);
    }
}
