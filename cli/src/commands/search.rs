//! `millrace search`.

use anyhow::Result;
use millrace_api::indexer::v1::search_request::Query;
use millrace_api::indexer::v1::{Hit, SearchRequest};
use serde_json::{Value, json};

use crate::client::{CALL_LIMIT, Target, within};
use crate::output;

/// Find passages by what they mean
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  millrace search \"how do I rotate a key\"
  millrace search \"retry policy\" -k 3 --tenant acme --min-score 0.3
  millrace search \"retry policy\" --document guides/intro.md --json
    {\"hits\":[{\"document\":\"guides/intro.md\",\"score\":0.71,\"section\":[\"Guides\",\"Retries\"],\"text\":\"…\",…}]}")]
pub struct Search {
    /// What to look for, in words
    query: String,
    /// How many passages at most, 1 to 1000
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(i32).range(1..=1000))]
    k: i32,
    /// Whose documents
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Only passages with at least this cosine similarity, -1 to 1
    #[arg(long, allow_negative_numbers = true)]
    min_score: Option<f32>,
    /// Only this document; may be given several times
    #[arg(long = "document", value_name = "DOCUMENT")]
    documents: Vec<String>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Searches.
pub async fn run(command: Search, target: &Target) -> Result<()> {
    let request = SearchRequest {
        tenant: command.tenant,
        query: Some(Query::Text(command.query)),
        k: command.k,
        min_score: command.min_score,
        document_ids: command.documents,
    };
    let found = target.search()?.search(within(request, CALL_LIMIT)).await?.into_inner();
    if command.json {
        let hits: Vec<_> = found.hits.iter().map(hit_json).collect();
        output::json(&json!({"hits": hits, "partial": found.partial}));
        return Ok(());
    }
    if found.hits.is_empty() {
        output::line("nothing found");
    }
    for (rank, hit) in found.hits.iter().enumerate() {
        output::line(hit_text(rank + 1, hit));
    }
    if found.partial {
        eprintln!("the deadline ended the search early: there may be better passages");
    }
    Ok(())
}

/// A hit in JSON: the section is the headings above the passage, outermost first.
pub fn hit_json(hit: &Hit) -> Value {
    json!({
        "document": hit.document_id, "revision": hit.revision.to_string(), "ordinal": hit.ordinal, "score": hit.score,
        "section": hit.section, "text": hit.text, "start_byte": hit.start_byte, "end_byte": hit.end_byte,
    })
}

/// A hit for people: rank, score, document and section, and the passage's first lines.
pub fn hit_text(rank: usize, hit: &Hit) -> String {
    let section = if hit.section.is_empty() {
        String::new()
    } else {
        format!(" › {}", hit.section.join(" › "))
    };
    format!(
        "{rank:>3}. {:.3}  {}{section}\n{}",
        hit.score,
        hit.document_id,
        passage(&hit.text)
    )
}

/// The text with its white space made one, cut at a word, indented.
fn passage(text: &str) -> String {
    const WIDTH: usize = 96;
    const LINES: usize = 3;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].chars().count() + word.chars().count() >= WIDTH {
            if lines.len() == LINES {
                lines[last].push_str(" …");
                break;
            }
            lines.push(word.to_owned());
        } else {
            if !lines[last].is_empty() {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines
        .iter()
        .map(|line| format!("     {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passage_is_three_lines_at_most() {
        let text = passage(&"word ".repeat(200));
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with(" …") && text.lines().all(|l| l.chars().count() < 106));
        assert_eq!(passage("a\n  b"), "     a b");
    }

    #[test]
    fn revisions_are_strings() {
        let hit = Hit {
            document_id: "a".into(),
            revision: 281_474_976_710_656,
            ..Hit::default()
        };
        assert_eq!(hit_json(&hit)["revision"], "281474976710656");
    }
}
