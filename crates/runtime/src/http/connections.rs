//! Connections over HTTP/1.1, as many at once as there may be.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// After a connection that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What connections are allowed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; another one waits.
    pub connections: usize,
    /// More than one request a connection.
    pub keep_alive: bool,
    /// For a connection, from its beginning to its end.
    pub longest: Duration,
    /// Once the shutdown has begun, for the requests under way; then they are cut off.
    pub drain: Duration,
}

/// Answers requests until `shutdown`.
pub async fn serve<F, A>(listener: TcpListener, limits: Limits, shutdown: CancellationToken, answer: F)
where
    F: Fn(Request<Incoming>, SocketAddr) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < limits.connections => {
                let (stream, peer) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Of a client that left already; or the process has no file descriptors left.
                        tracing::warn!(%error, "an HTTP connection was not accepted");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                        continue;
                    }
                };
                let (answer, shutdown) = (answer.clone(), shutdown.clone());
                let answer = service_fn(move |request| {
                    let answered = answer(request, peer);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).keep_alive(limits.keep_alive);
                let connection = http.serve_connection(TokioIo::new(stream), answer);
                connections.spawn(async move {
                    let serving = async {
                        let mut connection = std::pin::pin!(connection);
                        tokio::select! {
                            served = connection.as_mut() => served,
                            () = shutdown.cancelled() => {
                                connection.as_mut().graceful_shutdown();
                                connection.await
                            }
                        }
                    };
                    // What a client does wrong on its connection is its own affair.
                    match tokio::time::timeout(limits.longest, serving).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection broke"),
                        Err(_) => tracing::debug!("an HTTP connection took too long and was cut off"),
                    }
                });
            }
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, ended).await.is_err() {
        tracing::debug!("HTTP connections still open were cut off");
    }
}
