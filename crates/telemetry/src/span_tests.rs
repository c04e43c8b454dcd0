use std::sync::{Mutex, MutexGuard, PoisonError};

use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};

use super::*;

/// The process has one tracer: one test at a time.
fn tracing() -> (InMemorySpanExporter, MutexGuard<'static, ()>) {
    static ONE: Mutex<()> = Mutex::new(());
    static EXPORTER: OnceLock<InMemorySpanExporter> = OnceLock::new();
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let exporter = EXPORTER.get_or_init(|| {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        global::set_tracer_provider(provider);
        enable();
        exporter
    });
    exporter.reset();
    (exporter.clone(), one)
}

fn named(exporter: &InMemorySpanExporter, name: &str) -> SpanData {
    let spans = exporter.get_finished_spans().unwrap();
    spans.into_iter().find(|span| span.name == name).unwrap()
}

fn internal(name: &'static str) -> SpanBuilder {
    span(Kind::Internal, move || name)
}

#[test]
fn a_context_that_came_is_the_parent_and_goes_on() {
    let (exporter, _one) = tracing();
    let context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        .parse::<TraceContext>()
        .unwrap();
    let remote = Span::remote(&context.with_tracestate(Some("vendor=1".into())));
    let child = span(Kind::Consumer, || "process topic")
        .linked([&remote])
        .start(&remote);
    let out = child.trace_context().unwrap();
    assert_eq!(
        (out.trace_id(), out.tracestate()),
        ("0af7651916cd43dd8448eb211c80319c", Some("vendor=1"))
    );
    assert_eq!(Some(out.span_id()), child.span_id().as_deref());
    drop(child);
    let seen = named(&exporter, "process topic");
    assert_eq!(seen.span_kind, SpanKind::Consumer);
    assert_eq!(seen.parent_span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(seen.links.len(), 1);
}

#[test]
fn it_ends_when_the_last_clone_is_gone_and_not_with_its_child() {
    let (exporter, _one) = tracing();
    let parent = internal("parent").start_root();
    let (clone, child) = (parent.clone(), internal("child").start(&parent));
    drop(parent);
    assert!(exporter.get_finished_spans().unwrap().is_empty());
    drop(clone);
    assert_eq!(named(&exporter, "parent").name, "parent");
    drop(child);
    assert_eq!(
        named(&exporter, "child").parent_span_id,
        named(&exporter, "parent").span_context.span_id()
    );
}

#[test]
fn a_future_finds_the_span_that_it_runs_within() {
    let (_exporter, _one) = tracing();
    let outer = internal("outer").start_root();
    let id = outer.span_id();
    let found = futures_executor(async { Span::current().span_id() }.within(outer));
    assert_eq!(found, id);
    assert!(!Span::current().is_some());
}

#[test]
fn what_failed_says_why() {
    let (exporter, _one) = tracing();
    let failing = internal("failing")
        .with(|| [(names::STAGE, "parse".into())])
        .start_root();
    failing.failed("NO_KEY", "the record has no key");
    drop(failing);
    let seen = named(&exporter, "failing");
    assert_eq!(seen.status, Status::error("the record has no key"));
    let attributes: Vec<_> = seen
        .attributes
        .iter()
        .map(|a| (a.key.as_str(), a.value.to_string()))
        .collect();
    assert_eq!(
        attributes,
        [
            (names::STAGE, "parse".to_owned()),
            (names::ERROR_TYPE, "NO_KEY".to_owned())
        ]
    );
}

/// Polls what is never pending.
fn futures_executor<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("pending"),
    }
}
