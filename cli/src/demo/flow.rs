//! Submits the corpus and watches it flow until every document has its final state.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures::StreamExt;
use millrace_api::ingest::v1 as api;
use millrace_api::ingest::v1::ingest_service_client::IngestServiceClient;
use millrace_api::ingest::v1::{DocumentState, SubmitDocumentRequest};
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_api::pipeline::v1::{GetPipelineRequest, GetPipelineResponse};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;

use super::TENANT;
use super::corpus::{Corpus, Document};
use crate::client::{CALL_LIMIT, within};
use crate::commands::document::until_final;
use crate::files;
use crate::output::{Progress, Step};
use crate::retry::Retry;
use crate::stack::state::Addresses;

/// Submissions on their way at once.
const IN_FLIGHT: usize = 32;
/// Documents watched at once: below the streams that a connection may have.
const WATCHED: usize = 128;

/// What came of the corpus.
pub struct Flow {
    /// Documents submitted.
    pub documents: usize,
    /// Those that a search finds.
    pub indexed: usize,
    /// Those given up.
    pub failed: usize,
    /// Chunks of the indexed ones.
    pub chunks: usize,
    /// Each accepted revision.
    pub revisions: Vec<i64>,
    took: Duration,
}

impl Flow {
    fn ended(&mut self, document: api::Document, progress: &Progress) {
        self.revisions.push(document.revision);
        if document.state() == DocumentState::Indexed {
            self.indexed += 1;
            self.chunks += usize::try_from(document.chunk_count).unwrap_or(0);
        } else {
            self.failed += 1;
            progress.line(format!(
                "{}: {}: {}",
                document.document_id, document.reason, document.message
            ));
        }
    }
    /// From the first submission to the last final state.
    pub fn seconds(&self) -> f64 {
        self.took.as_secs_f64()
    }
    /// Chunks indexed a second, over the whole flow.
    pub fn chunks_per_second(&self) -> f64 {
        self.chunks as f64 / self.seconds().max(f64::EPSILON)
    }
}

/// Submits all and waits for all. Nothing moving for as long as `stall` ends it with the state of each stage.
pub async fn run(corpus: &Corpus, addresses: &Addresses, stall: Duration, progress: &Progress) -> Result<Flow> {
    let client = IngestServiceClient::new(millrace_rpc::client::channel(&addresses.ingest)?);
    let started = Instant::now();
    let (finals, mut arrived) = mpsc::channel(corpus.documents.len());
    let documents = futures::stream::iter(&corpus.documents);
    let accepted = documents
        .map(|document| accept(&client, document, progress))
        .buffer_unordered(IN_FLIGHT);
    let watched = accepted.map(|receipt| async {
        let (receipt, client, finals) = (receipt?, &client, &finals);
        let document = until_final(client, &receipt, progress)
            .await
            .with_context(|| receipt.document_id.clone())?;
        finals.send(document).await.context("the demo has ended")
    });
    let all = async { watched.buffer_unordered(WATCHED).collect::<Vec<Result<()>>>().await };

    let mut flow = Flow {
        documents: corpus.documents.len(),
        indexed: 0,
        failed: 0,
        chunks: 0,
        revisions: Vec::new(),
        took: Duration::ZERO,
    };
    let mut stages = Stages::new(addresses, progress)?;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(all);
    loop {
        tokio::select! {
            outcomes = &mut all => {
                outcomes.into_iter().collect::<Result<()>>()?;
                break;
            }
            Some(document) = arrived.recv() => flow.ended(document, progress),
            _ = tick.tick() => stages.look(&flow, stall).await?,
        }
    }
    // Those that ended in the last moment.
    while let Ok(document) = arrived.try_recv() {
        flow.ended(document, progress);
    }
    flow.took = started.elapsed();
    stages.done(&flow);
    Ok(flow)
}

async fn accept(
    client: &IngestServiceClient<Channel>,
    document: &Document,
    progress: &Progress,
) -> Result<api::Receipt> {
    let request = SubmitDocumentRequest {
        tenant: TENANT.into(),
        document_id: document.id.clone(),
        body: document.text.clone().into_bytes(),
        media_type: files::media_type(&document.id).into(),
        request_id: uuid::Uuid::new_v4().to_string(),
        lane: String::new(),
    };
    let mut retry = Retry::new();
    loop {
        match client
            .clone()
            .submit_document(within(request.clone(), CALL_LIMIT))
            .await
        {
            Ok(answer) => return answer.into_inner().receipt.context("ingest answered without a receipt"),
            Err(status) => retry
                .after(status, progress)
                .await
                .with_context(|| document.id.clone())?,
        }
    }
}

/// The three services' own word on how they do.
struct Stages {
    clients: Vec<PipelineServiceClient<Channel>>,
    step: Step,
    moved: Instant,
    last: Vec<i64>,
}

impl Stages {
    fn new(addresses: &Addresses, progress: &Progress) -> Result<Self> {
        let client = |address: &String| anyhow::Ok(PipelineServiceClient::new(millrace_rpc::client::channel(address)?));
        let clients = [&addresses.ingest, &addresses.embedder, &addresses.indexer].map(client);
        Ok(Self {
            clients: clients.into_iter().collect::<Result<_>>()?,
            step: progress.step("flowing"),
            moved: Instant::now(),
            last: Vec::new(),
        })
    }

    /// Shows each stage; fails when nothing has moved for too long.
    async fn look(&mut self, flow: &Flow, stall: Duration) -> Result<()> {
        let pipelines = self.ask().await;
        let stages = || pipelines.iter().flatten().flat_map(|pipeline| &pipeline.stages);
        let lag = |stage: &millrace_api::pipeline::v1::Stage| -> i64 {
            stage
                .partitions
                .iter()
                .map(|partition| partition.lag_records.max(0))
                .sum()
        };
        let shown: Vec<_> = stages()
            .map(|s| format!("{} {} (+{})", s.name, s.processed, lag(s)))
            .collect();
        self.step.tick(format!(
            "{}  indexed {}/{}",
            shown.join("  "),
            flow.indexed,
            flow.documents
        ));
        let mut now: Vec<i64> = stages().map(|stage| stage.processed).collect();
        now.push((flow.indexed + flow.failed) as i64);
        if now != self.last {
            (self.last, self.moved) = (now, Instant::now());
        }
        if self.moved.elapsed() < stall {
            return Ok(());
        }
        Err(anyhow!(
            "nothing has moved for {} s; the pipeline says:\n{:#?}",
            stall.as_secs(),
            pipelines
        ))
    }

    /// None for a service that does not answer: it may be starting again.
    async fn ask(&self) -> Vec<Option<GetPipelineResponse>> {
        let ask = async |client: &PipelineServiceClient<Channel>| {
            let request = within(GetPipelineRequest {}, Duration::from_secs(2));
            client
                .clone()
                .get_pipeline(request)
                .await
                .ok()
                .map(tonic::Response::into_inner)
        };
        futures::future::join_all(self.clients.iter().map(ask)).await
    }

    fn done(self, flow: &Flow) {
        self.step.done(format!(
            "{} of {} documents indexed, {} chunks",
            flow.indexed, flow.documents, flow.chunks
        ));
    }
}
