//! What is told of a batch: its metrics, and its span. That is a trace of its own, linked to each request whose texts are in
//! it, and each of those to it: many records share a batch, so none of them is its parent.

use std::time::Instant;

use millrace_telemetry::{Kind, Span, metrics, names, span};

use super::ModelInfo;

const OPERATION: &str = "embeddings";

/// What a batch is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    /// Its texts.
    pub(super) texts: usize,
    /// Their tokens.
    pub(super) tokens: usize,
    /// Tokens with padding: each text is as long as the longest.
    pub(super) padded_tokens: usize,
}

/// A batch that the model computes.
#[derive(Debug)]
pub(super) struct Running {
    batch: Batch,
    provider: &'static str,
    span: Span,
    began: Instant,
}

impl Running {
    /// Its tokens, padding too.
    pub(super) fn padded_tokens(&self) -> usize {
        self.batch.padded_tokens
    }

    /// It begins at a backend, with the texts of these requests.
    pub(super) fn begin(model: &ModelInfo, provider: &'static str, batch: Batch, requests: &[&Span]) -> Self {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let span = span(Kind::Client, || format!("{OPERATION} {}", model.model.id))
            .with(|| {
                [
                    (names::GEN_AI_OPERATION, OPERATION.into()),
                    (names::GEN_AI_PROVIDER, provider.into()),
                    (names::GEN_AI_MODEL, model.model.id.clone().into()),
                    (names::GEN_AI_DIMENSIONS, i64::from(model.model.dimensions).into()),
                    (names::GEN_AI_INPUT_TOKENS, number(batch.tokens).into()),
                    (names::BATCH_REQUESTS, number(requests.len()).into()),
                    (names::BATCH_TEXTS, number(batch.texts).into()),
                    (names::BATCH_PADDED_TOKENS, number(batch.padded_tokens).into()),
                ]
            })
            .linked(requests.iter().copied())
            .start_root();
        requests.iter().for_each(|request| request.link(&span));
        let began = Instant::now();
        Self {
            batch,
            provider,
            span,
            began,
        }
    }

    /// It has ended; or failed, with a stable code and a sentence.
    pub(super) fn end(self, model: &ModelInfo, failure: Option<(&'static str, String)>) {
        let (id, provider) = (&model.model.id, self.provider);
        let code = failure.as_ref().map_or("", |(code, _)| *code);
        metrics::EMBEDDINGS.record(self.began.elapsed().as_secs_f64(), || {
            [
                (names::GEN_AI_OPERATION, OPERATION.into()),
                (names::GEN_AI_PROVIDER, provider.into()),
                (names::GEN_AI_MODEL, id.clone().into()),
                (names::ERROR_TYPE, code.into()),
            ]
        });
        metrics::INPUT_TOKENS.add(self.batch.tokens, || {
            [
                (names::GEN_AI_OPERATION, OPERATION.into()),
                (names::GEN_AI_PROVIDER, provider.into()),
                (names::GEN_AI_MODEL, id.clone().into()),
            ]
        });
        metrics::BATCH_TEXTS.add(self.batch.texts, || [(names::GEN_AI_MODEL, id.clone().into())]);
        let fill = self.batch.tokens as f64 / self.batch.padded_tokens.max(1) as f64;
        metrics::BATCH_FILL.record(fill, || [(names::GEN_AI_MODEL, id.clone().into())]);
        if let Some((code, sentence)) = failure {
            self.span.failed(code, sentence);
        }
    }
}
