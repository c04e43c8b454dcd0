//! What tools that speak no gRPC ask a process, over plain HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 from the start until the process is asked to leave: nothing outside of it counts |
//! | `/readyz` | 200 when it is ready, 503 when it is not; lag, rates and reasons in JSON |
//! | `/metrics` | metrics as Prometheus reads them |
//! | `/log` | what is logged; PUT another filter, from the machine itself, to change it until the process ends |
//! | any other | 404, with this list |

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub mod connections;

use connections::Limits;

use crate::pipeline::{Pipeline, Summary};
use crate::server::ServerError;
use crate::telemetry::Ops;
use crate::telemetry::metrics::TEXT;

/// One request a connection, within a bound: slow clients must not take the place of a probe for ever.
const LIMITS: Limits = Limits {
    connections: 64,
    keep_alive: false,
    longest: Duration::from_secs(10),
    drain: Duration::ZERO,
};
const PATHS: &str = "/healthz, /readyz, /metrics, /log";
/// Longest filter.
const FILTER_BYTES: usize = 4096;

/// The server, not running yet.
#[derive(Debug)]
pub struct Http {
    listener: TcpListener,
    pipeline: Pipeline,
    ops: Ops,
}

impl Http {
    /// Listens on `listen` (HOST:PORT; port 0 takes a free one).
    pub async fn bind(listen: &str, pipeline: Pipeline, ops: Ops) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Bind {
            listen: listen.to_owned(),
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, "listening for HTTP");
        ops.metrics.observe(&pipeline.stages, &pipeline.readiness);
        Ok(Self {
            listener,
            pipeline,
            ops,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`; who is connected then is cut off: a scrape or a probe is asked again.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let Self {
            listener,
            pipeline,
            ops,
        } = self;
        connections::serve(listener, LIMITS, shutdown, move |request, peer| {
            let (pipeline, ops, local) = (pipeline.clone(), ops.clone(), peer.ip().is_loopback());
            async move { respond(request, local, &pipeline, &ops).await }
        })
        .await;
        Ok(())
    }
}

async fn respond(request: Request<Incoming>, local: bool, pipeline: &Pipeline, ops: &Ops) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    if path == "/log" && *request.method() == Method::PUT {
        return match local {
            true => change_log(request, ops).await,
            false => answer(
                StatusCode::FORBIDDEN,
                "text/plain",
                "the filter is changed from the machine itself\n",
            ),
        };
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return answer(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "GET or HEAD; PUT for /log\n",
        );
    }
    match path.as_str() {
        "/healthz" => answer(StatusCode::OK, "text/plain", "alive\n"),
        "/readyz" => {
            let status = match pipeline.readiness.is_ready() {
                true => StatusCode::OK,
                false => StatusCode::SERVICE_UNAVAILABLE,
            };
            answer(status, "application/json", format!("{}\n", picture(pipeline)))
        }
        "/log" => answer(StatusCode::OK, "text/plain", format!("{}\n", ops.lines.written())),
        "/metrics" => match ops.metrics.text() {
            Ok(text) => answer(StatusCode::OK, TEXT, text),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be written");
                answer(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "text/plain",
                    "metrics cannot be written: see the log\n",
                )
            }
        },
        _ => answer(
            StatusCode::NOT_FOUND,
            "text/plain",
            format!("nothing here; there are {PATHS}\n"),
        ),
    }
}

async fn change_log(request: Request<Incoming>, ops: &Ops) -> Response<Full<Bytes>> {
    let body = Limited::new(request.into_body(), FILTER_BYTES).collect().await;
    let text = body
        .ok()
        .and_then(|body| String::from_utf8(body.to_bytes().into()).ok());
    let changed = text.ok_or_else(|| format!("a filter is text of at most {FILTER_BYTES} bytes"));
    let changed = changed.and_then(|text| ops.lines.write(text.trim()).map_err(|error| error.to_string()));
    match changed {
        Ok(()) => answer(StatusCode::OK, "text/plain", format!("{}\n", ops.lines.written())),
        Err(why) => answer(StatusCode::BAD_REQUEST, "text/plain", format!("{why}\n")),
    }
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// GetPipeline in short.
fn picture(pipeline: &Pipeline) -> Value {
    let told = pipeline.told();
    let stages: Vec<_> = told
        .stages
        .iter()
        .map(|stage| {
            let summary = Summary::of(stage);
            json!({
                "name": stage.name,
                "state": summary.state,
                "partitions": stage.partitions.len(),
                "lag_records": summary.lag_records,
                "lag_ms": summary.lag_ms,
                "success_rate": stage.success_rate,
                "processed": stage.processed,
                "failed": stage.failed,
                "window_records": stage.window_records,
                "gate": stage.gate,
            })
        })
        .collect();
    json!({
        "service": told.service,
        "instance": told.instance,
        "ready": told.not_ready.is_empty(),
        "not_ready": told.not_ready,
        "impaired": told.impaired,
        "stages": stages,
    })
}

#[cfg(test)]
mod tests {
    use millrace_flow::progress::{StageProgress, StageState};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::watch;

    use super::*;
    use crate::readiness::Readiness;
    use crate::stage::StageHandle;
    use crate::telemetry::{self, Log, Telling, Traces};

    async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (line, body) = request.split_once('\n').unwrap_or((request, ""));
        let length = body.len();
        let text = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn each_path_answers() {
        let telling = Telling {
            instance: "local-0",
            log: &Log::default(),
            traces: &Traces::default(),
        };
        let telemetry = telemetry::init("test", telling).unwrap();
        let stage = StageProgress {
            name: "parse".into(),
            state: StageState::Running,
            recent: (3, 1),
            window_records: 5,
            ..StageProgress::default()
        };
        let (_sender, stage) = watch::channel(stage);
        let (readiness, _health) = Readiness::new(&[]);
        let kafka = readiness.condition("kafka");
        let pipeline = Pipeline {
            service: "millrace-test".into(),
            instance: "local-0".into(),
            stages: vec![StageHandle::new(stage, watch::Sender::new(false))],
            readiness,
        };
        let http = Http::bind("127.0.0.1:0", pipeline, telemetry.ops.clone())
            .await
            .unwrap();
        let address = http.address().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(http.serve(shutdown.clone()));

        assert_eq!(ask(address, "GET /healthz").await.0, 200);
        let (status, body) = ask(address, "GET /readyz").await;
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &told["ready"]), (503, &json!(false)), "{told}");
        assert_eq!(told["not_ready"], json!(["kafka: not checked yet"]));
        kafka.ready();
        let (status, body) = ask(address, "GET /readyz").await;
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 200, "{told}");
        assert_eq!(
            (&told["stages"][0]["name"], &told["stages"][0]["state"]),
            (&json!("parse"), &json!("RUNNING"))
        );
        assert_eq!(told["stages"][0]["success_rate"], json!(0.75));

        let (status, metrics) = ask(address, "GET /metrics").await;
        assert_eq!(status, 200);
        for line in ["millrace_ready", "millrace_stage_window_records"] {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
        assert_eq!(ask(address, "GET /log").await, (200, "info\n".into()));
        assert_eq!(ask(address, "PUT /log\nwarn,millrace_kafka=debug").await.0, 200);
        let (_, now) = ask(address, "GET /log").await;
        assert!(now.contains("millrace_kafka=debug"), "{now}");
        let (status, why) = ask(address, "PUT /log\na=b=c").await;
        assert!(status == 400 && why.contains("`a=b=c`"), "{why}");
        let long = format!("PUT /log\n{}", "a".repeat(FILTER_BYTES + 1));
        assert_eq!(ask(address, &long).await.0, 400);
        assert_eq!(ask(address, "POST /readyz").await.0, 405);
        let (status, list) = ask(address, "GET /").await;
        assert!(status == 404 && list.contains("/metrics"), "{list}");
        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }
}
