//! An OTLP receiver over gRPC.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::store::Store;

/// Largest request: some thousand spans.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

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
        let service = TraceServiceServer::new(Receiving(Arc::new(Mutex::new(store))));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = tonic::transport::Server::builder()
            .add_service(service.max_decoding_message_size(MAX_MESSAGE_BYTES))
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
struct Receiving(Arc<Mutex<Store>>);

#[tonic::async_trait]
impl TraceService for Receiving {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (store, request) = (self.0.clone(), request.into_inner());
        let kept = tokio::task::spawn_blocking(move || {
            let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
            store.keep(&request)
        });
        match kept.await {
            Ok(Ok(())) => Ok(Response::new(ExportTraceServiceResponse::default())),
            Ok(Err(error)) => Err(Status::unavailable(format!("{error:#}"))),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }
}
