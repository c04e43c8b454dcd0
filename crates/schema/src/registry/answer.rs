//! One HTTP exchange with the registry, and what its answer means.
//!
//! | status | body | becomes |
//! |---|---|---|
//! | none (connect, time-out, reset) | | Away |
//! | 429 | any | RateLimited, for as long as `Retry-After` says |
//! | 408, 5xx | any | Away, with the registry's words |
//! | 2xx | the JSON expected | the value |
//! | 2xx | anything else | NotARegistry |
//! | 404 | JSON with an error_code of 404… | none: not registered |
//! | other 3xx, 4xx | JSON with an error_code | Refused |
//! | 401, 403 | any | Refused |
//! | other 3xx, 4xx | anything else | NotARegistry |

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::RegistryError;

/// Largest answer read, in bytes. A schema of this size would be a mistake.
const MAX_ANSWER_BYTES: usize = 4 << 20;
const MAX_QUOTED: usize = 300;
/// Longest time that is waited because the registry says so.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

#[derive(Deserialize)]
struct ErrorBody {
    error_code: i64,
    #[serde(default)]
    message: String,
}

/// What is being asked, for error messages.
pub(crate) struct Call<'a> {
    pub(crate) operation: String,
    pub(crate) registry: &'a str,
    /// Which credentials go with it.
    pub(crate) told: &'static str,
}

impl Call<'_> {
    /// Sends, and reads the answer. None: the registry says that it has no such thing.
    pub(crate) async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<Option<T>, RegistryError> {
        let response = request.send().await.map_err(|e| self.away(&chain(&e)))?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(RegistryError::RateLimited {
                operation: self.operation.clone(),
                registry: self.registry.to_owned(),
                retry_after: retry_after(response.headers()),
            });
        }
        let body = self.body(response).await?;
        if status.is_success() {
            let value = serde_json::from_slice(&body).map_err(|e| self.foreign(status, &body, &e.to_string()))?;
            return Ok(Some(value));
        }
        let error: Option<ErrorBody> = serde_json::from_slice(&body).ok();
        match (status, error) {
            (_, error) if is_outage(status) => {
                let said = error.map_or_else(|| quoted(&body), |e| e.message);
                Err(self.away(&format!("HTTP {}: {said}", status.as_u16())))
            }
            (StatusCode::NOT_FOUND, Some(error)) if is_not_found(error.error_code) => Ok(None),
            (_, Some(error)) => Err(self.refused(status, Some(error.error_code), error.message)),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => Err(self.refused(status, None, quoted(&body))),
            (_, None) => Err(self.foreign(status, &body, "no error_code in the answer")),
        }
    }

    /// As [`Self::send`], where the registry has no reason to say that there is no such thing.
    pub(crate) async fn send_required<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, RegistryError> {
        self.send(request).await?.ok_or_else(|| {
            self.refused(
                StatusCode::NOT_FOUND,
                None,
                "the registry says that it does not exist".to_owned(),
            )
        })
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.away(&chain(&e)))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                let why = format!("the answer is larger than {MAX_ANSWER_BYTES} bytes");
                return Err(self.foreign(response.status(), &[], &why));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn away(&self, why: &str) -> RegistryError {
        RegistryError::Away {
            operation: self.operation.clone(),
            registry: self.registry.to_owned(),
            why: why.to_owned(),
        }
    }

    fn refused(&self, status: StatusCode, code: Option<i64>, mut message: String) -> RegistryError {
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            message = format!("{message}; {}", self.told);
        }
        RegistryError::Refused {
            operation: self.operation.clone(),
            registry: self.registry.to_owned(),
            status: status.as_u16(),
            code,
            message,
        }
    }

    fn foreign(&self, status: StatusCode, body: &[u8], why: &str) -> RegistryError {
        RegistryError::NotARegistry {
            operation: self.operation.clone(),
            registry: self.registry.to_owned(),
            status: status.as_u16(),
            why: format!("{why}: {}", quoted(body)),
        }
    }
}

fn is_outage(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).min(LONGEST_WAIT)
}

/// 404 itself, or 40401 (subject), 40402 (version), 40403 (schema), 40408 (no level of its own).
fn is_not_found(code: i64) -> bool {
    code == 404 || code / 100 == 404
}

fn quoted(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if text.is_empty() {
        return "an empty body".to_owned();
    }
    let short: String = text.chars().take(MAX_QUOTED).collect();
    format!("`{short}`")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_what_the_registry_says_within_reason() {
        for (header, seconds) in [
            (None, 1),
            (Some("7"), 7),
            (Some("0"), 0),
            (Some("86400"), 3600),
            (Some("Wed, 21 Oct 2026 07:28:00 GMT"), 1),
            (Some("-5"), 1),
        ] {
            let value = header.map(|text| (RETRY_AFTER, text.parse().unwrap()));
            let headers: HeaderMap = value.into_iter().collect();
            assert_eq!(retry_after(&headers), Duration::from_secs(seconds), "{header:?}");
        }
    }
}
