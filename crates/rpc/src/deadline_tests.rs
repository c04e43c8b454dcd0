use std::convert::Infallible;

use futures::FutureExt;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::error;

fn request(timeout: Option<&str>) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    if let Some(timeout) = timeout {
        request.headers_mut().insert(HEADER, timeout.parse().unwrap());
    }
    request
}

/// A body that gives its trailers (OK) after a time.
struct Slow(Pin<Box<Sleep>>, bool);

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.1 {
            return Poll::Ready(None);
        }
        std::task::ready!(self.0.as_mut().poll(cx));
        self.1 = true;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

async fn trailers(mut body: Body) -> Status {
    let mut last = None;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        last = frame.unwrap().into_trailers().ok();
    }
    Status::from_header_map(&last.expect("trailers")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_late_is_dropped_and_answered_by_name() {
    let began = Instant::now();
    let service = DeadlineLayer.layer(service_fn(|_: Request<Body>| {
        std::future::pending::<Result<_, Infallible>>()
    }));
    let response = service.oneshot(request(Some("250m"))).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(error::reason(&status).as_deref(), Some("DEADLINE_EXCEEDED"));
    assert!(
        (250..260).contains(&began.elapsed().as_millis()),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_nothing_is_bounded() {
    for none in [None, Some("nonsense"), Some("5x"), Some("123456789S")] {
        let service = DeadlineLayer.layer(service_fn(|request: Request<Body>| async move {
            assert_eq!(Deadline::of(request.extensions()), None);
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
        assert!(service.oneshot(request(none)).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_sees_what_is_left() {
    let service = DeadlineLayer.layer(service_fn(|request: Request<Body>| async move {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let left = remaining(request.extensions(), Duration::from_secs(60));
        assert_eq!(left.as_secs(), 6);
        assert_eq!(remaining(request.extensions(), Duration::from_secs(1)).as_secs(), 1);
        Ok::<_, Infallible>(Response::new(Body::empty()))
    }));
    assert!(service.oneshot(request(Some("10S"))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_the_deadline() {
    for (lasts, code) in [(5, Code::Ok), (50, Code::DeadlineExceeded)] {
        let service = DeadlineLayer.layer(service_fn(move |_: Request<Body>| async move {
            let sleep = Box::pin(tokio::time::sleep(Duration::from_secs(lasts)));
            Ok::<_, Infallible>(Response::new(Body::new(Slow(sleep, false))))
        }));
        let response = service.oneshot(request(Some("10S"))).await.unwrap();
        assert_eq!(trailers(response.into_body()).await.code(), code);
    }
}

/// tonic's timer around this layer may fire first within the same millisecond: then the clock, not the timer, decides.
#[tokio::test(start_paused = true)]
async fn the_clock_decides_before_the_timer() {
    let mut expiry = Expiry::new(Deadline::after(Duration::from_millis(5)).unwrap());
    assert!(poll_fn(|cx| expiry.poll(cx)).now_or_never().is_none());
    tokio::time::advance(Duration::from_millis(5)).await;
    expiry.sleep.as_mut().reset(Instant::now() + Duration::from_secs(1));
    assert!(poll_fn(|cx| expiry.poll(cx)).now_or_never().is_some());
}

#[test]
fn every_unit_is_read() {
    for (text, expected) in [
        ("1H", Some(3_600_000_000_000)),
        ("2M", Some(120_000_000_000)),
        ("3S", Some(3_000_000_000)),
        ("4m", Some(4_000_000)),
        ("5u", Some(5_000)),
        ("6n", Some(6)),
        ("99999999H", Some(99_999_999 * 3_600_000_000_000)),
        ("", None),
        ("S", None),
        ("-1S", None),
        ("1é", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, http::HeaderValue::from_bytes(text.as_bytes()).unwrap());
        assert_eq!(timeout(&headers).map(|d| d.as_nanos()), expected, "{text}");
    }
}
