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
    /// A connection that is older takes no further request.
    pub longest: Duration,
    /// For the request under way then, or when the shutdown begins; then it is cut off.
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
                    let mut connection = std::pin::pin!(connection);
                    let served = tokio::select! {
                        served = connection.as_mut() => Ok(served),
                        () = shutdown.cancelled() => Err(()),
                        () = tokio::time::sleep(limits.longest) => Err(()),
                    };
                    let served = match served {
                        Ok(served) => Ok(served),
                        Err(()) => {
                            connection.as_mut().graceful_shutdown();
                            tokio::time::timeout(limits.drain, connection).await
                        }
                    };
                    // What a client does wrong on its connection is its own affair.
                    match served {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection broke"),
                        Err(_) => tracing::debug!("an HTTP connection took too long and was cut off"),
                    }
                });
            }
        }
    }
    // Each has its bound.
    while connections.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use hyper::StatusCode;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;

    use super::*;

    const LIMITS: Limits = Limits {
        connections: 2,
        keep_alive: true,
        longest: Duration::from_secs(3_600),
        drain: Duration::from_secs(3_600),
    };

    struct Rig {
        address: SocketAddr,
        shutdown: CancellationToken,
        /// Lets requests of `/slow` be answered.
        go: std::sync::Arc<Notify>,
        served: tokio::task::JoinHandle<()>,
    }

    async fn rig(limits: Limits) -> Rig {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, go) = (CancellationToken::new(), std::sync::Arc::new(Notify::new()));
        let slow = go.clone();
        let answer = move |request: Request<Incoming>, _| {
            let slow = slow.clone();
            async move {
                if request.uri().path() == "/slow" {
                    slow.notified().await;
                }
                let mut response = Response::new(Full::new(Bytes::from("answered")));
                *response.status_mut() = StatusCode::OK;
                response
            }
        };
        let served = tokio::spawn(serve(listener, limits, shutdown.clone(), answer));
        Rig {
            address,
            shutdown,
            go,
            served,
        }
    }

    async fn asked(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream, path).await;
        stream
    }

    async fn ask(stream: &mut TcpStream, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    }

    /// What comes until the other side closes.
    async fn to_the_end(mut stream: TcpStream) -> String {
        let mut text = String::new();
        // Cut off is an end too.
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut bytes = vec![0; 4096];
        let read = stream.read(&mut bytes).await.unwrap();
        String::from_utf8(bytes[..read].into()).unwrap()
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_the_next_request() {
        let rig = rig(LIMITS).await;
        let mut stream = asked(rig.address, "/").await;
        assert!(answer(&mut stream).await.contains("answered"));
        ask(&mut stream, "/").await;
        assert!(answer(&mut stream).await.contains("answered"));
    }

    #[tokio::test]
    async fn what_is_under_way_at_the_shutdown_is_answered_and_the_rest_closed() {
        let rig = rig(LIMITS).await;
        let mut idle = asked(rig.address, "/").await;
        assert!(answer(&mut idle).await.contains("answered"));
        let slow = asked(rig.address, "/slow").await;
        // Its request has been read once the other one is answered again.
        ask(&mut idle, "/").await;
        assert!(answer(&mut idle).await.contains("answered"));
        rig.shutdown.cancel();
        assert_eq!(to_the_end(idle).await, "");
        rig.go.notify_one();
        assert!(to_the_end(slow).await.contains("answered"));
        rig.served.await.unwrap();
    }

    #[tokio::test]
    async fn an_old_connection_takes_no_more_and_one_that_hangs_is_cut_off() {
        let limits = Limits {
            longest: Duration::ZERO,
            drain: Duration::from_millis(50),
            ..LIMITS
        };
        let rig = rig(limits).await;
        let began = Instant::now();
        assert_eq!(to_the_end(asked(rig.address, "/slow").await).await, "");
        assert!(began.elapsed() >= Duration::from_millis(50));
    }

    #[tokio::test]
    async fn no_more_are_served_than_may_be() {
        let rig = rig(LIMITS).await;
        let (one, two) = (asked(rig.address, "/slow").await, asked(rig.address, "/slow").await);
        let third = asked(rig.address, "/").await;
        let early = tokio::time::timeout(Duration::from_millis(50), third.readable()).await;
        assert!(early.is_err(), "the third was served");
        rig.go.notify_one();
        rig.go.notify_one();
        drop((one, two));
        assert!(answer(&mut { third }).await.contains("answered"));
    }
}
