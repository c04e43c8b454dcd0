//! One span an attempt, around the call that works on a record. Whatever is logged meanwhile says at which record, and in
//! which trace.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use millrace_telemetry::{Kind, Span, Traced as _, metrics, names};
use tower::{Layer, Service};
use tracing::info_span;
use tracing::instrument::Instrument as _;

use crate::stage::{Delivery, Failure};

/// Longest key that is shown, in bytes: a document's is at most 577.
const MAX_KEY_BYTES: usize = 600;

/// Opens a span an attempt. Its log lines have `stage`, `topic`, `partition`, `offset`, `attempt` and, where it is text,
/// `key`, with `trace_id` and `span_id` of the trace's own. Never anything of the record's value.
#[derive(Debug, Clone, Copy)]
pub struct TraceLayer {
    stage: &'static str,
}

/// A service that works within spans.
#[derive(Debug, Clone)]
pub struct Traced<S> {
    inner: S,
    stage: &'static str,
}

impl TraceLayer {
    /// Spans of this stage.
    pub fn new(stage: &'static str) -> Self {
        Self { stage }
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced {
            inner,
            stage: self.stage,
        }
    }
}

impl<S> Service<Delivery> for Traced<S>
where
    S: Service<Delivery, Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let (attempt, topic) = (attempt(self.stage, &delivery), delivery.origin.topic.clone());
        let lines = lines(self.stage, &delivery, &attempt);
        let call = lines.in_scope(|| attempt.run(|| self.inner.call(delivery)));
        let within = attempt.clone();
        let (stage, topic, began) = (self.stage, topic, Instant::now());
        let judged = async move {
            let result = call.await;
            let reason = result.as_ref().err().map_or("", Failure::reason);
            metrics::PROCESS.record(began.elapsed().as_secs_f64(), || {
                [
                    (names::MESSAGING_DESTINATION, topic.into()),
                    (names::STAGE, stage.into()),
                    (names::ERROR_TYPE, reason.into()),
                ]
            });
            if let Err(failure) = &result {
                metrics::FAILURES.add(1, || {
                    [
                        (names::STAGE, stage.into()),
                        (names::FAILURE_CLASS, failure.class().into()),
                        (names::REASON, failure.reason().into()),
                    ]
                });
                attempt.set(names::FAILURE_CLASS, failure.class());
                attempt.failed(failure.reason(), failure.message().to_owned());
            }
            result
        };
        Box::pin(judged.within(within).instrument(lines))
    }
}

/// A child of the record's span.
fn attempt(stage: &'static str, delivery: &Delivery) -> Span {
    let number = i64::from(delivery.attempt);
    millrace_telemetry::span(Kind::Internal, || stage)
        .with(|| [(names::STAGE, stage.into()), (names::ATTEMPT, number.into())])
        .start(&delivery.span)
}

fn lines(stage: &'static str, delivery: &Delivery, attempt: &Span) -> tracing::Span {
    let origin = &delivery.origin;
    let key = delivery.key.as_deref().filter(|key| key.len() <= MAX_KEY_BYTES);
    let key = key.and_then(|key| std::str::from_utf8(key).ok());
    info_span!(
        "record",
        stage,
        topic = &*origin.topic,
        partition = origin.partition,
        offset = origin.offset,
        attempt = delivery.attempt,
        // Quoted: a key of somebody else's must not begin a line of its own in the log.
        key = key.map(tracing::field::debug),
        trace_id = attempt.trace_id(),
        span_id = attempt.span_id(),
    )
}
