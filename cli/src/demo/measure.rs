//! Figures of the same run: what the model alone reaches on the same chunks, and how long one document takes on the
//! idle stack.

use std::collections::HashSet;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use millrace_api::ingest::v1::ingest_service_client::IngestServiceClient;
use millrace_api::ingest::v1::{DocumentState, SubmitDocumentRequest};
use millrace_embedder::bench;
use millrace_embedder::model::ModelSource;
use millrace_embedder::model::onnx::Provider;
use millrace_events::{DocumentParsed, topics};
use millrace_kafka::{KafkaConfig, TailConfig, TailEvent};
use millrace_runtime::codec::Codec;
use millrace_schema::Registry;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::flow::Flow;
use crate::client::{CALL_LIMIT, within};
use crate::commands::document::until_final;
use crate::output::Progress;
use crate::stack::fetch::Cache;
use crate::stack::state::Addresses;

/// Chunks that the model alone is measured on, at most: as many again would double the demo's time.
const SAMPLE: usize = 512;
const BATCH: usize = 16;
/// Single documents on the idle stack.
const SINGLES: usize = 50;
/// Kept apart from the demo's own documents.
const TENANT: &str = "demo-latency";

/// What was measured.
pub struct Figures {
    /// Chunks a second of the model alone.
    pub model_alone: f64,
    /// Chunks that this was measured on.
    pub sample: usize,
    /// Single documents timed.
    pub latencies: usize,
    /// Accepted to searchable, in milliseconds.
    pub p50_ms: u64,
    /// Accepted to searchable, in milliseconds.
    pub p99_ms: u64,
}

/// Measures.
pub async fn run(flow: &Flow, seed: u64, addresses: &Addresses, cache: &Cache, progress: &Progress) -> Result<Figures> {
    let step = progress.step("one at a time");
    let mut latencies = singles(addresses, progress).await?;
    latencies.sort_unstable();
    let (p50_ms, p99_ms) = (percentile(&latencies, 50), percentile(&latencies, 99));
    step.done(format!("accepted to searchable: p50 {p50_ms} ms, p99 {p99_ms} ms"));

    let step = progress.step("the model alone");
    step.say("on the same chunks, without broker, queue or index");
    let mut chunks = chunks(flow, addresses).await?;
    chunks.shuffle(&mut StdRng::seed_from_u64(seed));
    chunks.truncate(SAMPLE);
    let sample = chunks.len();
    let source = ModelSource {
        dir: cache.model(),
        onnxruntime: cache.onnxruntime(),
        threads: None,
        provider: Provider::Cpu,
    };
    let model_alone = match sample {
        0 => 0.0,
        _ => tokio::task::spawn_blocking(move || bench::model_alone(&source, chunks, BATCH)).await??,
    };
    step.done(format!("{model_alone:.0} chunks/s"));
    Ok(Figures {
        model_alone,
        sample,
        latencies: latencies.len(),
        p50_ms,
        p99_ms,
    })
}

/// Texts of the chunks of these revisions, as they stand in the log.
async fn chunks(flow: &Flow, addresses: &Addresses) -> Result<Vec<String>> {
    let revisions: HashSet<i64> = flow.revisions.iter().copied().collect();
    let kafka = KafkaConfig {
        bootstrap_servers: addresses.kafka.clone(),
        ..KafkaConfig::default()
    };
    let codec = Codec::connect(Registry::new(&addresses.registry)?, &[], &[topics::PARSED]).await?;
    let config = TailConfig {
        topic: topics::PARSED.name.into(),
        ..TailConfig::default()
    };
    let mut tail = millrace_kafka::tail(&kafka, config)?;
    let (mut texts, mut ended) = (Vec::new(), HashSet::new());
    while ended.len() < topics::PARTITIONS as usize {
        match tail.next().await.context("documents.parsed cannot be read")? {
            TailEvent::CaughtUp { partition, .. } => _ = ended.insert(partition),
            TailEvent::Record(delivery) => {
                let Some(value) = &delivery.value else { continue };
                let part: DocumentParsed = codec.decode(value).await?;
                if revisions.contains(&part.revision) {
                    texts.extend(part.chunks.into_iter().map(|chunk| chunk.text));
                }
            }
        }
    }
    Ok(texts)
}

/// Times of single documents, one after another, in milliseconds: from the receipt to the word that a search finds it.
async fn singles(addresses: &Addresses, progress: &Progress) -> Result<Vec<u64>> {
    let client = IngestServiceClient::new(millrace_rpc::client::channel(&addresses.ingest)?);
    let mut times = Vec::new();
    for number in 0..SINGLES {
        let request = SubmitDocumentRequest {
            tenant: TENANT.into(),
            document_id: format!("single-{number}"),
            body: format!("Document number {number} is on its way through an idle pipeline.").into_bytes(),
            media_type: "text/plain".into(),
            request_id: String::new(),
            lane: String::new(),
        };
        let receipt = client
            .clone()
            .submit_document(within(request, CALL_LIMIT))
            .await?
            .into_inner()
            .receipt;
        let accepted = Instant::now();
        let document = until_final(&client, &receipt.unwrap_or_default(), progress).await?;
        if document.state() != DocumentState::Indexed {
            bail!("{}: {}: {}", document.document_id, document.reason, document.message);
        }
        times.push(u64::try_from(accepted.elapsed().as_millis()).unwrap_or(u64::MAX));
    }
    Ok(times)
}

/// Nearest rank; of an empty list 0.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn the_nearest_rank() {
        let times: Vec<u64> = (1..=50).collect();
        assert_eq!(
            (percentile(&times, 50), percentile(&times, 99), percentile(&[], 50)),
            (25, 50, 0)
        );
    }
}
