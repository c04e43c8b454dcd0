//! A receiver of traces: what services send, to be held against what they promise.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use millrace_telemetry::otlp;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Where the services are told to send to.
pub const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// `service.name` of ingest.
pub const INGEST: &str = "millrace-ingest";
/// Of the embedder.
pub const EMBEDDER: &str = "millrace-embedder";
/// Of the indexer.
pub const INDEXER: &str = "millrace-indexer";
/// The call that submits.
pub const SUBMIT: &str = "millrace.ingest.v1.IngestService/SubmitDocument";

/// What every document of one part leaves until it can be searched for: who, what, which kind, whose child. The first
/// one's parent is the client's.
pub const OF_A_DOCUMENT: [(&str, &str, SpanKind, &str); 17] = [
    (INGEST, SUBMIT, SpanKind::Server, ""),
    (INGEST, "send documents.submitted", SpanKind::Producer, SUBMIT),
    (
        INGEST,
        "process documents.submitted",
        SpanKind::Consumer,
        "send documents.submitted",
    ),
    (INGEST, "parse", SpanKind::Internal, "process documents.submitted"),
    (
        INGEST,
        "send documents.parsed",
        SpanKind::Producer,
        "process documents.submitted",
    ),
    (
        INGEST,
        "send documents.status",
        SpanKind::Producer,
        "process documents.submitted",
    ),
    (
        EMBEDDER,
        "process documents.parsed",
        SpanKind::Consumer,
        "send documents.parsed",
    ),
    (EMBEDDER, "embed", SpanKind::Internal, "process documents.parsed"),
    (
        EMBEDDER,
        "send chunks.embedded",
        SpanKind::Producer,
        "process documents.parsed",
    ),
    (
        INDEXER,
        "process chunks.embedded",
        SpanKind::Consumer,
        "send chunks.embedded",
    ),
    (INDEXER, "index", SpanKind::Internal, "process chunks.embedded"),
    (INDEXER, "index write", SpanKind::Internal, "index"),
    (INDEXER, "index move head", SpanKind::Internal, "index"),
    (INDEXER, "index flush", SpanKind::Internal, "index"),
    (INDEXER, "searchable", SpanKind::Internal, "index"),
    (
        INDEXER,
        "send vectors.indexed",
        SpanKind::Producer,
        "process chunks.embedded",
    ),
    (
        INDEXER,
        "send documents.status",
        SpanKind::Producer,
        "process chunks.embedded",
    ),
];

/// A span that came.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// Empty for a root.
    pub parent_id: String,
    /// Its name.
    pub name: String,
    /// `service.name` of who sent it.
    pub service: String,
    /// What it is.
    pub kind: SpanKind,
    /// Its attributes; numbers and truth values as text.
    pub attributes: BTreeMap<String, String>,
    /// Trace and span ids.
    pub links: Vec<(String, String)>,
    /// Links that its process threw away.
    pub dropped_links: u32,
    /// Its status is an error.
    pub failed: bool,
}

/// Listens until it is dropped. Keeps what comes while it is asked to.
#[derive(Debug)]
pub struct Receiver {
    /// `http://host:port`.
    pub address: String,
    kept: Kept,
    _serving: AbortOnDropHandle<Result<(), tonic::transport::Error>>,
}

#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Option<Vec<Seen>>>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<Seen>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver {
    /// Listens on a free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for traces")?;
        let address = format!("http://{}", listener.local_addr()?);
        let kept = Kept::default();
        let service = TraceServiceServer::new(kept.clone()).max_decoding_message_size(64 << 20);
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener));
        Ok(Self {
            address,
            kept,
            _serving: AbortOnDropHandle::new(tokio::spawn(serving)),
        })
    }

    /// Forgets what it has, and keeps what comes.
    pub fn listen(&self) {
        *self.kept.lock() = Some(Vec::new());
    }

    /// Keeps nothing more.
    pub fn stop_listening(&self) {
        *self.kept.lock() = None;
    }

    /// What has come of a trace.
    pub fn of(&self, trace_id: &str) -> Vec<Seen> {
        self.those(|span| span.trace_id == trace_id)
    }

    /// What has come that is so.
    pub fn those(&self, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let kept = self.kept.lock();
        let all = kept.iter().flatten();
        all.filter(|span| wanted(span)).cloned().collect()
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if let Some(kept) = self.lock().as_mut() {
            kept.extend(otlp::spans(request.into_inner()).map(|(service, span)| seen(span, service)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn seen(span: Span, service: String) -> Seen {
    let status = span.status.as_ref();
    Seen {
        trace_id: otlp::hex(&span.trace_id),
        span_id: otlp::hex(&span.span_id),
        parent_id: otlp::hex(&span.parent_span_id),
        kind: span.kind(),
        failed: status.is_some_and(|status| status.code() == StatusCode::Error),
        attributes: otlp::attributes(&span.attributes),
        links: otlp::links(&span),
        dropped_links: span.dropped_links_count,
        service,
        name: span.name,
    }
}
