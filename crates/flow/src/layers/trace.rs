//! One span a record, around the call that works on it: whatever is logged meanwhile says at which record.

use std::task::{Context, Poll};

use tower::{Layer, Service};
use tracing::field::Empty;
use tracing::instrument::{Instrument as _, Instrumented};
use tracing::{Span, info_span};

use crate::stage::Delivery;

/// Longest key that is shown, in bytes: a document's is at most 577.
const MAX_KEY_BYTES: usize = 600;

/// Opens a span a record: `stage`, `topic`, `partition`, `offset`, `attempt` and, where it is text, `key`. Never anything
/// of the record's value.
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

impl<S: Service<Delivery>> Service<Delivery> for Traced<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let span = span(self.stage, &delivery);
        span.in_scope(|| self.inner.call(delivery)).instrument(span.clone())
    }
}

fn span(stage: &'static str, delivery: &Delivery) -> Span {
    let origin = &delivery.origin;
    let span = info_span!(
        "record",
        stage,
        topic = &*origin.topic,
        partition = origin.partition,
        offset = origin.offset,
        attempt = delivery.attempt,
        key = Empty,
    );
    let short = delivery.key.as_deref().filter(|key| key.len() <= MAX_KEY_BYTES);
    if let Some(Ok(key)) = short.map(std::str::from_utf8) {
        // Quoted: a key of somebody else's must not begin a line of its own in the log.
        span.record("key", tracing::field::debug(key));
    }
    span
}
