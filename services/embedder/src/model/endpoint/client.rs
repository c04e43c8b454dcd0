//! The HTTP side of an endpoint: one exchange.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use millrace_tls::{TlsError, Trust};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, Url, redirect};
use serde::Serialize;

use super::answer::{self, Answered};
use super::{BackendError, EndpointOptions, Key, Outage};

/// For a connection; the rest of the time is the model's.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of an answer that is no success as much is read as may hold an error's code.
const MAX_ERROR_BYTES: usize = 16 << 10;
/// The answer to the shortest of questions may be so large: a model of more dimensions is to be found by the gate.
const MIN_ANSWER_BYTES: usize = 1 << 20;
/// A value of a vector in JSON, every digit of a double and the white space of pretty printing.
const BYTES_PER_VALUE: usize = 48;

/// Why an endpoint cannot be asked as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Its address is none.
    #[error("its url is no address: {0}")]
    Url(String),
    /// The key's file cannot be read.
    #[error("reading its key from {} failed", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key cannot be sent.
    #[error("its key is empty or holds characters that no HTTP header may hold")]
    Key,
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
    /// Whom to trust cannot be said.
    #[error("its certificate could not be judged")]
    Tls(#[from] TlsError),
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
}

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    input: &'a [&'a str],
    encoding_format: &'static str,
}

impl Client {
    pub(super) fn new(options: &EndpointOptions) -> Result<Self, EndpointError> {
        let url = format!("{}/embeddings", options.url.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|e| EndpointError::Url(e.to_string()))?;
        let trust = Trust::behind(url.scheme(), Some(&options.ca_file));
        let http = reqwest::Client::builder()
            .default_headers(headers(&options.key)?)
            .connect_timeout(CONNECT_TIMEOUT.min(options.timeout))
            .timeout(options.timeout)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .tls_backend_preconfigured(trust.client()?)
            .build()
            .map_err(EndpointError::Client)?;
        Ok(Self { http, url })
    }

    /// One vector per text, in their order.
    pub(super) async fn embed(
        &self,
        model: &str,
        texts: &[&str],
        dimensions: usize,
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        let question = Question {
            model,
            input: texts,
            encoding_format: "float",
        };
        let sent = self.http.post(self.url.clone()).json(&question).send().await;
        let mut response = sent.map_err(|e| away(&e))?;
        let values = texts.len().saturating_mul(dimensions);
        let limit = match response.status().is_success() {
            true => values.saturating_mul(BYTES_PER_VALUE).max(MIN_ANSWER_BYTES),
            false => MAX_ERROR_BYTES,
        };
        let body = body(&mut response, limit).await;
        answer::judge(Answered {
            status: response.status(),
            retry_after: response.headers().get(RETRY_AFTER),
            body,
            texts: texts.len(),
        })
    }
}

/// What every call carries: the key, marked as what nobody may show.
fn headers(key: &Key) -> Result<HeaderMap, EndpointError> {
    let key = match key {
        Key::None => return Ok(HeaderMap::new()),
        Key::Given(key) => key.reveal().to_owned(),
        Key::File(path) => fs::read_to_string(path).map_err(|source| EndpointError::KeyFile {
            path: path.clone(),
            source,
        })?,
    };
    let key = key.trim();
    let mut bearer = HeaderValue::from_str(&format!("Bearer {key}"))
        .ok()
        .filter(|_| !key.is_empty())
        .ok_or(EndpointError::Key)?;
    bearer.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, bearer)]))
}

/// The body, or why there is none that could be judged.
async fn body(response: &mut Response, limit: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| chain(&e))? {
        if body.len() + chunk.len() > limit {
            return Err(format!("the answer is larger than {limit} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn away(error: &reqwest::Error) -> BackendError {
    Outage::Broken(chain(error)).into()
}

/// The causes of a failed exchange, without the URL: it may carry a password.
fn chain(error: &reqwest::Error) -> String {
    let kind = match error {
        e if e.is_timeout() => "no answer in time",
        e if e.is_connect() => "cannot connect",
        _ => "the exchange broke off",
    };
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(kind.to_owned(), |text, cause| format!("{text}: {cause}"))
}
