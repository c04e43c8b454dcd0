//! Deadlines: enforced on the server, seen by handlers, passed on to the next service.
//!
//! | the caller sends | the handler | the caller gets |
//! |---|---|---|
//! | no `grpc-timeout` | runs as long as it takes | its answer |
//! | one, and the handler is in time | sees a [`Deadline`] in the request's extensions | its answer |
//! | one, and it passes first | is dropped | DEADLINE_EXCEEDED with ErrorInfo |
//! | one, and it passes within a stream | the stream is dropped | what was sent, then DEADLINE_EXCEEDED |
//!
//! A handler that is dropped stops at its next `.await`: what must not be left half done runs in a task of its own.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, HeaderMap, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::error::Rejection;

const HEADER: &str = "grpc-timeout";

/// The moment until which the caller waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline this long from now. None if that is beyond what the clock can say.
    pub fn after(time: Duration) -> Option<Self> {
        Instant::now().checked_add(time).map(Self)
    }
    /// The deadline of the request being handled: `Deadline::of(request.extensions())`.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }
    /// What is left; zero when it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// What is left to the request being handled, at most `limit`: the time to give to a call made for it.
pub fn remaining(extensions: &Extensions, limit: Duration) -> Duration {
    Deadline::of(extensions).map_or(limit, |d| d.remaining().min(limit))
}

/// Gives an outgoing request this long. The server is told and the client stops waiting then.
pub fn set<T>(request: &mut tonic::Request<T>, time: Duration) {
    request.set_timeout(time);
}

/// What a call returned, with tonic's own CANCELLED for an expired deadline called by its name.
pub fn named(status: Status) -> Status {
    let mut source = std::error::Error::source(&status);
    while let Some(cause) = source {
        if cause.is::<tonic::TimeoutExpired>() {
            return exceeded();
        }
        source = cause.source();
    }
    status
}

fn exceeded() -> Status {
    Rejection::new(
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "the request's deadline passed before it was answered",
    )
    .status()
}

/// Enforces the caller's deadline on every service below it.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;
    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService { inner }
    }
}

/// See [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct DeadlineService<S> {
    inner: S,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<S> Service<Request<Body>> for DeadlineService<S>
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
        let Some(deadline) = timeout(request.headers()).and_then(Deadline::after) else {
            return Box::pin(self.inner.call(request));
        };
        request.extensions_mut().insert(deadline);
        let response = self.inner.call(request);
        Box::pin(async move {
            let mut expiry = Expiry::new(deadline);
            let mut response = pin!(response);
            tokio::select! {
                biased;
                response = &mut response => Ok(response?.map(|body| bounded(body, expiry))),
                () = poll_fn(|cx| expiry.poll(cx)) => Ok(exceeded().into_http()),
            }
        })
    }
}

/// Fires at a deadline. It asks the clock before the timer: tonic has a timer for the same moment around this layer,
/// which must never be the first to see it.
struct Expiry {
    deadline: Deadline,
    sleep: Pin<Box<Sleep>>,
}

impl Expiry {
    fn new(deadline: Deadline) -> Self {
        Self {
            deadline,
            sleep: Box::pin(tokio::time::sleep_until(deadline.0)),
        }
    }
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline.remaining().is_zero() {
            return Poll::Ready(());
        }
        self.sleep.as_mut().poll(cx)
    }
}

fn bounded(body: Body, expiry: Expiry) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(Bounded {
        body: Some(body),
        expiry,
    })
}

/// A response body that ends with DEADLINE_EXCEEDED when its time is over.
struct Bounded {
    body: Option<Body>,
    expiry: Expiry,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = self.body.as_mut() else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if self.expiry.poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.body = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(match exceeded().add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }
    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

/// Reads `grpc-timeout`: 1 to 8 digits and a unit. What is not that counts as no deadline, as in tonic.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "deadline_tests.rs"]
mod tests;
