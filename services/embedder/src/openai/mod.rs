//! The embeddings API that OpenAI's clients speak, for those who have one: `POST /v1/embeddings`, `GET /v1/models`.
//!
//! | answer | when |
//! |---|---|
//! | 200 | a vector for each input, in their order; as base64 where the client asks for that, as the official one does |
//! | 400 `invalid_request_error` | the body is none, an input is empty or too long, or something is asked for that a model cannot do |
//! | 404 `model_not_found` | another model is asked for |
//! | 408 | a body that does not come within 30 s |
//! | 413 | a body above 4 MiB |
//! | 429 with Retry-After | the queue of queries is full, 32 calls are under way, or the model's endpoint asks for patience |
//! | 503 with Retry-After | the model does not compute, or the process is leaving |
//! | 500 | the model fails on an input while it computes others |
//!
//! Up to 64 inputs are a query and go ahead of documents, more are bulk. Inputs are embedded as they are; with `input_type`
//! `query` or `document`, which is no part of OpenAI's API, the model's prefix is put before them.
//!
//! Rejected: token arrays as inputs (of which model's vocabulary, nobody can tell); truncation (nothing is ever cut).

mod answer;
mod request;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use millrace_runtime::http::connections::{self, Limits};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::batch::{Class, EmbedError, Embedded, Embedder, InputKind};
use answer::Refusal;
use request::Asked;

/// Inputs of a call that go ahead of documents.
const MAX_QUERY_INPUTS: usize = 64;
/// Inputs of a larger call that wait for the model together, and how many of those at once.
const PART: usize = 32;
const PARTS_AT_ONCE: usize = 4;
const MAX_BODY_BYTES: usize = 4 << 20;
/// For a body to come.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// Calls whose body is in memory; one more is refused.
const CALLS: usize = 32;
const LIMITS: Limits = Limits {
    connections: 256,
    keep_alive: true,
    longest: Duration::from_secs(600),
    // Below that of the process.
    drain: Duration::from_secs(15),
};

/// Serves until `shutdown`, and until the calls under way have ended.
pub async fn serve(listener: TcpListener, embedder: Embedder, shutdown: CancellationToken) -> Result<(), Infallible> {
    let calls = Arc::new(Semaphore::new(CALLS));
    let answer = move |request, _| {
        let (embedder, calls) = (embedder.clone(), calls.clone());
        async move {
            let answered = respond(request, &embedder, &calls).await;
            answered.unwrap_or_else(|refusal| refusal.response())
        }
    };
    connections::serve(listener, LIMITS, shutdown, answer).await;
    Ok(())
}

async fn respond(
    request: Request<Incoming>,
    embedder: &Embedder,
    calls: &Semaphore,
) -> Result<Response<Full<Bytes>>, Refusal> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/embeddings") => {
            let _call = calls.try_acquire().map_err(|_| Refusal::of(&EmbedError::Busy))?;
            embeddings(request, embedder).await
        }
        (&Method::GET, "/v1/models") => Ok(answer::models(embedder.info())),
        (method, path) => Err(Refusal::no_such_path(method, path)),
    }
}

async fn embeddings(request: Request<Incoming>, embedder: &Embedder) -> Result<Response<Full<Bytes>>, Refusal> {
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    let body = tokio::time::timeout(BODY_WITHIN, body)
        .await
        .map_err(|_| Refusal::too_slow())?;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => Refusal::too_large(MAX_BODY_BYTES),
        false => Refusal::invalid(None, "the body could not be read to its end"),
    })?;
    let asked = Asked::read(&body.to_bytes())?;
    asked.check(embedder.info())?;
    let embedded = match asked.inputs.len() {
        ..=MAX_QUERY_INPUTS => embedder.embed_as(asked.inputs, Class::Query, asked.kind).await,
        _ => in_parts(embedder, &asked.inputs, asked.kind).await,
    };
    let embedded = embedded.map_err(|error| Refusal::of(&error))?;
    let info = embedder.info().clone();
    let answer = move || answer::embeddings(&info, &embedded, asked.encoding);
    // Of 2,048 inputs it has some ten megabytes.
    tokio::task::spawn_blocking(answer)
        .await
        .map_err(|_| Refusal::of(&EmbedError::Stopped))
}

/// Side by side with the chunks of documents, and no more of them at once than of a document.
async fn in_parts(embedder: &Embedder, inputs: &[String], kind: InputKind) -> Result<Embedded, EmbedError> {
    let parts: Vec<_> = inputs.chunks(PART).map(<[String]>::to_vec).enumerate().collect();
    let embedder = embedder.clone();
    let embed = move |(number, part): (usize, Vec<String>)| {
        let embedder = embedder.clone();
        async move {
            let embedded = embedder.embed_as(part, Class::Document, kind).await;
            embedded.map_err(|error| error.later_by(number * PART))
        }
    };
    let parts = stream::iter(parts).map(embed).buffered(PARTS_AT_ONCE);
    let parts: Vec<Embedded> = parts.try_collect().await?;
    Ok(Embedded {
        tokens: parts.iter().map(|part| part.tokens).sum(),
        vectors: parts.into_iter().flat_map(|part| part.vectors).collect(),
    })
}
