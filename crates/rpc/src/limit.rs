//! A bound on calls in flight, over all connections of a process: one call too many is refused, never queued.
//!
//! Health is never refused: a process that is busy is not one that is broken.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::error;

const RETRY_AFTER: Duration = Duration::from_millis(500);
const NEVER_REFUSED: &str = "/grpc.health.v1.Health/";

/// Answers RESOURCE_EXHAUSTED `TOO_MANY_CALLS` with RetryInfo to calls above the bound. A stream counts until its
/// answer begins.
#[derive(Debug, Clone)]
pub struct InFlightLayer {
    calls: Arc<Semaphore>,
}

impl InFlightLayer {
    /// At most `calls` at once.
    pub fn new(calls: usize) -> Self {
        Self {
            calls: Arc::new(Semaphore::new(calls)),
        }
    }
}

impl<S> Layer<S> for InFlightLayer {
    type Service = InFlight<S>;
    fn layer(&self, inner: S) -> InFlight<S> {
        InFlight {
            inner,
            calls: self.calls.clone(),
        }
    }
}

/// See [`InFlightLayer`].
#[derive(Debug, Clone)]
pub struct InFlight<S> {
    inner: S,
    calls: Arc<Semaphore>,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<S> Service<Request<Body>> for InFlight<S>
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
        let permit = self.calls.clone().try_acquire_owned().ok();
        if permit.is_none() && !request.uri().path().starts_with(NEVER_REFUSED) {
            let message = "this process has as many calls in flight as it takes";
            let refused = error::resource_exhausted("TOO_MANY_CALLS", message, RETRY_AFTER);
            return Box::pin(async move { Ok(refused.status().into_http()) });
        }
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await;
            drop(permit);
            response
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::Notify;
    use tonic::{Code, Status};
    use tower::{ServiceExt, service_fn};

    use super::*;

    fn request(path: &str) -> Request<Body> {
        Request::builder().uri(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn one_too_many_is_refused_and_health_never() {
        let release = Arc::new(Notify::new());
        let waiting = release.clone();
        let inner = service_fn(move |request: Request<Body>| {
            let waiting = waiting.clone();
            async move {
                if request.uri().path() == "/slow" {
                    waiting.notified().await;
                }
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let service = InFlightLayer::new(1).layer(inner);
        let mut first = Box::pin(service.clone().oneshot(request("/slow")));
        assert!(futures::poll!(&mut first).is_pending());
        let refused = service.clone().oneshot(request("/quick")).await.unwrap();
        let status = Status::from_header_map(refused.headers()).unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(error::reason(&status).as_deref(), Some("TOO_MANY_CALLS"));
        assert!(error::retry_after(&status).is_some());
        let health = service
            .clone()
            .oneshot(request("/grpc.health.v1.Health/Check"))
            .await
            .unwrap();
        assert!(Status::from_header_map(health.headers()).is_none());
        release.notify_one();
        first.await.unwrap();
        let quick = service.oneshot(request("/quick")).await.unwrap();
        assert!(Status::from_header_map(quick.headers()).is_none());
    }
}
