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

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
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
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerSpanLayer;

/// Spans of the calls that a client makes: around a channel, for a generated client.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientSpanLayer;

/// See [`ServerSpanLayer`].
#[derive(Debug, Clone)]
pub struct ServerSpans<S>(S);

/// See [`ClientSpanLayer`].
#[derive(Debug, Clone)]
pub struct ClientSpans<S>(S);

impl<S> Layer<S> for ServerSpanLayer {
    type Service = ServerSpans<S>;
    fn layer(&self, inner: S) -> ServerSpans<S> {
        ServerSpans(inner)
    }
}

impl<S> Layer<S> for ClientSpanLayer {
    type Service = ClientSpans<S>;
    fn layer(&self, inner: S) -> ClientSpans<S> {
        ClientSpans(inner)
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
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !is_wanted(&metrics::RPC_SERVER) || request.uri().path().starts_with("/grpc.") {
            return Box::pin(self.0.call(request));
        }
        let metadata = MetadataMap::from_headers(request.headers().clone());
        let caller = trace::of_caller(&metadata).map_or_else(Span::none, |context| Span::remote(&context));
        let mut ending = Ending::of(Kind::Server, request.uri().path(), &caller);
        let response = ending.span.run(|| self.0.call(request)).within(ending.span.clone());
        Box::pin(async move {
            let response = response.await?;
            Ok(match status_of(response.headers()) {
                Some(code) => {
                    ending.with(code);
                    response
                }
                None => response.map(|body| watched(body, ending)),
            })
        })
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
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if !is_wanted(&metrics::RPC_CLIENT) {
            return Box::pin(self.0.call(request));
        }
        let mut ending = Ending::of(Kind::Client, request.uri().path(), &Span::current());
        if let Some(host) = request.uri().host() {
            ending.span.set(names::SERVER_ADDRESS, host.to_owned());
        }
        if let Some(port) = request.uri().port_u16() {
            ending.span.set(names::SERVER_PORT, i64::from(port));
        }
        if let Some(context) = ending.span.trace_context() {
            let mut metadata = MetadataMap::new();
            trace::inject(&context, &mut metadata);
            request.headers_mut().extend(metadata.into_headers());
        }
        let response = self.0.call(request);
        Box::pin(async move {
            let response = match response.await {
                Ok(response) => response,
                Err(error) => {
                    ending.with(Code::Unavailable);
                    return Err(error);
                }
            };
            Ok(match status_of(response.headers()) {
                Some(code) => {
                    ending.with(code);
                    response
                }
                None => response.map(|body| watched(body, ending)),
            })
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
    fn of(kind: Kind, path: &str, parent: &Span) -> Self {
        let method = path.trim_start_matches('/').to_owned();
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

    fn with(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let name = reason(code);
        self.span.set(names::RPC_STATUS, name);
        if code == Code::Unimplemented {
            self.span.rename(UNKNOWN_METHOD);
            self.span.set(names::RPC_METHOD, UNKNOWN_METHOD);
            UNKNOWN_METHOD.clone_into(&mut self.method);
        }
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

fn watched(body: Body, ending: Ending) -> Body {
    Body::new(Watched { body, ending })
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
