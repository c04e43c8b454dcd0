//! What a client of another team is told when something is wrong: docs/api-errors.md is made of these answers
//! (`UPDATE=1 cargo test -p millrace-cli --test e2e -- errors`) and held against them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_api::embedder::v1::EmbedRequest;
use millrace_api::embedder::v1::embedder_service_client::EmbedderServiceClient;
use millrace_api::indexer::v1::search_request::Query;
use millrace_api::indexer::v1::search_service_client::SearchServiceClient;
use millrace_api::indexer::v1::{SearchRequest, Vector};
use millrace_api::ingest::v1::dead_letter_service_client::DeadLetterServiceClient;
use millrace_api::ingest::v1::ingest_service_client::IngestServiceClient;
use millrace_api::ingest::v1::{GetDeadLetterRequest, GetDocumentRequest, SubmitDocumentRequest};
use millrace_api::pipeline::v1::PauseRequest;
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_testkit::stack::Addresses;
use millrace_testkit::{Client, Stack};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::running;

/// What was asked, and what came back.
type Answer = (&'static str, Status);

pub async fn each_error_says_what_to_do_about_it(stack: &mut Option<Stack>) -> Result<()> {
    let addresses = &running(stack)?.addresses;
    // An index that holds nothing has no model to refuse another one's vectors for.
    let client = Client::new(addresses, "errors")?;
    client.indexed(&client.submit("any.md", "Anything.").await?).await?;
    let mut answers = of_ingest(addresses).await?;
    answers.extend(of_search(addresses).await?);
    answers.extend(of_the_others(addresses).await?);
    ensure!(answers.len() >= 12, "{} errors", answers.len());
    for (asked, status) in &answers {
        complete(status).with_context(|| format!("{asked}: {status:?}"))?;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api-errors.md");
    let made = page(&answers)?;
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made)?;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    ensure!(
        kept == made,
        "docs/api-errors.md is out of date (UPDATE=1 cargo test -p millrace-cli --test e2e -- errors); it should say\n{made}"
    );
    Ok(())
}

/// What every error of a code has.
fn complete(status: &Status) -> Result<()> {
    let details = status.get_error_details();
    let info = details.error_info().context("no ErrorInfo")?;
    ensure!(info.domain == "millrace", "domain {}", info.domain);
    match status.code() {
        Code::NotFound => ensure!(details.resource_info().is_some(), "no ResourceInfo"),
        Code::InvalidArgument => ensure!(details.bad_request().is_some(), "no BadRequest"),
        Code::Unavailable | Code::ResourceExhausted => ensure!(details.retry_info().is_some(), "no RetryInfo"),
        _ => {}
    }
    Ok(())
}

fn page(answers: &[Answer]) -> Result<String> {
    let mut page = "# Errors\n\nWhat a client gets, as it was answered by running services: made by `UPDATE=1 cargo test -p \
        millrace-cli --test e2e -- errors`, held against them in every test run. The reasons of each rpc stand beside it in the \
        [reference](api.md); codes follow AIP-193.\n\nEvery error has `google.rpc.ErrorInfo` with the domain `millrace` and a stable \
        `reason`: programs go by that, people by the message. INVALID_ARGUMENT names the field (`BadRequest`), NOT_FOUND the thing \
        (`ResourceInfo`). UNAVAILABLE and RESOURCE_EXHAUSTED say when to try again (`RetryInfo`). A submission may be sent again after \
        UNAVAILABLE with the same `request_id`: it then has one effect, whatever became of the first.\n\nRetries by service config, for \
        gRPC libraries that have it: [service_config.json](examples/service_config.json). SubmitDocument \
        and DeleteDocument are not in it: add them where every call has a `request_id`, and only there.\n\n| asked | code | reason | details | message |\n|---|---|---|---|---|\n"
        .to_owned();
    for (asked, status) in answers {
        let details = status.get_error_details();
        let info = details.error_info().context("no ErrorInfo")?;
        let mut told = Vec::new();
        if let Some(bad) = details.bad_request() {
            told.extend(
                bad.field_violations
                    .iter()
                    .map(|violation| format!("field `{}`", violation.field)),
            );
        }
        if let Some(resource) = details.resource_info() {
            told.push(format!("{} `{}`", resource.resource_type, resource.resource_name));
        }
        if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
            told.push(format!("retry after {} s", delay.as_secs_f64()));
        }
        let mut metadata: Vec<_> = info
            .metadata
            .iter()
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        metadata.sort();
        told.extend(metadata);
        let (code, reason, message) = (name(status.code()), &info.reason, status.message());
        writeln!(
            page,
            "| {asked} | {code} | `{reason}` | {} | {message} |",
            told.join(", ")
        )?;
    }
    Ok(page)
}

/// As gRPC writes it.
fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}

fn refused<T: std::fmt::Debug>(asked: &'static str, answer: Result<T, Status>) -> Result<Answer> {
    match answer {
        Ok(answer) => anyhow::bail!("{asked} was not refused: {answer:?}"),
        Err(status) => Ok((asked, status)),
    }
}

async fn of_ingest(addresses: &Addresses) -> Result<Vec<Answer>> {
    let channel = millrace_rpc::client::channel(&addresses.ingest)?;
    let client = IngestServiceClient::new(channel.clone());
    let good = SubmitDocumentRequest {
        tenant: "acme".into(),
        document_id: "guide.md".into(),
        body: b"A guide.".to_vec(),
        media_type: "text/markdown".into(),
        request_id: String::new(),
        lane: String::new(),
    };
    let mut answers = Vec::new();
    for (asked, request) in [
        (
            "a submission without a tenant",
            SubmitDocumentRequest {
                tenant: String::new(),
                ..good.clone()
            },
        ),
        (
            "one of a tenant with a slash",
            SubmitDocumentRequest {
                tenant: "a/b".into(),
                ..good.clone()
            },
        ),
        (
            "one without a document id",
            SubmitDocumentRequest {
                document_id: String::new(),
                ..good.clone()
            },
        ),
        (
            "one of HTML",
            SubmitDocumentRequest {
                media_type: "text/html".into(),
                ..good.clone()
            },
        ),
        (
            "one whose body is not UTF-8",
            SubmitDocumentRequest {
                body: b"\xff".to_vec(),
                ..good.clone()
            },
        ),
        (
            "one of more than 1 MiB",
            SubmitDocumentRequest {
                body: vec![b'x'; (1 << 20) + 1],
                ..good.clone()
            },
        ),
        (
            "one of more than a message may have",
            SubmitDocumentRequest {
                body: vec![b'x'; 5 << 20],
                ..good.clone()
            },
        ),
        (
            "one whose request id is no UUID",
            SubmitDocumentRequest {
                request_id: "again".into(),
                lane: String::new(),
                ..good.clone()
            },
        ),
    ] {
        answers.push(refused(asked, client.clone().submit_document(request).await)?);
    }
    let unknown = GetDocumentRequest {
        tenant: "acme".into(),
        document_id: "nobody-knows.md".into(),
        ..GetDocumentRequest::default()
    };
    answers.push(refused(
        "a document that nobody submitted",
        client.clone().get_document(unknown).await,
    )?);
    let letter = GetDeadLetterRequest {
        key: "documents.submitted/0/999999999".into(),
        ..GetDeadLetterRequest::default()
    };
    let letters = DeadLetterServiceClient::new(channel.clone());
    answers.push(refused(
        "a dead letter that there is not",
        letters.clone().get_dead_letter(letter).await,
    )?);
    let letter = GetDeadLetterRequest {
        key: "guide.md".into(),
        ..GetDeadLetterRequest::default()
    };
    answers.push(refused(
        "a dead letter by what is no key",
        letters.clone().get_dead_letter(letter).await,
    )?);
    Ok(answers)
}

async fn of_search(addresses: &Addresses) -> Result<Vec<Answer>> {
    let client = SearchServiceClient::new(millrace_rpc::client::channel(&addresses.indexer)?);
    let good = SearchRequest {
        tenant: "acme".into(),
        query: Some(Query::Text("a guide".into())),
        k: 3,
        ..SearchRequest::default()
    };
    let vector = |values: &[f32]| {
        Some(Query::Vector(Vector {
            values: values.to_vec(),
        }))
    };
    let mut answers = Vec::new();
    for (asked, request) in [
        (
            "a search without a query",
            SearchRequest {
                query: None,
                ..good.clone()
            },
        ),
        (
            "one by an empty text",
            SearchRequest {
                query: Some(Query::Text(String::new())),
                ..good.clone()
            },
        ),
        (
            "one by a vector of another model",
            SearchRequest {
                query: vector(&[1.0, 0.0]),
                ..good.clone()
            },
        ),
        (
            "one by a vector that is not finite",
            SearchRequest {
                query: vector(&[f32::NAN]),
                ..good.clone()
            },
        ),
        (
            "one for 5,000 hits",
            SearchRequest {
                k: 5000,
                ..good.clone()
            },
        ),
    ] {
        answers.push(refused(asked, client.clone().search(request).await)?);
    }
    Ok(answers)
}

async fn of_the_others(addresses: &Addresses) -> Result<Vec<Answer>> {
    let channel = millrace_rpc::client::channel(&addresses.embedder)?;
    let embedder = EmbedderServiceClient::new(channel.clone());
    let mut answers = Vec::new();
    for (asked, texts) in [
        ("vectors for 65 texts", vec!["a".to_owned(); 65]),
        ("vectors for a text without words", vec!["a".to_owned(), String::new()]),
        (
            "vectors for a text longer than the model takes",
            vec!["word ".repeat(2000)],
        ),
    ] {
        answers.push(refused(asked, embedder.clone().embed(EmbedRequest { texts }).await)?);
    }
    let pause = PauseRequest { stage: "parse".into() };
    let paused = PipelineServiceClient::new(channel.clone()).pause(pause).await;
    answers.push(refused("a pause of a stage that is another service's", paused)?);
    let health = HealthCheckRequest {
        service: "millrace.Nobody".into(),
    };
    let health = HealthClient::new(channel.clone()).check(health).await;
    answers.push(refused("the health of a service that is not here", health)?);
    answers.push(refused(
        "a method of another service",
        method_of_another(channel).await,
    )?);
    Ok(answers)
}

/// Search, asked of the embedder.
async fn method_of_another(embedder: Channel) -> Result<(), Status> {
    let mut request = Request::new(SearchRequest::default());
    millrace_rpc::deadline::set(&mut request, Duration::from_secs(10));
    SearchServiceClient::new(embedder).search(request).await.map(|_| ())
}
