//! An OTLP receiver over gRPC. It keeps a request as the bytes that came and reads none: it runs on the cores of the
//! services that send.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};

use anyhow::{Context, Result};
use bytes::{Buf as _, Bytes};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::SERVICE_NAME;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::store::Store;

/// Largest request: some thousand spans.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// HTTP/2's window and largest frame: a usual request comes in one piece, and does not wait for leave to go on.
const WINDOW_BYTES: u32 = 4 << 20;
const FRAME_BYTES: u32 = 1 << 20;
/// The one method of [`SERVICE_NAME`].
const EXPORT: &str = "Export";

/// Receives until it is stopped.
#[derive(Debug)]
pub struct Receiver {
    stop: CancellationToken,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Receiver {
    /// Listens on a port of this machine, and keeps what comes under `folder`.
    pub async fn start(port: u16, folder: &Path) -> Result<Self> {
        let store = Store::open(folder)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("cannot listen for traces on {address}"))?;
        let service = TraceService(Arc::new(Mutex::new(store)));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = tonic::transport::Server::builder()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .add_service(service)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), stopped);
        Ok(Self {
            stop,
            task: tokio::spawn(serving),
        })
    }

    /// Stops. The services have ended: nothing comes any more.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.task.abort();
        match self.task.await {
            Ok(ended) => ended.context("the receiver of traces failed"),
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => Err(error).context("the receiver of traces failed"),
        }
    }
}

#[derive(Debug, Clone)]
struct TraceService(Arc<Mutex<Store>>);

impl TraceService {
    async fn export(self, request: Bytes) -> Result<Response<Empty>, Status> {
        let kept = tokio::task::spawn_blocking(move || {
            let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            store.keep(&request)
        });
        match kept.await {
            Ok(Ok(())) => Ok(Response::new(Empty)),
            Ok(Err(error)) => Err(Status::unavailable(format!("{error:#}"))),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }
}

impl NamedService for TraceService {
    const NAME: &'static str = SERVICE_NAME;
}

impl tower::Service<http::Request<Body>> for TraceService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        async move {
            if request.uri().path().rsplit('/').next() != Some(EXPORT) {
                return Ok(Status::unimplemented(format!("{SERVICE_NAME} has {EXPORT} only")).into_http());
            }
            let export = move |request: Request<Bytes>| service.clone().export(request.into_inner());
            let mut grpc = Grpc::new(Raw).max_decoding_message_size(MAX_MESSAGE_BYTES);
            Ok(grpc.unary(tower::service_fn(export), request).await)
        }
        .boxed()
    }
}

/// The answer: an ExportTraceServiceResponse of which nothing is set.
#[derive(Debug)]
struct Empty;

/// Messages as the bytes that they are.
#[derive(Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Empty;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Empty;
    type Error = Status;

    fn encode(&mut self, Empty: Empty, _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}
