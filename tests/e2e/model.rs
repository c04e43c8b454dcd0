//! The model runs at an endpoint, and the endpoint misbehaves: on a stack of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use millrace_api::embedder::v1::EmbedRequest;
use millrace_api::embedder::v1::embedder_service_client::EmbedderServiceClient;
use millrace_api::ingest::v1::{DocumentState, Receipt};
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_api::pipeline::v1::{GetPipelineRequest, Stage};
use millrace_events::{headers, topics};
use millrace_testkit::client::INDEXED_WITHIN;
use millrace_testkit::model::{Counts, Misbehaviour, REFUSED};
use millrace_testkit::stack::Addresses;
use millrace_testkit::{Client, ModelEndpoint, Size, Stack, log, poll};
use tonic::Code;
use tonic_types::StatusExt;

use crate::check_topics;

/// As MiniLM, whose manifest the stack has.
const DIMENSIONS: usize = 384;
/// Short, so that a call that hangs does not take the test's time.
const TIMEOUT: Duration = Duration::from_secs(3);
const TENANT: &str = "model";
/// Documents under way in each misbehaviour, with the one that is written in all of them.
const DOCUMENTS: usize = 8;
const WRITTEN_AGAIN: &str = "again.md";

pub async fn an_endpoint_that_misbehaves_costs_no_document(_: &mut Option<Stack>) -> Result<()> {
    let endpoint = ModelEndpoint::start(DIMENSIONS, None).await?;
    let mut environment = endpoint.environment();
    let timeout = ("MILLRACE_EMBEDDER_MODEL__ENDPOINT__TIMEOUT_MS", TIMEOUT.as_millis());
    environment.push((timeout.0.to_owned(), timeout.1.to_string()));
    // Away while the embedder starts: its first two canaries are lost.
    endpoint.misbehave_for_calls(Misbehaviour::Status(503), 2);
    let millrace = Path::new(env!("CARGO_BIN_EXE_millrace"));
    let stack = Stack::up_with(millrace, Size::default(), environment, |_| ()).await?;
    if let Err(error) = on(&stack, &endpoint).await {
        bail!("{error:#}\n\nits stack told:\n{}", stack.told());
    }
    stack.down().await?;
    Ok(())
}

async fn on(stack: &Stack, endpoint: &ModelEndpoint) -> Result<()> {
    let counts = endpoint.counts();
    ensure!(counts.failed == 2 && counts.served > 0, "{counts:?}");
    let client = Client::new(&stack.addresses, TENANT)?;
    let retry_after = Some(Duration::from_secs(2));
    // Twice where that is quick: it is asked again, and again in vain.
    for (misbehaviour, times, befell) in [
        (
            Misbehaviour::RateLimit { retry_after },
            2,
            (|counts| counts.rate_limited) as fn(Counts) -> usize,
        ),
        (Misbehaviour::Status(500), 2, |counts| counts.failed),
        (Misbehaviour::Hang, 1, |counts| counts.hung),
        (Misbehaviour::HangUp, 1, |counts| counts.hung_up),
        (Misbehaviour::Html, 1, |counts| counts.nonsense),
    ] {
        endpoint.misbehave(misbehaviour);
        let before = befell(endpoint.counts());
        let receipts = submit(&client, &format!("{misbehaviour:?}")).await?;
        poll::until(&format!("{misbehaviour:?} to be met"), INDEXED_WITHIN, async || {
            let counts = endpoint.counts();
            Ok(if befell(counts) >= before + times {
                Ok(())
            } else {
                Err(counts)
            })
        })
        .await?;
        if misbehaviour == (Misbehaviour::RateLimit { retry_after }) {
            patience(&stack.addresses).await?;
        }
        endpoint.behave();
        for receipt in &receipts {
            client.indexed(receipt).await?;
        }
    }
    let stage = stage(&stack.addresses).await?;
    let attempt = |class: &str| class == "INVALID" || class == "FAILED";
    let burned: Vec<_> = stage.last_failures.iter().filter(|f| attempt(&f.class)).collect();
    ensure!(!stage.last_failures.is_empty() && burned.is_empty(), "{stage:?}");
    let letters = log::records(&stack.addresses.kafka, topics::DLQ.name).await?;
    ensure!(letters.is_empty(), "given up: {letters:?}");
    let seen = check_topics(stack).await?;
    println!("{:?}; the topics hold {seen:?}", endpoint.counts());
    one_is_refused(stack, &client, endpoint).await
}

async fn submit(client: &Client, name: &str) -> Result<Vec<Receipt>> {
    let one = async |n: usize| {
        let id = if n == 0 {
            WRITTEN_AGAIN.to_owned()
        } else {
            format!("{name}/{n}.md")
        };
        client
            .submit(&id, format!("A note on mill number {n}, written under {name}."))
            .await
    };
    try_join_all((0..DOCUMENTS).map(one)).await
}

/// While it is asked for patience the stage's gate is shut for that reason, and a query is told how long to wait. That
/// changes nothing of the embedder's readiness.
async fn patience(addresses: &Addresses) -> Result<()> {
    let embedder = EmbedderServiceClient::new(millrace_rpc::client::channel(&addresses.embedder)?);
    poll::until("a query to be told of patience", INDEXED_WITHIN, async || {
        let gate = stage(addresses).await?.gate;
        let request = EmbedRequest {
            texts: vec!["A mill".to_owned()],
        };
        let Err(status) = embedder.clone().embed(request).await else {
            bail!("a query was answered");
        };
        let delay = status
            .get_error_details()
            .retry_info()
            .and_then(|info| info.retry_delay);
        let told = status.code() == Code::ResourceExhausted && delay.is_some();
        Ok(if told && gate.contains("MODEL_RATE_LIMITED") {
            Ok(())
        } else {
            Err((gate, status))
        })
    })
    .await?;
    let not_ready = pipeline(addresses).await?.not_ready;
    ensure!(not_ready.is_empty(), "{not_ready:?}");
    Ok(())
}

async fn pipeline(addresses: &Addresses) -> Result<millrace_api::pipeline::v1::GetPipelineResponse> {
    let mut client = PipelineServiceClient::new(millrace_rpc::client::channel(&addresses.embedder)?);
    Ok(client.get_pipeline(GetPipelineRequest {}).await?.into_inner())
}

async fn stage(addresses: &Addresses) -> Result<Stage> {
    let stages = pipeline(addresses).await?.stages;
    stages.into_iter().next().context("the embedder has no stage")
}

/// A text that the endpoint refuses, in one batch with others: one dead letter, and the others are indexed.
async fn one_is_refused(stack: &Stack, client: &Client, endpoint: &ModelEndpoint) -> Result<()> {
    // One call keeps the model busy until all the others have come, and share the next.
    endpoint.misbehave_for_calls(Misbehaviour::Slow(TIMEOUT * 3 / 4), 1);
    let before = endpoint.counts();
    let first = client.submit("refusal/first.md", "A note that takes its time.").await?;
    poll::until("the endpoint to be busy", INDEXED_WITHIN, async || {
        let counts = endpoint.counts();
        Ok(if counts.slow > before.slow { Ok(()) } else { Err(counts) })
    })
    .await?;
    let one = async |n: usize| {
        let marker = if n == 3 { REFUSED } else { "the-endpoint-likes-this" };
        let id = format!("refusal/{n}.md");
        client
            .submit(&id, format!("A note on mill number {n}: {marker}."))
            .await
    };
    let receipts = try_join_all((0..DOCUMENTS).map(one)).await?;
    let letter = &receipts[3];
    let failed = client.reaches(letter, &[DocumentState::Failed]).await?;
    ensure!(failed.reason == "CHUNK_REFUSED", "{failed:?}");
    ensure!(!failed.message.contains(REFUSED), "{failed:?}");
    client.indexed(&first).await?;
    for receipt in receipts.iter().filter(|receipt| *receipt != letter) {
        client.indexed(receipt).await?;
    }
    let refused = endpoint.counts().refused - before.refused;
    ensure!(refused > 1, "it was alone in its batch");
    let letters = log::records(&stack.addresses.kafka, topics::DLQ.name).await?;
    let [buried] = &letters[..] else {
        bail!("{} dead letters", letters.len());
    };
    for (name, value) in [
        (headers::FAILURE_REASON, "CHUNK_REFUSED"),
        (headers::FAILURE_STAGE, "embed"),
        (headers::FAILURE_ATTEMPTS, "1"),
    ] {
        ensure!(buried.headers.get_str(name) == Some(value), "{name}: {buried:?}");
    }
    let key = format!("{TENANT}/{}", letter.document_id);
    ensure!(buried.key.as_deref() == Some(key.as_bytes()), "{buried:?}");
    // The endpoint's words quoted the text.
    let log = std::fs::read_to_string(stack.dir().join("logs/embedder.log"))?;
    ensure!(log.contains("HTTP 400") && !log.contains(REFUSED), "{log}");
    Ok(())
}
