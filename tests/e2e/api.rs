//! What a client of another team meets.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_api::indexer::v1::SearchRequest;
use millrace_api::indexer::v1::search_request::Query;
use millrace_api::ingest::v1::{DocumentState, Receipt};
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_api::pipeline::v1::{GetPipelineRequest, PauseRequest, ResumeRequest, StageState};
use millrace_testkit::client::INDEXED_WITHIN;
use millrace_testkit::{Client, Stack, poll};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt as _;

use crate::running;

pub async fn every_service_serves_health_and_reflection(stack: &mut Option<Stack>) -> Result<()> {
    let addresses = &running(stack)?.addresses;
    for (address, name) in [
        (&addresses.ingest, "millrace.ingest.v1.IngestService"),
        (&addresses.ingest, "millrace.ingest.v1.DeadLetterService"),
        (&addresses.embedder, "millrace.embedder.v1.EmbedderService"),
        (&addresses.indexer, "millrace.indexer.v1.SearchService"),
        (&addresses.indexer, "millrace.indexer.v1.AuditService"),
    ] {
        let channel = millrace_rpc::client::channel(address)?;
        for service in ["", name] {
            let request = HealthCheckRequest {
                service: service.into(),
            };
            let answer = HealthClient::new(channel.clone()).check(request).await?.into_inner();
            ensure!(
                answer.status() == ServingStatus::Serving,
                "{name} is {:?}",
                answer.status()
            );
        }
        let unknown = HealthCheckRequest {
            service: "nobody".into(),
        };
        let refused = refusal(HealthClient::new(channel.clone()).check(unknown).await)?;
        ensure!(refused.code() == Code::NotFound);
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let asked = tokio_stream::once(ask);
        let mut answers = ServerReflectionClient::new(channel)
            .server_reflection_info(asked)
            .await?
            .into_inner();
        let answer = answers.message().await?.and_then(|answer| answer.message_response);
        let Some(MessageResponse::ListServicesResponse(list)) = answer else {
            anyhow::bail!("{name}: reflection answered {answer:?}");
        };
        let names: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
        for wanted in [name, "grpc.health.v1.Health", "millrace.pipeline.v1.PipelineService"] {
            ensure!(names.contains(wanted), "{wanted} is not among {names:?}");
        }
    }
    Ok(())
}

/// The status of a call that must not succeed.
fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> Result<Status> {
    match answer {
        Ok(answer) => anyhow::bail!("it was not refused: {answer:?}"),
        Err(status) => Ok(status),
    }
}

fn refused(status: &Status, code: Code, reason: &str) -> Result<()> {
    let details = status.get_error_details();
    let info = details.error_info();
    ensure!(
        status.code() == code && info.is_some_and(|info| info.reason == reason && info.domain == "millrace"),
        "wanted {code:?} {reason}, got {status:?}"
    );
    Ok(())
}

fn field_of(status: &Status) -> Option<String> {
    let details = status.get_error_details();
    Some(details.bad_request()?.field_violations.first()?.field.clone())
}

pub async fn what_is_not_acceptable_is_refused_with_details(stack: &mut Option<Stack>) -> Result<()> {
    let addresses = &running(stack)?.addresses;
    let client = Client::new(addresses, "api")?;

    let status = refusal(client.send(client.request("bad.md", b"good \xff bad".to_vec())).await)?;
    refused(&status, Code::InvalidArgument, "BODY_NOT_UTF8")?;
    ensure!(field_of(&status).as_deref() == Some("body"), "{status:?}");

    let status = refusal(client.send(client.request("big.md", vec![b'x'; (1 << 20) + 1])).await)?;
    refused(&status, Code::InvalidArgument, "BODY_TOO_LARGE")?;

    let mut request = client.request("page.html", "<p>hello</p>");
    request.media_type = "text/html".into();
    let status = refusal(client.send(request).await)?;
    refused(&status, Code::InvalidArgument, "UNSUPPORTED_MEDIA_TYPE")?;
    ensure!(field_of(&status).as_deref() == Some("media_type"), "{status:?}");

    let status = refusal(client.send(client.request("", "text")).await)?;
    ensure!(field_of(&status).as_deref() == Some("document_id"), "{status:?}");
    let mut request = client.request("a.md", "text");
    request.tenant = "a/b".into();
    let status = refusal(client.send(request).await)?;
    ensure!(field_of(&status).as_deref() == Some("tenant"), "{status:?}");

    let search = |tenant: &str, query, k| {
        client.search(SearchRequest {
            tenant: tenant.into(),
            query,
            k,
            min_score: None,
            document_ids: Vec::new(),
        })
    };
    let text = |text: &str| Some(Query::Text(text.into()));
    for (tenant, query, k, field) in [
        ("", text("hello"), 1, "tenant"),
        ("api", text("hello"), 1001, "k"),
        ("api", None, 1, "query"),
        ("api", text(""), 1, "text"),
    ] {
        let status = refusal(search(tenant, query, k).await)?;
        ensure!(
            status.code() == Code::InvalidArgument && field_of(&status).as_deref() == Some(field),
            "{field}: {status:?}"
        );
    }
    ensure!(client.get("nobody-knows.md", 0).await?.is_none());
    Ok(())
}

pub async fn the_same_request_id_has_one_effect(stack: &mut Option<Stack>) -> Result<()> {
    let client = Client::new(&running(stack)?.addresses, "api")?;
    let mut request = client.request("once.md", "Sent twice with one request id.");
    request.request_id = "0b6f3f2a-4c38-4f0e-9a4b-3f1b8f7f2a11".into();
    // At once, so that the second cannot be known from the status of the first.
    let (first, second) = tokio::join!(client.send(request.clone()), client.send(request.clone()));
    let (first, second) = (first?, second?);
    let states = [DocumentState::Indexed, DocumentState::DuplicateOf];
    let (one, other) = tokio::try_join!(client.reaches(&first, &states), client.reaches(&second, &states))?;
    if first.revision != second.revision {
        let (earlier, later) = if one.revision < other.revision {
            (one, other)
        } else {
            (other, one)
        };
        ensure!(earlier.state() == DocumentState::Indexed, "{earlier:?}");
        ensure!(
            later.state() == DocumentState::DuplicateOf && later.duplicate_of_revision == earlier.revision,
            "{later:?}"
        );
    }
    // Known by now: the first receipt again.
    let third = client.send(request).await?;
    ensure!(
        third.revision == first.revision.min(second.revision),
        "{third:?} after {first:?} and {second:?}"
    );
    Ok(())
}

pub async fn a_pipeline_says_how_it_does(stack: &mut Option<Stack>) -> Result<()> {
    let addresses = &running(stack)?.addresses;
    for (address, stage) in [
        (&addresses.ingest, "parse"),
        (&addresses.embedder, "embed"),
        (&addresses.indexer, "index"),
    ] {
        let client = PipelineServiceClient::new(millrace_rpc::client::channel(address)?);
        poll::until(&format!("{stage} to be idle"), INDEXED_WITHIN, async || {
            let pipeline = client.clone().get_pipeline(GetPipelineRequest {}).await?.into_inner();
            let idle = pipeline.stages.iter().any(|s| {
                s.name == stage
                    && s.consumer_group == format!("millrace.{stage}")
                    && s.state() == StageState::Running
                    && s.processed > 0
                    && s.failed == 0
                    && s.partitions.len() == 12
                    && s.partitions.iter().all(|partition| partition.lag_records == 0)
            });
            Ok(if idle && pipeline.not_ready.is_empty() {
                Ok(())
            } else {
                Err(pipeline)
            })
        })
        .await?;
    }
    Ok(())
}

/// Paused, a stage starts nothing and its service answers; resumed, it goes on where it was.
pub async fn a_paused_stage_starts_nothing_until_it_is_resumed(stack: &mut Option<Stack>) -> Result<()> {
    let addresses = &running(stack)?.addresses;
    let client = Client::new(addresses, "paused")?;
    let embedder = PipelineServiceClient::new(millrace_rpc::client::channel(&addresses.embedder)?);
    let stage = || "embed".to_owned();
    let held = while_paused(&client, embedder.clone()).await;
    // Whatever came of it: the cases after this one need the stage.
    embedder.clone().resume(ResumeRequest { stage: stage() }).await?;
    client.indexed(&held?).await?;
    let unknown = embedder
        .clone()
        .pause(PauseRequest { stage: "parse".into() })
        .await
        .err();
    let unknown = unknown.context("a stage of another service was paused")?;
    ensure!(
        millrace_rpc::error::reason(&unknown).as_deref() == Some("STAGE_UNKNOWN"),
        "{unknown:?}"
    );
    Ok(())
}

async fn while_paused(client: &Client, mut embedder: PipelineServiceClient<Channel>) -> Result<Receipt> {
    embedder.pause(PauseRequest { stage: "embed".into() }).await?;
    let paused = poll::until("the stage to be paused", Duration::from_secs(20), async || {
        let told = embedder.clone().get_pipeline(GetPipelineRequest {}).await?.into_inner();
        // What ran when it was told has ended.
        let idle = told.stages[0].state() == StageState::Paused && told.stages[0].window_records == 0;
        Ok(if idle { Ok(told) } else { Err(told) })
    });
    let told = paused.await?;
    ensure!(told.not_ready.is_empty() && told.impaired.len() == 1, "{told:?}");
    let processed = told.stages[0].processed;
    let receipt = client.submit("held.md", "A note that waits.").await?;
    client.reaches(&receipt, &[DocumentState::Parsed]).await?;
    // Queries go on being embedded, and take longer than a document would have.
    for _ in 0..20 {
        client.find("a note", 1, &[]).await?;
    }
    let told = embedder.get_pipeline(GetPipelineRequest {}).await?.into_inner();
    ensure!(told.stages[0].processed == processed, "{told:?}");
    let document = client
        .get("held.md", receipt.revision)
        .await?
        .context("nothing is known of it")?;
    ensure!(document.state() == DocumentState::Parsed, "{document:?}");
    Ok(receipt)
}
