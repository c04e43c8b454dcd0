//! An endpoint that speaks the OpenAI embeddings API: fast, deterministic, and as badly behaved as it is told to be.
//!
//! Its vectors come from the words of a text ([`vector`]), so that texts with words in common are near each other and an
//! embedder's canary passes. Its answers stand in the reverse order of the texts, and its errors quote the texts, as
//! those of real endpoints may.
//!
//! How it behaves holds for all calls, until it is told otherwise: [`ModelEndpoint::misbehave`]. What it does to single
//! texts is chosen by the texts themselves: [`REFUSED`], [`NULL`], [`NOT_A_NUMBER`], [`SHORT`].

mod answer;
mod behaviour;
mod vector;

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use answer::{Question, Reply};
use behaviour::{For, State};

pub use behaviour::{Counts, Misbehaviour};
pub use vector::vector;

/// A text with this in it is refused with 400, and with it the whole call.
pub const REFUSED: &str = "the-endpoint-refuses-this";
/// A text with this in it gets a null in its vector.
pub const NULL: &str = "the-endpoint-computes-null";
/// A text with this in it gets a NaN in its vector, which JSON has no word for: Python writes it nevertheless.
pub const NOT_A_NUMBER: &str = "the-endpoint-computes-nan";
/// A text with this in it gets a vector that is one value short.
pub const SHORT: &str = "the-endpoint-forgets-a-value";

/// Where vectors are asked for.
const PATH: &str = "/v1/embeddings";
/// Largest call taken.
const MAX_CALL_BYTES: usize = 16 << 20;

/// A running endpoint. Dropped, it is gone.
#[derive(Debug)]
pub struct ModelEndpoint {
    /// Address before `/embeddings`.
    pub url: String,
    shared: Arc<Shared>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    dimensions: usize,
    key: Option<String>,
    state: Mutex<State>,
}

/// What is to be done with a call.
enum Act {
    Answer(Response<Reply>),
    AnswerAfter(Duration, Response<Reply>),
    Hang,
    HangUp,
}

impl ModelEndpoint {
    /// The model's name.
    pub const MODEL: &str = "stub";

    /// Serves vectors of so many values on a port of its own. With a key, whoever does not show it is refused.
    pub async fn start(dimensions: usize, key: Option<&str>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        let shared = Arc::new(Shared {
            dimensions,
            key: key.map(|key| format!("Bearer {key}")),
            state: Mutex::default(),
        });
        let serving = tokio::spawn(serve(listener, shared.clone()));
        Ok(Self {
            url,
            shared,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// Variables with which an embedder asks this endpoint: for [`crate::Stack::up_with`].
    pub fn environment(&self) -> Vec<(String, String)> {
        let variable = |key: &str, value: &str| (format!("MILLRACE_EMBEDDER_MODEL__ENDPOINT__{key}"), value.to_owned());
        vec![variable("URL", &self.url), variable("MODEL", Self::MODEL)]
    }

    /// From now on every call gets this.
    pub fn misbehave(&self, misbehaviour: Misbehaviour) {
        self.set(Some((misbehaviour, For::Good)));
    }

    /// The next calls get this.
    pub fn misbehave_for_calls(&self, misbehaviour: Misbehaviour, calls: usize) {
        self.set(Some((misbehaviour, For::Calls(calls))));
    }

    /// Every call gets this for so long.
    pub fn misbehave_for(&self, misbehaviour: Misbehaviour, time: Duration) {
        self.set(Some((misbehaviour, For::Until(Instant::now() + time))));
    }

    /// From now on every call is answered as it should be.
    pub fn behave(&self) {
        self.set(None);
    }

    /// Whether it answers what it would refuse for the sake of a text, from now on.
    pub fn be_lenient(&self, lenient: bool) {
        self.shared.state().lenient = lenient;
    }

    /// What has befallen the calls so far.
    pub fn counts(&self) -> Counts {
        self.shared.state().counts
    }

    fn set(&self, misbehaviour: Option<(Misbehaviour, For)>) {
        self.shared.state().misbehaviour = misbehaviour;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides over a call, and counts it.
    fn act(&self, question: &Question, shown: Option<&str>) -> Act {
        let mut state = self.state();
        let misbehaviour = state.next(Instant::now());
        let lenient = state.lenient;
        let counts = &mut state.counts;
        counts.calls += 1;
        counts.texts += question.texts().len();
        let vectors = |missing| question.vectors(self.dimensions, missing);
        let error = |status, code| question.error(status, code);
        if self.key.as_deref().is_some_and(|key| shown != Some(key)) {
            counts.not_ours += 1;
            return Act::Answer(error(401, "invalid_api_key"));
        }
        let (count, act) = match misbehaviour {
            Some(Misbehaviour::RateLimit { retry_after }) => {
                let mut limited = error(429, "rate_limit_exceeded");
                if let Some(time) = retry_after {
                    limited.headers_mut().insert(RETRY_AFTER, time.as_secs().into());
                }
                (&mut counts.rate_limited, Act::Answer(limited))
            }
            Some(Misbehaviour::Status(status)) => (&mut counts.failed, Act::Answer(error(status, "server_error"))),
            Some(Misbehaviour::Hang) => (&mut counts.hung, Act::Hang),
            Some(Misbehaviour::HangOn(word)) if question.has(word) => (&mut counts.hung, Act::Hang),
            Some(Misbehaviour::HangUp) => (&mut counts.hung_up, Act::HangUp),
            Some(Misbehaviour::Cut) => (&mut counts.hung_up, Act::Answer(vectors(0).map(Reply::cut))),
            Some(Misbehaviour::Html) => (&mut counts.nonsense, Act::Answer(question.html())),
            Some(Misbehaviour::OneTooFew) => (&mut counts.nonsense, Act::Answer(vectors(1))),
            _ if question.model != ModelEndpoint::MODEL => {
                (&mut counts.not_ours, Act::Answer(error(404, "model_not_found")))
            }
            _ if question.has(REFUSED) && !lenient => {
                (&mut counts.refused, Act::Answer(error(400, "invalid_request_error")))
            }
            Some(Misbehaviour::Slow(time)) => (&mut counts.slow, Act::AnswerAfter(time, vectors(0))),
            Some(Misbehaviour::HangOn(_)) | None => (&mut counts.served, Act::Answer(vectors(0))),
        };
        *count += 1;
        act
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &shared));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(client), service);
            // Ends with an error where it was told to hang up, or the client did.
            let _ = connection.await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Reply>> {
    let shown = request.headers().get(AUTHORIZATION).cloned();
    let of_embeddings = request.method() == Method::POST && request.uri().path() == PATH;
    let body = Limited::new(request.into_body(), MAX_CALL_BYTES).collect().await;
    let body = body.map_err(|error| anyhow!(error))?.to_bytes();
    let question = match Question::read(&body) {
        Ok(question) if of_embeddings => question,
        _ => return Ok(Question::default().error(404, "not_found")),
    };
    match shared.act(&question, shown.as_ref().and_then(|shown| shown.to_str().ok())) {
        Act::Answer(response) => Ok(response),
        Act::AnswerAfter(time, response) => {
            tokio::time::sleep(time).await;
            Ok(response)
        }
        Act::Hang => pending().await,
        Act::HangUp => bail!("told to hang up"),
    }
}
