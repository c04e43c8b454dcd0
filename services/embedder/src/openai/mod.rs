//! The embeddings API that OpenAI's clients speak, for those who have one: `POST /v1/embeddings`, `GET /v1/models`.
//!
//! | answer | when |
//! |---|---|
//! | 200 | a vector for each input, in their order; as base64 where the client asks for that, as the official one does |
//! | 400 `invalid_request_error` | the body is none, an input is empty or too long, or something is asked for that a model cannot do |
//! | 404 `model_not_found` | another model is asked for |
//! | 413 | a body above 8 MiB |
//! | 429 with Retry-After | the queue is full, or the model's endpoint asks for patience |
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
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use millrace_runtime::http::connections::{self, Limits};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::batch::{Class, Embedder};
use answer::Refusal;
use request::Asked;

/// Inputs of a call that go ahead of documents.
const MAX_QUERY_INPUTS: usize = 64;
const MAX_BODY_BYTES: usize = 8 << 20;
const LIMITS: Limits = Limits {
    connections: 256,
    keep_alive: true,
    longest: Duration::from_secs(600),
    drain: Duration::from_secs(15),
};

/// Serves until `shutdown`, and until the calls under way have ended.
pub async fn serve(listener: TcpListener, embedder: Embedder, shutdown: CancellationToken) -> Result<(), Infallible> {
    let answer = move |request, _| {
        let embedder = embedder.clone();
        async move {
            respond(request, &embedder)
                .await
                .unwrap_or_else(|refusal| refusal.response())
        }
    };
    connections::serve(listener, LIMITS, shutdown, answer).await;
    Ok(())
}

async fn respond(request: Request<Incoming>, embedder: &Embedder) -> Result<Response<Full<Bytes>>, Refusal> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/embeddings") => embeddings(request, embedder).await,
        (&Method::GET, "/v1/models") => Ok(answer::models(embedder.info())),
        (method, path) => Err(Refusal::no_such_path(method, path)),
    }
}

async fn embeddings(request: Request<Incoming>, embedder: &Embedder) -> Result<Response<Full<Bytes>>, Refusal> {
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => Refusal::too_large(MAX_BODY_BYTES),
        false => Refusal::invalid(None, "the body could not be read to its end"),
    })?;
    let asked = Asked::read(&body.to_bytes())?;
    asked.check(embedder.info())?;
    let class = match asked.inputs.len() {
        ..=MAX_QUERY_INPUTS => Class::Query,
        _ => Class::Document,
    };
    let embedded = embedder.embed_as(asked.inputs, class, asked.kind).await;
    let embedded = embedded.map_err(|error| Refusal::of(&error))?;
    Ok(answer::embeddings(embedder.info(), &embedded, asked.encoding))
}
