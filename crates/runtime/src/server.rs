//! The gRPC server of a process: health, reflection, limits, deadlines, a shutdown that ends.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_rpc::complete::CompleteErrorsLayer;
use millrace_rpc::deadline::DeadlineLayer;
use millrace_rpc::limit::InFlightLayer;
use millrace_rpc::span::ServerSpanLayer;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use crate::health::health_server::HealthServer;
use crate::readiness::{HealthService, Readiness};

/// How long calls in flight may take to end once the process is to stop. Must stay below the bound of [`crate::tasks`].
pub const DRAIN: Duration = Duration::from_secs(15);
/// Largest message of our services, both ways: give it to the generated server's `max_decoding_message_size` and
/// `max_encoding_message_size`.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Calls in flight over all connections; one more is refused.
const MAX_CALLS: usize = 1024;

const MAX_STREAMS_PER_CONNECTION: u32 = 256;
const MAX_HEADER_BYTES: u32 = 16 << 10;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Finds clients that vanished without a word; their streams would stay for ever.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a server could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: `listen` and `http` are HOST:PORT, port 0 takes a free one")]
    Bind {
        /// The address as configured.
        listen: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The descriptors for reflection cannot be used: the build is broken.
    #[error("cannot build gRPC reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The server broke down.
    #[error("the gRPC server broke down")]
    Transport(#[source] tonic::transport::Error),
}

/// Listens on `listen` (HOST:PORT; port 0 takes a free one) and says on which address. Early in the start, so that a
/// taken port fails before anything else is begun. Connections wait until [`serve`] is called.
pub async fn bind(listen: &str) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Bind {
        listen: listen.to_owned(),
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "listening");
    Ok((listener, address))
}

/// A server that is not running yet.
#[derive(Debug)]
pub struct Server {
    /// From [`bind`].
    pub listener: TcpListener,
    /// The services of the process; health and reflection are added.
    pub routes: Routes,
    /// Flips to NOT_SERVING when the shutdown begins.
    pub readiness: Readiness,
    /// From [`Readiness::new`].
    pub health: HealthServer<HealthService>,
    /// How long calls in flight may take to end; [`DRAIN`] is the usual.
    pub drain: Duration,
}

impl Server {
    /// Serves until `shutdown` is cancelled and the calls in flight have ended, at most for the drain.
    ///
    /// The hard bound is needed: a connection that is idle or half open may otherwise hold a graceful shutdown for hours.
    /// Handlers of streams without an end must end them when the shutdown begins.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), ServerError> {
        let routes = self.routes.add_service(self.health);
        let routes = with_reflection(routes).map_err(ServerError::Reflection)?;
        let readiness = self.readiness;
        let asked = shutdown.clone();
        let serving = tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keepalive_interval(Some(PING_INTERVAL))
            .http2_keepalive_timeout(Some(PING_TIMEOUT))
            .layer(ServerSpanLayer::new(methods()))
            .layer(InFlightLayer::new(MAX_CALLS))
            .layer(DeadlineLayer)
            .layer(CompleteErrorsLayer)
            .add_routes(routes)
            .serve_with_incoming_shutdown(TcpIncoming::from(self.listener).with_nodelay(Some(true)), async move {
                asked.cancelled().await;
                readiness.drain();
            });
        let bound = async {
            shutdown.cancelled().await;
            tokio::time::sleep(self.drain).await;
        };
        tokio::select! {
            served = serving => served.map_err(ServerError::Transport),
            () = bound => {
                tracing::warn!(drain = ?self.drain, "connections still open were cut off");
                Ok(())
            }
        }
    }
}

/// Every method of our own, as `package.Service/Method`.
fn methods() -> Vec<String> {
    // Descriptors that cannot be read would have failed the reflection above.
    let described = prost_types::FileDescriptorSet::decode(millrace_api::FILE_DESCRIPTOR_SET).unwrap_or_default();
    let files = described.file.iter();
    let services = files.flat_map(|file| file.service.iter().map(|service| (file.package(), service)));
    let methods = services.flat_map(|(package, service)| {
        let named = move |method: &prost_types::MethodDescriptorProto| {
            format!("{package}.{}/{}", service.name(), method.name())
        };
        service.method.iter().map(named)
    });
    methods.collect()
}

fn with_reflection(routes: Routes) -> Result<Routes, tonic_reflection::server::Error> {
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(millrace_api::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(crate::health::FILE_DESCRIPTOR_SET)
    };
    // Old and new tools ask for different versions.
    Ok(routes
        .add_service(described().build_v1()?)
        .add_service(described().build_v1alpha()?))
}
