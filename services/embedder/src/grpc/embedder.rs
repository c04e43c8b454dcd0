//! `EmbedderService`: vectors for queries, and which model gives them.

use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use millrace_api::embedder::v1 as api;
use millrace_api::embedder::v1::embedder_service_server::{EmbedderService, EmbedderServiceServer};
use millrace_rpc::error::{self, Rejection};
use millrace_runtime::server::MAX_MESSAGE_BYTES;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::batch::{Class, EmbedError, Embedder};
use crate::model::{Outage, TextError, Vector};

/// Texts of one call.
const MAX_TEXTS: usize = 64;
/// About the time of a few batches: the queue has moved by then.
const RETRY_WHEN_BUSY: Duration = Duration::from_millis(500);
/// Requests of a stream that are worked on at once: parts of so many texts fill a batch of a GPU.
const STREAM_REQUESTS: usize = 16;
/// A broken model is asked again this often.
const RETRY_WHEN_BROKEN: Duration = Duration::from_secs(2);

/// Answers `EmbedderService` from the batcher.
#[derive(Debug, Clone)]
pub struct EmbedderGrpc {
    embedder: Embedder,
    shutdown: CancellationToken,
}

impl EmbedderGrpc {
    /// Over a batcher's handle. Streams end when `shutdown` is cancelled.
    pub fn new(embedder: Embedder, shutdown: CancellationToken) -> Self {
        Self { embedder, shutdown }
    }
    /// The gRPC service.
    pub fn server(self) -> EmbedderServiceServer<Self> {
        EmbedderServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
    async fn embeddings(&self, texts: Vec<String>, class: Class) -> Result<Vec<api::Embedding>, Rejection> {
        if !(1..=MAX_TEXTS).contains(&texts.len()) {
            let message = format!("1 to {MAX_TEXTS} texts a call, these are {}", texts.len());
            return Err(error::invalid_field("texts", "TEXT_COUNT", message));
        }
        let vectors = self.embedder.embed(texts, class).await.map_err(rejection)?;
        let embedding = |vector: Vector| api::Embedding {
            values: vector.into_values(),
        };
        Ok(vectors.into_iter().map(embedding).collect())
    }

    /// An answer to each request, as it is ready. No more are read than are worked on.
    fn answers(
        self,
        requests: impl Stream<Item = Result<api::EmbedStreamRequest, Status>> + Send + 'static,
    ) -> impl Stream<Item = Result<api::EmbedStreamResponse, Status>> + Send + 'static {
        let (asked, left) = (self.shutdown.clone(), self.shutdown.clone());
        let answer = move |request: Result<api::EmbedStreamRequest, Status>| {
            let this = self.clone();
            async move {
                let api::EmbedStreamRequest { id, texts } = request?;
                let (embeddings, error) = match this.embeddings(texts, Class::Document).await {
                    Ok(embeddings) => (embeddings, None),
                    Err(rejection) => (Vec::new(), Some(told(&rejection))),
                };
                Ok(api::EmbedStreamResponse {
                    id,
                    embeddings,
                    model: Some(this.model()),
                    error,
                })
            }
        };
        let leaving = async move { left.is_cancelled().then(|| Err(rejection(EmbedError::Stopped).into())) };
        requests
            .take_until(asked.cancelled_owned())
            .map(answer)
            .buffer_unordered(STREAM_REQUESTS)
            .chain(stream::once(leaving).filter_map(std::future::ready))
    }

    fn model(&self) -> api::Model {
        let model = &self.embedder.info().model;
        api::Model {
            id: model.id.clone(),
            revision: model.revision.clone(),
            dimensions: model.dimensions,
            dtype: model.dtype.clone(),
            normalized: model.normalized,
        }
    }
}

#[tonic::async_trait]
impl EmbedderService for EmbedderGrpc {
    async fn embed(&self, request: Request<api::EmbedRequest>) -> Result<Response<api::EmbedResponse>, Status> {
        let embeddings = self.embeddings(request.into_inner().texts, Class::Query).await?;
        Ok(Response::new(api::EmbedResponse {
            embeddings,
            model: Some(self.model()),
        }))
    }

    type EmbedStreamStream = BoxStream<'static, Result<api::EmbedStreamResponse, Status>>;

    async fn embed_stream(
        &self,
        request: Request<Streaming<api::EmbedStreamRequest>>,
    ) -> Result<Response<Self::EmbedStreamStream>, Status> {
        Ok(Response::new(self.clone().answers(request.into_inner()).boxed()))
    }

    async fn get_model(
        &self,
        _request: Request<api::GetModelRequest>,
    ) -> Result<Response<api::GetModelResponse>, Status> {
        let (info, at_work) = (self.embedder.info(), self.embedder.at_work());
        Ok(Response::new(api::GetModelResponse {
            model: Some(self.model()),
            max_tokens: i32::try_from(info.max_tokens).unwrap_or(i32::MAX),
            backend: at_work.name.to_owned(),
            device: at_work.device,
            precision: at_work.precision.to_owned(),
            stands_in_for: at_work.stands_in_for.unwrap_or_default().to_owned(),
        }))
    }
}

fn told(rejection: &Rejection) -> api::EmbedError {
    let (code, reason, message, retry_after) = rejection.told();
    let retry_after_ms = retry_after.map_or(0, |after| i64::try_from(after.as_millis()).unwrap_or(i64::MAX));
    api::EmbedError {
        code: code.into(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        retry_after_ms,
    }
}

fn rejection(refused: EmbedError) -> Rejection {
    match refused {
        EmbedError::Text { index, source } => text_rejection(index, &source),
        EmbedError::Refused { index, why } => {
            let message = format!("the model refuses it: {why}");
            error::invalid_field(format!("texts[{index}]"), "TEXT_REFUSED", message)
        }
        EmbedError::Failed { .. } => error::internal("MODEL_FAILED", refused),
        EmbedError::Busy => {
            error::resource_exhausted("EMBEDDER_BUSY", "too many queries wait for the model", RETRY_WHEN_BUSY)
        }
        EmbedError::Outage(Outage::RateLimited { retry_after }) => {
            error::resource_exhausted("MODEL_RATE_LIMITED", "the model asks for patience", retry_after)
        }
        EmbedError::Outage(Outage::Broken(_) | Outage::Config(_)) => {
            error::unavailable("MODEL_UNAVAILABLE", "the model does not compute", RETRY_WHEN_BROKEN)
        }
        EmbedError::Stopped => {
            error::unavailable("DRAINING", "the process is leaving: ask another one", RETRY_WHEN_BUSY)
        }
    }
}

fn text_rejection(index: usize, refused: &TextError) -> Rejection {
    let field = format!("texts[{index}]");
    let message = refused.to_string();
    match refused {
        TextError::Empty => error::invalid_field(field, "TEXT_EMPTY", message),
        TextError::TooManyTokens { tokens, max_tokens } => error::invalid_field(field, "TEXT_TOO_LONG", message)
            .with("tokens", tokens)
            .with("max_tokens", max_tokens),
        TextError::TooManyBytes { bytes, max_bytes } => error::invalid_field(field, "TEXT_TOO_LONG", message)
            .with("bytes", bytes)
            .with("max_bytes", max_bytes),
        TextError::Refused(_) => error::invalid_field(field, "TEXT_REFUSED", message),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::batch::fake::{self, Fake};

    async fn with_service<F: Future<Output = ()>>(test: impl FnOnce(EmbedderGrpc, Fake) -> F) {
        let (embedder, batcher, fake) = fake::batcher();
        let (ended, ()) = tokio::join!(
            batcher.run(),
            test(EmbedderGrpc::new(embedder, CancellationToken::new()), fake)
        );
        ended.unwrap();
    }

    async fn embed(service: &EmbedderGrpc, texts: &[&str]) -> Result<api::EmbedResponse, Status> {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        let response = service.embed(Request::new(api::EmbedRequest { texts })).await?;
        Ok(response.into_inner())
    }

    #[tokio::test]
    async fn texts_become_vectors_and_the_model_is_told() {
        with_service(|service, _| async move {
            let response = embed(&service, &["a a", "b"]).await.unwrap();
            let values: Vec<_> = response.embeddings.into_iter().map(|e| e.values).collect();
            assert_eq!(values, [[2.0, 0.0], [0.0, 1.0]]);
            let request = Request::new(api::GetModelRequest {});
            let told = service.get_model(request).await.unwrap().into_inner();
            assert_eq!(told.model, response.model);
            assert_eq!((told.max_tokens, told.backend.as_str()), (16, "fake"));
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_request_is_named_by_field() {
        with_service(|service, _| async move {
            let many = vec!["a"; 65];
            let long = "a ".repeat(17);
            for (texts, field, reason) in [
                (&[][..], "texts", "TEXT_COUNT"),
                (&many[..], "texts", "TEXT_COUNT"),
                (&["a", "a", "a", " "][..], "texts[3]", "TEXT_EMPTY"),
                (&["a", &long][..], "texts[1]", "TEXT_TOO_LONG"),
            ] {
                let status = embed(&service, texts).await.unwrap_err();
                assert_eq!(status.code(), Code::InvalidArgument);
                let details = status.get_error_details();
                assert_eq!(details.error_info().unwrap().reason, reason);
                assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_broken_model_is_unavailable_and_says_nothing_of_its_inside() {
        with_service(|service, fake| async move {
            fake.break_down(true);
            let status = embed(&service, &["a"]).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.get_error_details().retry_info().is_some());
            assert!(!status.message().contains("device"), "{}", status.message());
        })
        .await;
    }

    /// A row for each answer of the model that is about no text.
    #[tokio::test]
    async fn a_model_that_asks_for_patience_is_told_with_the_time_and_one_that_refuses_us_is_unavailable() {
        let retry_after = Duration::from_secs(7);
        for (outage, code, reason, retry) in [
            (
                Outage::RateLimited { retry_after },
                Code::ResourceExhausted,
                "MODEL_RATE_LIMITED",
                retry_after,
            ),
            (
                Outage::Config("the key is wrong".into()),
                Code::Unavailable,
                "MODEL_UNAVAILABLE",
                RETRY_WHEN_BROKEN,
            ),
        ] {
            with_service(|service, fake| async move {
                fake.answer(Some(outage.into()));
                let status = embed(&service, &["a"]).await.unwrap_err();
                assert_eq!((status.code(), status.message().contains("key")), (code, false));
                let details = status.get_error_details();
                assert_eq!(details.error_info().unwrap().reason, reason);
                assert_eq!(details.retry_info().unwrap().retry_delay, Some(retry));
            })
            .await;
        }
    }

    #[tokio::test]
    async fn a_text_that_the_model_refuses_is_named() {
        with_service(|service, _| async move {
            let status = embed(&service, &["a", "b b b b b"]).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            let details = status.get_error_details();
            assert_eq!(details.bad_request().unwrap().field_violations[0].field, "texts[1]");
        })
        .await;
    }

    #[tokio::test]
    async fn a_text_that_the_model_fails_on_is_our_fault() {
        with_service(|service, _| async move {
            let status = embed(&service, &["a", "b b b"]).await.unwrap_err();
            assert_eq!(status.code(), Code::Internal);
            assert!(!status.message().contains("three"), "{}", status.message());
        })
        .await;
    }

    fn asked(id: &str, texts: &[&str]) -> Result<api::EmbedStreamRequest, Status> {
        Ok(api::EmbedStreamRequest {
            id: id.into(),
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
        })
    }

    #[tokio::test]
    async fn a_stream_answers_each_request_and_goes_on_after_a_bad_one() {
        with_service(|service, _| async move {
            let requests = [
                asked("one", &["a a"]),
                asked("two", &[]),
                asked("three", &["a", "b b b b b"]),
                asked("four", &["b", "a"]),
            ];
            let answers: Vec<_> = service.answers(stream::iter(requests)).collect().await;
            let mut answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
            answers.sort_by_key(|answer| ["one", "two", "three", "four"].iter().position(|id| *id == answer.id));
            let counts: Vec<_> = answers.iter().map(|answer| answer.embeddings.len()).collect();
            assert_eq!(counts, [1, 0, 0, 2]);
            let errors: Vec<_> = answers.into_iter().filter_map(|answer| answer.error).collect();
            let reasons: Vec<_> = errors.iter().map(|error| (error.code, error.reason.as_str())).collect();
            assert_eq!(reasons, [(3, "TEXT_COUNT"), (3, "TEXT_REFUSED")]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_stream_ends_when_the_process_leaves() {
        with_service(|service, _| async move {
            let shutdown = service.shutdown.clone();
            let requests = stream::iter([asked("one", &["a"])]).chain(stream::pending());
            let mut answers = Box::pin(service.answers(requests));
            assert_eq!(answers.next().await.unwrap().unwrap().id, "one");
            shutdown.cancel();
            let status = answers.next().await.unwrap().unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(answers.next().await.is_none());
        })
        .await;
    }
}
