//! What the services say at one moment, and what became of it since the moment before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_api::ingest::v1::dead_letter_service_client::DeadLetterServiceClient;
use millrace_api::ingest::v1::{DeadLetterFilter, DeadLetterState, SummarizeDeadLettersRequest};
use millrace_api::pipeline::v1::{GetPipelineResponse, Stage, StageFailure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Channel;

use crate::client::within;
use crate::stages::{self, Client};

/// For one service to answer: one that does not is shown as away.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);
/// Largest page of metrics that is read.
const METRICS_BYTES: u64 = 1 << 20;

/// Whom to ask.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Every instance, by name.
    pub instances: Vec<(String, Client)>,
    /// Ingest's dead letters.
    pub letters: DeadLetterServiceClient<Channel>,
    /// `/metrics` of embedders, as HOST:PORT; none of services elsewhere.
    pub metrics: Vec<String>,
}

/// What is shown.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// A line a stage of an instance.
    pub rows: Vec<Row>,
    /// What is wrong, a sentence each.
    pub notes: Vec<String>,
    /// Reasons of open dead letters with their stage and how many there are; none while ingest does not say.
    pub letters: Option<Vec<(String, String, i64)>>,
    /// Newest last.
    pub failures: Vec<StageFailure>,
    /// The model, since the picture before.
    pub model: Option<Model>,
    pub(super) counters: Counters,
}

/// A stage of an instance.
#[derive(Debug, Clone)]
pub struct Row {
    /// For example `embedder-1`.
    pub instance: String,
    /// As it says itself.
    pub stage: Stage,
    /// Records finished a second, since the picture before.
    pub per_second: Option<f64>,
}

/// What the model did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Model {
    /// Of the tokens that it computed, the share that was not padding; none where it computed nothing.
    pub fill: Option<f64>,
    /// Texts a second.
    pub texts_per_second: f64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    at: Option<Instant>,
    processed: BTreeMap<(String, String), i64>,
    batches: f64,
    fill: f64,
    texts: f64,
}

impl Picture {
    /// Takes one; rates are those since `before`.
    pub async fn take(sources: &Sources, before: &Self) -> Self {
        let mut picture = Self::default();
        picture.counters.at = Some(Instant::now());
        let seconds = before.counters.at.map(|at| at.elapsed().as_secs_f64());
        for told in stages::ask(&sources.instances, ANSWER_WITHIN).await {
            picture.notes.extend(told.notes());
            if let Ok(answer) = told.answer {
                picture.instance(&told.instance, answer, before, seconds);
            }
        }
        picture.failures.sort_by_key(|failure| failure.at_ms);
        picture.letters = open_letters(sources).await;
        picture.model(sources, before, seconds).await;
        picture
    }

    fn instance(&mut self, instance: &str, told: GetPipelineResponse, before: &Self, seconds: Option<f64>) {
        for stage in told.stages {
            self.failures.extend(stage.last_failures.iter().cloned());
            let key = (instance.to_owned(), stage.name.clone());
            let earlier = before
                .counters
                .processed
                .get(&key)
                .filter(|earlier| **earlier <= stage.processed);
            let per_second = earlier
                .zip(seconds)
                .map(|(earlier, seconds)| (stage.processed - earlier) as f64 / seconds);
            self.counters.processed.insert(key, stage.processed);
            self.rows.push(Row {
                instance: instance.to_owned(),
                stage,
                per_second,
            });
        }
    }

    async fn model(&mut self, sources: &Sources, before: &Self, seconds: Option<f64>) {
        let mut known = false;
        for address in &sources.metrics {
            // One that does not answer is told of above.
            let Ok(Ok(text)) = tokio::time::timeout(ANSWER_WITHIN, metrics(address)).await else {
                continue;
            };
            known = true;
            self.counters.batches += sum(&text, "millrace_batch_fill_ratio_count");
            self.counters.fill += sum(&text, "millrace_batch_fill_ratio_sum");
            self.counters.texts += sum(&text, "millrace_batch_texts_total");
        }
        if let Some(seconds) = seconds.filter(|_| known) {
            let (now, then) = (&self.counters, &before.counters);
            let batches = now.batches - then.batches;
            self.model = Some(Model {
                fill: (batches > 0.0).then(|| (now.fill - then.fill) / batches),
                texts_per_second: ((now.texts - then.texts) / seconds).max(0.0),
            });
        }
    }
}

async fn open_letters(sources: &Sources) -> Option<Vec<(String, String, i64)>> {
    let filter = DeadLetterFilter {
        states: vec![DeadLetterState::Open.into()],
        ..DeadLetterFilter::default()
    };
    let request = SummarizeDeadLettersRequest { filter: Some(filter) };
    let answer = sources
        .letters
        .clone()
        .summarize_dead_letters(within(request, ANSWER_WITHIN))
        .await
        .ok()?;
    let counts = answer.into_inner().counts.into_iter();
    Some(counts.map(|count| (count.stage, count.reason, count.letters)).collect())
}

async fn metrics(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.take(METRICS_BYTES).read_to_string(&mut text).await?;
    Ok(text)
}

/// Of all lines of a metric in Prometheus's text.
fn sum(text: &str, name: &str) -> f64 {
    let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values = text
        .lines()
        .filter(of_it)
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_lines_and_no_other() {
        let text = "# HELP a_total x\na_total{b=\"1\"} 2\na_total{b=\"2\"} 3.5\na_total_more 100\na_total 1\n";
        assert!((sum(text, "a_total") - 6.5).abs() < 1e-9);
        assert!(sum(text, "nothing").abs() < 1e-9);
    }
}
