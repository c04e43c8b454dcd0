use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::OnceLock;

use opentelemetry::global::{self, BoxedTracer};
use opentelemetry::trace::{
    FutureExt as _, Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, WithContext,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value};

use crate::names;
use crate::w3c::TraceContext;

/// Name of the instrumentation, for whoever looks at spans.
const SCOPE: &str = "millrace";

static TRACER: OnceLock<BoxedTracer> = OnceLock::new();

/// Spans are made from here on. To be called once the process's tracer provider is set.
pub fn enable() {
    // A second call finds the same provider.
    let _ = TRACER.set(global::tracer_with_scope(scope()));
}

/// Who makes spans and metrics: of whom, in which version, by which conventions.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(SCOPE)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(names::SCHEMA_URL)
        .build()
}

/// Whether spans are made.
pub fn is_enabled() -> bool {
    TRACER.get().is_some()
}

/// A span, its context, or none. It ends when the last clone is gone.
#[derive(Clone, Default)]
pub struct Span(Context);

/// What a span is to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work inside of a process.
    Internal,
    /// A request that is answered.
    Server,
    /// A request that is made.
    Client,
    /// A record that is written.
    Producer,
    /// A record that is worked on.
    Consumer,
}

/// A span that has not begun.
#[must_use = "a span begins with start"]
pub struct SpanBuilder(Option<opentelemetry::trace::SpanBuilder>);

/// Begins to describe a span. `name` is asked for only where spans are made.
pub fn span<N: Into<Cow<'static, str>>>(kind: Kind, name: impl FnOnce() -> N) -> SpanBuilder {
    SpanBuilder(TRACER.get().map(|tracer| {
        let kind = match kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        };
        tracer.span_builder(name()).with_kind(kind)
    }))
}

impl SpanBuilder {
    /// Adds attributes; they are asked for only where spans are made.
    pub fn with<const N: usize>(mut self, attributes: impl FnOnce() -> [(&'static str, Value); N]) -> Self {
        if let Some(builder) = &mut self.0 {
            let attributes = attributes().into_iter().map(|(name, value)| KeyValue::new(name, value));
            builder.attributes.get_or_insert_default().extend(attributes);
        }
        self
    }

    /// Links it to other spans.
    pub fn linked<'s>(mut self, to: impl IntoIterator<Item = &'s Span>) -> Self {
        if let Some(builder) = &mut self.0 {
            let links = to.into_iter().filter_map(Span::context).map(Link::with_context);
            builder.links.get_or_insert_default().extend(links);
        }
        self
    }

    /// Begins, as a child of `parent`. Where spans are not made it is the parent.
    pub fn start(self, parent: &Span) -> Span {
        match (self.0, TRACER.get()) {
            (Some(builder), Some(tracer)) => {
                let span = tracer.build_with_context(builder, &parent.0);
                Span(parent.0.with_span(span))
            }
            _ => parent.clone(),
        }
    }

    /// Begins, as a child of the span within which this is called; without one there is none.
    pub fn start_here(self) -> Span {
        let caller = Span::current();
        match caller.is_some() {
            true => self.start(&caller),
            false => Span::none(),
        }
    }

    /// Begins, with a trace of its own.
    pub fn start_root(self) -> Span {
        self.start(&Span::none())
    }
}

impl Span {
    /// None.
    pub fn none() -> Self {
        Self(Context::new())
    }

    /// The one within which this is called.
    pub fn current() -> Self {
        Self(Context::current())
    }

    /// Another process's: to be a parent.
    pub fn remote(context: &TraceContext) -> Self {
        // Hexadecimal and not zero: that is what a trace context is.
        let (trace, span) = (
            TraceId::from_hex(context.trace_id()),
            SpanId::from_hex(context.span_id()),
        );
        let (Ok(trace), Ok(span)) = (trace, span) else {
            return Self::none();
        };
        // What a vendor wrote that cannot be read is left out, as W3C has it.
        let state = context.tracestate().and_then(|state| TraceState::from_str(state).ok());
        let flags = TraceFlags::new(context.flags());
        let context = SpanContext::new(trace, span, flags, true, state.unwrap_or_default());
        Self(Context::new().with_remote_span_context(context))
    }

    fn context(&self) -> Option<SpanContext> {
        let span = self.0.span();
        Some(span.span_context()).filter(|context| context.is_valid()).cloned()
    }

    /// Whether it is one.
    pub fn is_some(&self) -> bool {
        self.0.span().span_context().is_valid()
    }

    /// 32 hexadecimal digits.
    pub fn trace_id(&self) -> Option<String> {
        self.context().map(|context| context.trace_id().to_string())
    }

    /// 16 hexadecimal digits.
    pub fn span_id(&self) -> Option<String> {
        self.context().map(|context| context.span_id().to_string())
    }

    /// What it is to whoever is to be its child, in another process.
    pub fn trace_context(&self) -> Option<TraceContext> {
        let context = self.context()?;
        let flags = (context.trace_flags() & TraceFlags::SAMPLED).to_u8();
        let text = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
        let state = Some(context.trace_state().header());
        text.parse::<TraceContext>()
            .ok()
            .map(|parsed| parsed.with_tracestate(state))
    }

    /// Sets an attribute.
    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        self.0.span().set_attribute(KeyValue::new(name, value));
    }

    /// Links it to another one, once it has begun.
    pub fn link(&self, to: &Span) {
        if let Some(context) = to.context() {
            self.0.span().add_link(context, Vec::new());
        }
    }

    /// It failed: a stable code, and a sentence for people without anything of a document's text.
    pub fn failed(&self, error_type: impl Into<Value>, sentence: impl Into<Cow<'static, str>>) {
        let span = self.0.span();
        if span.is_recording() {
            span.set_attribute(KeyValue::new(names::ERROR_TYPE, error_type));
            span.set_status(Status::error(sentence));
        }
    }

    /// Ends it now, however many clones there are.
    pub fn end(&self) {
        self.0.span().end();
    }

    /// Runs something within it.
    pub fn run<T>(&self, what: impl FnOnce() -> T) -> T {
        let _entered = self.0.clone().attach();
        what()
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.trace_context() {
            Some(context) => write!(f, "Span({context})"),
            None => f.write_str("Span(none)"),
        }
    }
}

/// A future that runs within a span: its children find it with [`Span::current`].
pub type Within<F> = WithContext<F>;

/// See [`Within`].
pub trait Traced: Future + Sized {
    /// Runs within `span`.
    fn within(self, span: Span) -> Within<Self> {
        self.with_context(span.0)
    }
}

impl<F: Future> Traced for F {}

#[cfg(test)]
#[path = "span_tests.rs"]
mod tests;
