//! The questions that show the index at work, and the sentences that check it.

use std::time::Duration;

use anyhow::{Context, Result};
use millrace_api::indexer::v1::search_request::Query;
use millrace_api::indexer::v1::search_service_client::SearchServiceClient;
use millrace_api::indexer::v1::{Hit, SearchRequest};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::corpus::Corpus;
use super::{TENANT, sentences};
use crate::client::within;
use crate::output::Progress;
use crate::stack::state::Addresses;

/// Asked of every corpus of crates.
const QUESTIONS: [&str; 3] = [
    "How do I add this library to my project?",
    "Which versions of the Rust compiler are supported?",
    "What changed in the latest release?",
];
/// Sentences drawn.
const SENTENCES: usize = 10;
/// A hit below this is no answer.
const ANSWER: f32 = 0.3;

/// What was asked and found.
pub struct Answers {
    /// Each question with its hits, best first.
    pub searches: Vec<(String, Vec<Hit>)>,
    /// Sentences drawn.
    pub drawn: usize,
    /// Those that found their document among the first three hits.
    pub found: usize,
}

/// Asks.
pub async fn run(
    corpus: &Corpus,
    foreign: bool,
    seed: u64,
    addresses: &Addresses,
    progress: &Progress,
) -> Result<Answers> {
    let step = progress.step("searching");
    let client = SearchServiceClient::new(millrace_rpc::client::channel(&addresses.indexer)?);
    let drawn = sentences::draw(&corpus.documents, SENTENCES + QUESTIONS.len(), seed);
    // Nobody knows what a foreign corpus answers: it is asked with its own words.
    let (questions, drawn): (Vec<String>, _) = match foreign {
        false => (
            QUESTIONS.map(str::to_owned).into(),
            &drawn[..drawn.len().min(SENTENCES)],
        ),
        true => {
            let (own, rest) = drawn.split_at(drawn.len().min(QUESTIONS.len()));
            (own.iter().map(|drawn| drawn.sentence.clone()).collect(), rest)
        }
    };
    let mut searches = Vec::new();
    for question in questions {
        let hits = search(&client, &question, 5).await?;
        searches.push((question, hits));
    }
    let mut found = 0;
    for drawn in drawn {
        let hits = search(&client, &drawn.sentence, 3).await?;
        let hit = hits.iter().any(|hit| hit.document_id == drawn.document);
        if !hit {
            progress.line(format!(
                "not among the first three: {} for “{}”",
                drawn.document, drawn.sentence
            ));
        }
        found += usize::from(hit);
    }
    step.done(format!("{found} of {} sentences found their document", drawn.len()));
    Ok(Answers {
        searches,
        drawn: drawn.len(),
        found,
    })
}

async fn search(client: &SearchServiceClient<Channel>, query: &str, k: i32) -> Result<Vec<Hit>> {
    let request = SearchRequest {
        tenant: TENANT.into(),
        query: Some(Query::Text(query.into())),
        k,
        min_score: None,
        document_ids: Vec::new(),
    };
    let answer = client.clone().search(within(request, Duration::from_secs(30))).await;
    Ok(answer
        .with_context(|| format!("search for “{query}”"))?
        .into_inner()
        .hits)
}

impl Answers {
    /// Questions without an answer.
    pub fn unanswered(&self) -> impl Iterator<Item = &str> {
        let answered = |hits: &[Hit]| hits.first().is_some_and(|hit| hit.score >= ANSWER);
        self.searches
            .iter()
            .filter(move |(_, hits)| !answered(hits))
            .map(|(query, _)| query.as_str())
    }

    /// Questions and hits in JSON.
    pub fn json(&self) -> Value {
        let hit = |hit: &Hit| json!({"document": hit.document_id, "score": hit.score, "section": hit.section});
        let search = |(query, hits): &(String, Vec<Hit>)| json!({"query": query, "hits": hits.iter().map(hit).collect::<Vec<_>>()});
        self.searches.iter().map(search).collect()
    }
}
