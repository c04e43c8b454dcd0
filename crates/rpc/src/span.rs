//! One span a call, on both sides of it: `rpc.*` as OpenTelemetry's conventions have it.
//!
//! | the call | status of a SERVER span | status of a CLIENT span |
//! |---|---|---|
//! | OK | unset | unset |
//! | UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS | error | error |
//! | any other: the caller's own making | unset | error |
//! | left by its caller before its end | unset, `CANCELLED` | error, `CANCELLED` |
//!
//! A span lasts until the last message was sent, trailers included. Health and reflection are asked for all the time by
//! machines: they have no spans. A method that nobody knows is called `_OTHER`: names are never what a stranger wrote.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body::{Frame, SizeHint};
use millrace_telemetry::metrics::{self, Metric};
use millrace_telemetry::{Kind, Span, Traced as _, is_enabled, names, span};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::complete::reason;
use crate::trace;

const SYSTEM: &str = "grpc";
const STATUS: &str = "grpc-status";
const UNKNOWN_METHOD: &str = "_OTHER";

/// Spans of the calls that a server answers.
#[derive(Debug, Clone)]
pub struct ServerSpanLayer {
    methods: Arc<BTreeSet<String>>,
}

impl ServerSpanLayer {
    /// Of a server that has these methods, each as `package.Service/Method`: any other is called `_OTHER`.
    pub fn new(methods: impl IntoIterator<Item = String>) -> Self {
        Self {
            methods: Arc::new(methods.into_iter().collect()),
        }
    }
}

/// Spans of the calls that a client makes: around a channel, for a generated client.
#[derive(Debug, Clone)]
pub struct ClientSpanLayer {
    host: String,
    port: Option<u16>,
}

impl ClientSpanLayer {
    /// Of calls to `address` (`http://host:port`).
    pub fn to(address: &str) -> Self {
        let uri = address.parse::<Uri>().ok();
        Self {
            host: uri.as_ref().and_then(Uri::host).unwrap_or_default().to_owned(),
            port: uri.as_ref().and_then(Uri::port_u16),
        }
    }
}

/// See [`ServerSpanLayer`].
#[derive(Debug, Clone)]
pub struct ServerSpans<S> {
    inner: S,
    methods: Arc<BTreeSet<String>>,
}

/// See [`ClientSpanLayer`].
#[derive(Debug, Clone)]
pub struct ClientSpans<S> {
    inner: S,
    server: ClientSpanLayer,
}

impl<S> Layer<S> for ServerSpanLayer {
    type Service = ServerSpans<S>;
    fn layer(&self, inner: S) -> ServerSpans<S> {
        ServerSpans {
            inner,
            methods: self.methods.clone(),
        }
    }
}

impl<S> Layer<S> for ClientSpanLayer {
    type Service = ClientSpans<S>;
    fn layer(&self, inner: S) -> ClientSpans<S> {
        ClientSpans {
            inner,
            server: self.clone(),
        }
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<S> Service<Request<Body>> for ServerSpans<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !is_wanted(&metrics::RPC_SERVER) || request.uri().path().starts_with("/grpc.") {
            return Box::pin(self.inner.call(request));
        }
        let metadata = MetadataMap::from_headers(request.headers().clone());
        let caller = trace::of_caller(&metadata).map_or_else(Span::none, |context| Span::remote(&context));
        let path = request.uri().path().trim_start_matches('/');
        let known = self.methods.get(path).map_or(UNKNOWN_METHOD, String::as_str);
        let ending = Ending::of(Kind::Server, known, &caller);
        let response = ending.span.run(|| self.inner.call(request)).within(ending.span.clone());
        Box::pin(async move { Ok(ending.by(response.await?)) })
    }
}

impl<S> Service<Request<Body>> for ClientSpans<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if !is_wanted(&metrics::RPC_CLIENT) {
            return Box::pin(self.inner.call(request));
        }
        let method = request.uri().path().trim_start_matches('/');
        let mut ending = Ending::of(Kind::Client, method, &Span::current());
        ending.span.set(names::SERVER_ADDRESS, self.server.host.clone());
        if let Some(port) = self.server.port {
            ending.span.set(names::SERVER_PORT, i64::from(port));
        }
        if let Some(context) = ending.span.trace_context() {
            let mut metadata = MetadataMap::new();
            trace::inject(&context, &mut metadata);
            request.headers_mut().extend(metadata.into_headers());
        }
        let response = self.inner.call(request);
        Box::pin(async move {
            match response.await {
                Ok(response) => Ok(ending.by(response)),
                Err(error) => {
                    ending.with(Code::Unavailable);
                    Err(error)
                }
            }
        })
    }
}

fn is_wanted(metric: &Metric) -> bool {
    is_enabled() || metric.is_enabled()
}

fn status_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(STATUS).map(|status| Code::from_bytes(status.as_bytes()))
}

/// A span that ends with a status; that of a call which is dropped is CANCELLED.
struct Ending {
    kind: Kind,
    method: String,
    span: Span,
    began: Instant,
    ended: bool,
}

impl Ending {
    fn of(kind: Kind, method: &str, parent: &Span) -> Self {
        let method = method.to_owned();
        let span = span(kind, || method.clone())
            .with(|| {
                [
                    (names::RPC_SYSTEM, SYSTEM.into()),
                    (names::RPC_METHOD, method.clone().into()),
                ]
            })
            .start(parent);
        Self {
            kind,
            method,
            span,
            began: Instant::now(),
            ended: false,
        }
    }

    /// With the status that the response begins with, or else with that of its trailers.
    fn by(mut self, response: Response<Body>) -> Response<Body> {
        match status_of(response.headers()) {
            Some(code) => {
                self.with(code);
                response
            }
            None => response.map(|body| Body::new(Watched { body, ending: self })),
        }
    }

    fn with(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let name = reason(code);
        self.span.set(names::RPC_STATUS, name);
        let ours = matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        if ours || self.kind == Kind::Client && code != Code::Ok {
            self.span.failed(name, "");
        }
        self.span.end();
        let metric = match self.kind {
            Kind::Client => &metrics::RPC_CLIENT,
            _ => &metrics::RPC_SERVER,
        };
        metric.record(self.began.elapsed().as_secs_f64(), || {
            [
                (names::RPC_SYSTEM, SYSTEM.into()),
                (names::RPC_METHOD, self.method.clone().into()),
                (names::RPC_STATUS, name.into()),
            ]
        });
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.with(Code::Cancelled);
    }
}

/// A response's body, whose trailers end a span.
struct Watched {
    body: Body,
    ending: Ending,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let span = self.ending.span.clone();
        let polled = span.run(|| Pin::new(&mut self.body).poll_frame(cx));
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(code) = frame.trailers_ref().and_then(status_of) {
                    self.ending.with(code);
                }
            }
            Poll::Ready(Some(Err(status))) => self.ending.with(status.code()),
            // Without trailers nobody knows how it ended.
            Poll::Ready(None) => self.ending.with(Code::Unknown),
            Poll::Pending => {}
        }
        polled
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
