//! Which spans are kept.
//!
//! | a span | is |
//! |---|---|
//! | whose parent is kept | kept |
//! | without a parent, linked to one that is kept: a batch of the model, a commit | kept |
//! | without a parent or link | kept for a share of the traces, by their ids |
//! | any other | recorded, and kept only if it failed or has `error.type` |
//!
//! So a dead letter has its spans whatever the share, though not those of its trace that had ended well before.

use std::time::Duration;

use millrace_telemetry::names;
use opentelemetry::trace::{
    Link, SpanContext, SpanKind, SpanRef, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SamplingDecision, SamplingResult, ShouldSample, Span, SpanData, SpanProcessor,
};

/// The table's decisions.
#[derive(Debug, Clone)]
pub(super) struct Sampling {
    roots: Sampler,
}

impl Sampling {
    /// Of a share from 0 to 1.
    pub(super) fn of_roots(share: f64) -> Self {
        Self {
            roots: Sampler::TraceIdRatioBased(share),
        }
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let parent = parent.map(TraceContextExt::span);
        let parent = parent.as_ref().map(SpanRef::span_context);
        let parent = parent.filter(|parent| parent.is_valid());
        let linked = || links.iter().any(|link| link.span_context.is_sampled());
        let kept = match &parent {
            Some(parent) => parent.is_sampled(),
            None if linked() => true,
            None if !links.is_empty() => false,
            None => {
                let decided = self.roots.should_sample(None, trace_id, name, kind, attributes, links);
                decided.decision == SamplingDecision::RecordAndSample
            }
        };
        SamplingResult {
            decision: match kept {
                true => SamplingDecision::RecordAndSample,
                false => SamplingDecision::RecordOnly,
            },
            attributes: Vec::new(),
            trace_state: parent.map_or_else(TraceState::default, |parent| parent.trace_state().clone()),
        }
    }
}

/// Lets what failed through although its trace is not kept.
#[derive(Debug)]
pub(super) struct KeepFailures<P>(pub(super) P);

impl<P: SpanProcessor> SpanProcessor for KeepFailures<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, mut span: SpanData) {
        if !span.span_context.is_sampled() && failed(&span) {
            let was = &span.span_context;
            let flags = was.trace_flags() | TraceFlags::SAMPLED;
            let state = was.trace_state().clone();
            span.span_context = SpanContext::new(was.trace_id(), was.span_id(), flags, was.is_remote(), state);
        }
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

fn failed(span: &SpanData) -> bool {
    let error_type = || {
        span.attributes
            .iter()
            .any(|attribute| attribute.key.as_str() == names::ERROR_TYPE)
    };
    matches!(span.status, Status::Error { .. }) || error_type()
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanBuilder, SpanId, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SimpleSpanProcessor};

    use super::*;

    struct Rig {
        provider: SdkTracerProvider,
        kept: InMemorySpanExporter,
    }

    impl Rig {
        fn of(share: f64) -> Self {
            let kept = InMemorySpanExporter::default();
            let provider = SdkTracerProvider::builder()
                .with_sampler(Sampling::of_roots(share))
                .with_span_processor(KeepFailures(SimpleSpanProcessor::new(kept.clone())))
                .build();
            Self { provider, kept }
        }

        fn start(&self, builder: SpanBuilder, parent: Option<bool>) -> Span {
            let tracer = self.provider.tracer("test");
            let context = parent.map_or_else(Context::new, |sampled| {
                Context::new().with_remote_span_context(remote(sampled))
            });
            tracer.build_with_context(builder, &context)
        }

        fn names(&self) -> Vec<String> {
            let spans = self.kept.get_finished_spans().unwrap();
            spans.iter().map(|span| span.name.to_string()).collect()
        }
    }

    fn remote(sampled: bool) -> SpanContext {
        let (trace, span) = (TraceId::from_hex("1234").unwrap(), SpanId::from_hex("56").unwrap());
        let flags = TraceFlags::default().with_sampled(sampled);
        SpanContext::new(trace, span, flags, true, TraceState::default())
    }

    fn named(name: &'static str) -> SpanBuilder {
        SpanBuilder::from_name(name)
    }

    /// A row for each of the table.
    #[test]
    fn each_row_of_the_table() {
        let linked = |sampled| named("linked").with_links(vec![Link::with_context(remote(sampled))]);
        for (share, builder, parent, kept) in [
            (0.0, named("child"), Some(true), true),
            (1.0, named("child"), Some(false), false),
            (0.0, linked(true), None, true),
            (1.0, linked(false), None, false),
            (1.0, named("root"), None, true),
            (0.0, named("root"), None, false),
        ] {
            let rig = Rig::of(share);
            let told = format!("{builder:?}, {parent:?}");
            drop(rig.start(builder, parent));
            assert_eq!(!rig.names().is_empty(), kept, "{told}");
        }
    }

    #[test]
    fn what_failed_is_kept_and_its_siblings_are_not() {
        use opentelemetry::trace::Span as _;
        let rig = Rig::of(0.0);
        let mut failed = rig.start(named("failed"), Some(false));
        failed.set_status(Status::error("no"));
        let mut letter = rig.start(named("letter"), Some(false));
        letter.set_attribute(KeyValue::new(names::ERROR_TYPE, "DEAD_LETTER"));
        let well = rig.start(named("well"), Some(false));
        drop((failed, letter, well));
        assert_eq!(rig.names(), ["failed", "letter"]);
        assert!(rig.kept.get_finished_spans().unwrap()[0].span_context.is_sampled());
    }
}
