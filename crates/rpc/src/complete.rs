//! Puts ErrorInfo on the errors that no handler made.
//!
//! | tonic answers | because | the caller gets |
//! |---|---|---|
//! | OUT_OF_RANGE, a message over the limit | the request is larger than the service takes | RESOURCE_EXHAUSTED `MESSAGE_TOO_LARGE` |
//! | UNIMPLEMENTED | no such method or service here | the same, `METHOD_UNKNOWN` |
//! | any other, without details | it could not read the request | the same, the code's name as reason |
//! | nothing: the handler panicked | a mistake of ours | INTERNAL `HANDLER_PANICKED` with an incident number |
//!
//! What carries details is passed on untouched. Streams end with trailers of our own making: they are not looked at.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use http::{Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::error::{self, Rejection};

/// Completes errors of every service below it.
#[derive(Debug, Clone, Copy, Default)]
pub struct CompleteErrorsLayer;

impl<S> Layer<S> for CompleteErrorsLayer {
    type Service = CompleteErrors<S>;
    fn layer(&self, inner: S) -> CompleteErrors<S> {
        CompleteErrors { inner }
    }
}

/// See [`CompleteErrorsLayer`].
#[derive(Debug, Clone)]
pub struct CompleteErrors<S> {
    inner: S,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<S> Service<Request<Body>> for CompleteErrors<S>
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
        let path = request.uri().path().to_owned();
        let response = self.inner.call(request);
        Box::pin(async move {
            let Ok(response) = AssertUnwindSafe(response).catch_unwind().await else {
                return Ok(error::internal("HANDLER_PANICKED", path).status().into_http());
            };
            let response = response?;
            // Only an answer without a body has its status in the headers.
            Ok(match Status::from_header_map(response.headers()) {
                Some(status) if status.code() != Code::Ok && status.details().is_empty() => {
                    completed(&status, &path).status().into_http()
                }
                _ => response,
            })
        })
    }
}

fn completed(status: &Status, path: &str) -> Rejection {
    match status.code() {
        Code::Unimplemented => {
            let message = format!("{path} is not a method of this service: reflection lists those it has");
            Rejection::new(Code::Unimplemented, "METHOD_UNKNOWN", message).with("method", path)
        }
        Code::OutOfRange if status.message().contains("message length too large") => {
            // The delay is the shortest that may be written: the same message stays too large.
            Rejection::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", status.message()).retry_after(Duration::ZERO)
        }
        code => Rejection::new(code, reason(code), status.message()),
    }
}

/// The name of a code.
pub(crate) fn reason(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tower::{ServiceExt, service_fn};

    async fn through(status: Status) -> Status {
        let inner = service_fn(move |_: Request<Body>| {
            let response = status.clone().into_http::<Body>();
            async move { Ok::<_, Infallible>(response) }
        });
        let request = Request::builder().uri("/a.B/C").body(Body::empty()).unwrap();
        let response = CompleteErrorsLayer.layer(inner).oneshot(request).await.unwrap();
        Status::from_header_map(response.headers()).unwrap()
    }

    #[tokio::test]
    async fn what_tonic_says_gets_a_reason() {
        let large = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        for (given, code, reason) in [
            (Status::unimplemented(""), Code::Unimplemented, "METHOD_UNKNOWN"),
            (
                Status::out_of_range(large),
                Code::ResourceExhausted,
                "MESSAGE_TOO_LARGE",
            ),
            (Status::internal("bad frame"), Code::Internal, "INTERNAL"),
            (Status::not_found("service not registered"), Code::NotFound, "NOT_FOUND"),
        ] {
            let status = through(given).await;
            assert_eq!((status.code(), error::reason(&status).as_deref()), (code, Some(reason)));
        }
    }

    #[tokio::test]
    async fn what_has_details_or_is_no_error_is_left_alone() {
        let ours = error::failed_precondition("PAUSED", "paused").status();
        let status = through(ours.clone()).await;
        assert_eq!((status.message(), status.details()), (ours.message(), ours.details()));
        assert_eq!(through(Status::ok("")).await.code(), Code::Ok);
    }
}
