//! What a client is told.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Response, StatusCode};
use millrace_events::vector_to_bytes;
use serde_json::{Value, json};

use super::request::Encoding;
use crate::batch::{EmbedError, Embedded, ModelInfo};
use crate::model::Outage;

/// About the time of a few batches.
const RETRY_WHEN_BUSY: Duration = Duration::from_secs(1);
const RETRY_WHEN_BROKEN: Duration = Duration::from_secs(2);

pub(super) fn embeddings(info: &ModelInfo, embedded: &Embedded, encoding: Encoding) -> Response<Full<Bytes>> {
    let data = embedded.vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = match encoding {
            Encoding::Float => json!(vector.values()),
            Encoding::Base64 => json!(BASE64_STANDARD.encode(vector_to_bytes(vector.values()))),
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    let tokens = embedded.tokens;
    json_response(
        StatusCode::OK,
        &json!({
            "object": "list", "data": data.collect::<Vec<_>>(), "model": info.model.id,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }),
    )
}

pub(super) fn models(info: &ModelInfo) -> Response<Full<Bytes>> {
    let model = json!({"id": info.model.id, "object": "model", "created": 0, "owned_by": "millrace"});
    json_response(StatusCode::OK, &json!({"object": "list", "data": [model]}))
}

/// Why there is no answer.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    pub(super) parameter: Option<&'static str>,
    pub(super) message: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: None,
            parameter: None,
            message: message.into(),
            retry_after: None,
        }
    }

    pub(super) fn invalid(parameter: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            parameter,
            ..Self::new(StatusCode::BAD_REQUEST, INVALID, message)
        }
    }

    pub(super) fn too_large(bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            INVALID,
            format!("a body has at most {bytes} bytes"),
        )
    }

    pub(super) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, "the body did not come in time")
    }

    pub(super) fn no_such_model(loaded: &str) -> Self {
        Self {
            code: Some("model_not_found"),
            parameter: Some("model"),
            ..Self::new(
                StatusCode::NOT_FOUND,
                INVALID,
                format!("there is no such model here; there is `{loaded}`"),
            )
        }
    }

    pub(super) fn no_such_path(method: &Method, path: &str) -> Self {
        let known = matches!(path, "/v1/embeddings" | "/v1/models");
        let status = if known {
            StatusCode::METHOD_NOT_ALLOWED
        } else {
            StatusCode::NOT_FOUND
        };
        let message = format!("there is no {method} of that path; there are POST /v1/embeddings and GET /v1/models");
        Self::new(status, INVALID, message)
    }

    /// What became of the inputs.
    pub(super) fn of(error: &EmbedError) -> Self {
        let later = |status, kind, code, message: &str, retry_after| Self {
            code: Some(code),
            retry_after: Some(retry_after),
            ..Self::new(status, kind, message)
        };
        let (busy, away) = (StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE);
        match error {
            EmbedError::Text { index, source } => Self::invalid(Some("input"), format!("input {index}: {source}")),
            EmbedError::Refused { index, .. } => {
                Self::invalid(Some("input"), format!("input {index}: the model refuses it"))
            }
            EmbedError::Failed { index, .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "server_error",
                format!("the model fails on input {index}"),
            ),
            EmbedError::Busy => later(
                busy,
                "rate_limit_error",
                "rate_limit_exceeded",
                "too many queries wait for the model",
                RETRY_WHEN_BUSY,
            ),
            EmbedError::Outage(Outage::RateLimited { retry_after }) => later(
                busy,
                "rate_limit_error",
                "rate_limit_exceeded",
                "the model asks for patience",
                *retry_after,
            ),
            EmbedError::Outage(Outage::Broken(_) | Outage::Config(_)) => later(
                away,
                "server_error",
                "model_unavailable",
                "the model does not compute",
                RETRY_WHEN_BROKEN,
            ),
            EmbedError::Stopped => later(
                away,
                "server_error",
                "draining",
                "the process is leaving: ask another one",
                RETRY_WHEN_BUSY,
            ),
        }
    }

    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let error = json!({
            "message": self.message, "type": self.kind, "param": self.parameter, "code": self.code,
        });
        let mut response = json_response(self.status, &json!({"error": error}));
        if let Some(after) = self.retry_after {
            // In whole seconds, and never too early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

const INVALID: &str = "invalid_request_error";

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TextError;

    /// A row for each thing that becomes of inputs.
    #[test]
    fn each_failure_has_its_status() {
        let retry_after = Duration::from_millis(6_500);
        for (error, status, retry) in [
            (
                EmbedError::Text {
                    index: 3,
                    source: TextError::Empty,
                },
                400,
                None,
            ),
            (
                EmbedError::Refused {
                    index: 0,
                    why: "SECRET".into(),
                },
                400,
                None,
            ),
            (
                EmbedError::Failed {
                    index: 0,
                    why: "SECRET".into(),
                },
                500,
                None,
            ),
            (EmbedError::Busy, 429, Some("1")),
            (EmbedError::Outage(Outage::RateLimited { retry_after }), 429, Some("7")),
            (EmbedError::Outage(Outage::Broken("SECRET".into())), 503, Some("2")),
            (EmbedError::Outage(Outage::Config("SECRET".into())), 503, Some("2")),
            (EmbedError::Stopped, 503, Some("1")),
        ] {
            let refusal = Refusal::of(&error);
            assert!(!refusal.message.contains("SECRET"), "{error}");
            let response = refusal.response();
            let found = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!((response.status().as_u16(), found), (status, retry), "{error}");
        }
    }
}
