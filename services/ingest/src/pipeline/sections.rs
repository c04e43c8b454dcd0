//! The sections of a Markdown document: which text stands under which headings.

use std::ops::Range;
use std::sync::Arc;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// A stretch of a document and the headings above it, outermost first, its own one included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Bytes of the document.
    pub range: Range<usize>,
    /// Texts of the headings; each at most [`MAX_HEADING_BYTES`].
    pub path: Arc<[String]>,
}

/// A longer heading is cut here, in the path only: the whole of it stands in the section's text.
pub const MAX_HEADING_BYTES: usize = 256;
/// A document with more sections than this has its small ones joined: a megabyte of one-word sections must not
/// become hundreds of thousands of chunks.
const MAX_EXACT_SECTIONS: usize = 1024;
/// What counts as small then.
const SMALL_SECTION_BYTES: usize = 256;
/// The Markdown parser's time is the number of lines times the depth of nesting: half a megabyte of `>` with as many
/// lines below it takes hours. Nobody writes documents of this depth.
const MAX_NESTING: usize = 500;

struct Heading {
    level: u8,
    text: String,
    range: Range<usize>,
}

/// Cuts a document at its headings. The sections follow each other without gaps and cover it.
///
/// | text | becomes |
/// |---|---|
/// | before the first heading | a section with an empty path |
/// | a heading with text below it | a section that begins with the heading |
/// | a heading with nothing below it | the beginning of the section that follows |
/// | a heading inside a quote, a list or a code block | no section: it is content |
/// | more than 1,024 sections | neighbours joined up to 256 bytes, with the part of their paths that they share |
pub fn sections(text: &str) -> Vec<Section> {
    let exact = cut(text, &headings(text));
    if exact.len() > MAX_EXACT_SECTIONS {
        join_small(exact)
    } else {
        exact
    }
}

/// False for a text nested so deeply that its structure is not worth the time to find it.
///
/// Counts what could open a container at the start of each line: `>`, a list marker before white space, two columns of
/// indentation. Too many only where nesting is deep, never too few.
pub fn is_parseable(text: &str) -> bool {
    text.split(['\n', '\r']).all(|line| {
        let mut depth = 0;
        let mut columns = 0;
        let mut bytes = line.bytes().peekable();
        while let Some(byte) = bytes.next() {
            match byte {
                b'>' => depth += 1,
                b' ' => columns += 1,
                b'\t' => columns += 4,
                b'0'..=b'9' => {}
                b'-' | b'+' | b'*' | b'.' | b')' | b':' | b']' => {
                    depth += usize::from(matches!(bytes.peek(), None | Some(b' ' | b'\t')));
                }
                b'[' | b'^' => {}
                _ => break,
            }
        }
        depth + columns / 2 <= MAX_NESTING
    })
}

fn headings(text: &str) -> Vec<Heading> {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_HEADING_ATTRIBUTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS
        | Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS;
    let mut headings: Vec<Heading> = Vec::new();
    let mut depth = 0usize;
    let mut open = false;
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        match event {
            Event::Start(tag) => {
                if let (Tag::Heading { level, .. }, 0) = (&tag, depth) {
                    let text = String::new();
                    headings.push(Heading {
                        level: *level as u8,
                        text,
                        range,
                    });
                    open = true;
                }
                depth += 1;
            }
            Event::End(tag) => {
                depth = depth.saturating_sub(1);
                open &= !(depth == 0 && matches!(tag, TagEnd::Heading(_)));
            }
            Event::Text(words) | Event::Code(words) if open => append(&mut headings, &words),
            Event::SoftBreak | Event::HardBreak if open => append(&mut headings, " "),
            _ => {}
        }
    }
    headings
}

fn append(headings: &mut [Heading], words: &str) {
    if let Some(heading) = headings.last_mut() {
        let room = MAX_HEADING_BYTES.saturating_sub(heading.text.len());
        heading.text.push_str(&words[..words.floor_char_boundary(room)]);
    }
}

fn cut(text: &str, headings: &[Heading]) -> Vec<Section> {
    let mut sections = Vec::with_capacity(headings.len() + 1);
    let mut above: Vec<&Heading> = Vec::new();
    let mut start = 0;
    let mut body_start = 0;
    let mut push = |start: usize, end: usize, above: &[&Heading]| {
        let path = above.iter().map(|h| h.text.trim().to_owned()).filter(|t| !t.is_empty());
        sections.push(Section {
            range: start..end,
            path: path.collect(),
        });
    };
    for heading in headings {
        if !text[body_start..heading.range.start].trim().is_empty() {
            push(start, heading.range.start, &above);
            start = heading.range.start;
        }
        above.truncate(above.iter().take_while(|h| h.level < heading.level).count());
        above.push(heading);
        body_start = heading.range.end;
    }
    if start < text.len() {
        push(start, text.len(), &above);
    }
    sections
}

fn join_small(exact: Vec<Section>) -> Vec<Section> {
    let mut joined: Vec<Section> = Vec::new();
    for section in exact {
        match joined.last_mut() {
            Some(last) if last.range.len() < SMALL_SECTION_BYTES => {
                last.range.end = section.range.end;
                let shared = last
                    .path
                    .iter()
                    .zip(section.path.iter())
                    .take_while(|(a, b)| a == b)
                    .count();
                if shared < last.path.len() {
                    last.path = last.path[..shared].into();
                }
            }
            _ => joined.push(section),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<(&str, Vec<String>)> {
        let sections = sections(text);
        assert_eq!(sections.first().map_or(0, |s| s.range.start), 0);
        assert_eq!(sections.last().map_or(0, |s| s.range.end), text.len());
        assert!(sections.windows(2).all(|w| w[0].range.end == w[1].range.start));
        sections
            .iter()
            .map(|s| (text[s.range.clone()].trim(), s.path.to_vec()))
            .collect()
    }

    fn path(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn each_text_stands_under_its_headings() {
        let text =
            "intro\n\n# Guide\n\nhello\n\n## Install *it* `now`\n\ncargo\n\n## Use\n\nrun\n\nNext\n====\n\nmore\n";
        assert_eq!(
            paths(text),
            [
                ("intro", path(&[])),
                ("# Guide\n\nhello", path(&["Guide"])),
                ("## Install *it* `now`\n\ncargo", path(&["Guide", "Install it now"])),
                ("## Use\n\nrun", path(&["Guide", "Use"])),
                ("Next\n====\n\nmore", path(&["Next"])),
            ]
        );
    }

    #[test]
    fn a_heading_with_nothing_below_goes_with_what_follows() {
        assert_eq!(
            paths("# A\n\n## B\n\ntext"),
            [("# A\n\n## B\n\ntext", path(&["A", "B"]))]
        );
        assert_eq!(
            paths("# A\n\ntext\n\n# End\n"),
            [("# A\n\ntext", path(&["A"])), ("# End", path(&["End"]))]
        );
    }

    #[test]
    fn what_only_looks_like_a_heading_is_content() {
        let text = "---\ntitle: x\n---\n\n# A\n\n```sh\n# not one\n```\n\n> # quoted\n\n- # listed\n\n#hashtag\n";
        let found = paths(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((&found[0].1, &found[1].1), (&path(&[]), &path(&["A"])));
    }

    #[test]
    fn levels_may_be_skipped_and_come_back() {
        let text = "### deep\n\na\n\n# top\n\nb\n\n### under\n\nc\n\n## between\n\nd\n";
        let found: Vec<_> = paths(text).into_iter().map(|(_, p)| p).collect();
        let expected = [
            path(&["deep"]),
            path(&["top"]),
            path(&["top", "under"]),
            path(&["top", "between"]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_heading_in_a_path_is_cut_between_characters() {
        let sections = sections(&format!("# {}\n\ntext", "ü".repeat(5000)));
        assert_eq!(sections[0].path[0], "ü".repeat(128));
    }

    #[test]
    fn thousands_of_tiny_sections_are_joined_under_what_they_share() {
        let text = format!("# Top\n\nx\n\n{}", "## a\n\nb\n\n".repeat(5000));
        let found = sections(&text);
        assert!(found.len() <= text.len() / SMALL_SECTION_BYTES + 1, "{}", found.len());
        assert!(found.iter().all(|s| s.path.first().is_some_and(|p| p == "Top")));
        assert_eq!(found.last().unwrap().range.end, text.len());
    }

    #[test]
    fn deep_nesting_is_recognised_in_all_its_forms() {
        for deep in [
            ">".repeat(501),
            "> ".repeat(400) + "a",
            "- ".repeat(400),
            "1. ".repeat(400),
            format!("a\n{}- b", " ".repeat(1002)),
        ] {
            assert!(!is_parseable(&deep), "{:?}", &deep[..20]);
        }
        let rule = "-".repeat(5000);
        assert!(is_parseable(&format!("a\n{rule}\n> > - 1. b\n{}c\n", " ".repeat(400))));
        assert!(is_parseable(&"[".repeat(5000)));
    }

    #[test]
    fn nothing_has_no_sections() {
        assert_eq!(sections(""), []);
        assert_eq!(paths(" \n"), [("", path(&[]))]);
    }
}
